"""A token of their own for tests that wait on a rate limit."""

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.raw_servers import fresh_token


@pytest.fixture
def own_token(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rate limit of another test applies here."""
    token = fresh_token()
    sandbox.configure(token=token)
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token=token))
