"""The protocol as a state machine: whatever fails, in whatever order, the card is charged at most once,
nothing untrue is said, and once the faults are over the task ends well by itself.

Most is explored with a Cloudflare in memory and in a virtual time, so that a window of minutes takes none; a
part of it over real HTTP as well. To explore further::

    CFBILLING_MODEL_EXAMPLES=20000 pytest --timeout 0 tests/charging/test_model.py
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test as explore

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.http import send_tracking
from airflow_provider_cfbilling.charging import progress as progress_module
from airflow_provider_cfbilling.charging import protocol as protocol_module
from airflow_provider_cfbilling.charging import unfenced_journal
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.topup_task import AMOUNT_CENTS, TopupTask
from tests.charging.virtual import VirtualTime
from tests.charging.virtual_cloudflare import SandboxCloudflare, WatchedHttpClient
from tests.raw_servers import client_of


class TopupTaskOverHttp(TopupTask):
    """The same task with the real client, in front of the sandbox."""

    time = VirtualTime(running=True)
    watched_client = WatchedHttpClient
    sandbox: Sandbox
    client: CfBillingClient

    def _cloudflare(self, tax: float) -> SandboxCloudflare:
        self.sandbox.reset()
        token = self.client._settings.secret
        self.sandbox.configure(
            token=token,
            fee_percent=0,
            tax_percent=max(0, round(100 * tax - 100)),
            credit_cents=max(0, round(AMOUNT_CENTS * (1 - tax))),
            settle_seconds=20,
        )
        return SandboxCloudflare(self.time, self.sandbox, self.client)


ALL_EXAMPLES = settings.get_profile("all").max_examples


def exploring(examples: int, steps: int) -> settings:
    """Return how far to explore: in every run the same, unless a longer one is wanted.

    :param examples: of ``make test-all``.
    """
    longer = int(os.environ.get("CFBILLING_MODEL_EXAMPLES", "0"))
    return settings(
        max_examples=longer or examples * settings().max_examples // ALL_EXAMPLES,
        stateful_step_count=steps,
        derandomize=not longer,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
    )


def pass_the_time_of(machine: type[TopupTask], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (protocol_module, progress_module, unfenced_journal, send_tracking):
        monkeypatch.setattr(module, "time", machine.time)


# What goes wrong in few moves is seldom met in many, which undo it.
@pytest.mark.parametrize(("examples", "steps"), [(2000, 3), (500, 8), (100, 25)], ids=["few", "some", "many"])
def test_card_is_charged_at_most_once_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, examples: int, steps: int
):
    pass_the_time_of(TopupTask, monkeypatch)
    explore(TopupTask, settings=exploring(examples, steps))


def test_so_it_is_over_real_http(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    pass_the_time_of(TopupTaskOverHttp, monkeypatch)
    with client_of(sandbox) as client:
        TopupTaskOverHttp.sandbox, TopupTaskOverHttp.client = sandbox, client
        explore(TopupTaskOverHttp, settings=exploring(examples=12, steps=8))
