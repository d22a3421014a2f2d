"""A stand-in for Cloudflare's AI Gateway Billing API, for demonstrations and tests.

Cloudflare has no test mode: every top-up charges a card. Point an Airflow connection at a sandbox instead::

    python -m airflow_provider_cfbilling.sandbox

or, in a test::

    with Sandbox(settle_seconds=0.2) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri())
        sandbox.fault("createTopup", "reset", when="after")
        ...
        assert len(sandbox.charges()) == 1

Its ledger, not its responses, says what was charged. Serving needs the extra ``sandbox``; importing does not.
"""

from airflow_provider_cfbilling.sandbox.server import Sandbox
from airflow_provider_cfbilling.sandbox.steering import SandboxClient

__all__ = ["Sandbox", "SandboxClient"]
