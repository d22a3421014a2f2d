"""What the trigger of a top-up sees, and what it leaves to the task."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_cfbilling import polling
from airflow_provider_cfbilling.charging.journal import ChargeIntent, Record
from airflow_provider_cfbilling.charging.progress import Progress
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.triggers.firing import (
    COMMON,
    broken,
    completed,
    fire,
    low,
    of_a_topup,
    pending,
    revived,
    wait_for_polls,
)

pytestmark = pytest.mark.usefixtures("own_token", "short_backoff")


def charge_intent(sandbox: Sandbox, amount_cents: int = 2500) -> ChargeIntent:
    now = time.time()
    return ChargeIntent(sandbox.account_id, amount_cents, now, now)


def searching(sandbox: Sandbox) -> Progress:
    """The progress of a task that searches for a lost charge of 2500 cents."""
    deadline = time.time() + 600
    record = Record("intent", charge_intent(sandbox))
    return Progress(record, "reconcile", reconcile_deadline=deadline, reconcile_deadline_here=deadline)


def settling(sandbox: Sandbox, topup: str, **deadlines: float) -> Progress:
    """The progress of a task that waits for a top-up."""
    record = Record("accepted", charge_intent(sandbox), topup={"payment_intent_id": topup})
    return Progress(record, "settle", **deadlines)


def test_settlement_is_news_for_the_task(sandbox: Sandbox):
    topup = pending(sandbox, settle_seconds=0.5)
    intent = charge_intent(sandbox)
    progress = Progress(Record("accepted", intent, topup={"payment_intent_id": topup}), "settle")
    (event,) = fire(of_a_topup(progress))
    assert event.payload == {"status": "resume", "progress": progress.to_json(), "trigger_error": None}


@pytest.mark.parametrize("name", ["settlement_deadline", "reconcile_deadline"])
def test_deadline_is_the_old_one_after_a_restart(sandbox: Sandbox, name: str):
    deadline = time.time() + 1.5
    if name == "settlement_deadline":
        record = Record(
            "accepted",
            charge_intent(sandbox),
            topup={"payment_intent_id": pending(sandbox)},
        )
    else:
        record = Record("intent", charge_intent(sandbox, 9900))
    deadlines: dict[str, Any] = {name: deadline}
    if name == "reconcile_deadline":
        deadlines["reconcile_deadline_here"] = deadline
    phase: Any = "settle" if name == "settlement_deadline" else "reconcile"
    trigger = of_a_topup(Progress(record, phase, **deadlines))
    for _ in range(3):
        trigger = revived(trigger)
    fire(trigger)
    assert -1.1 < time.time() - deadline < 20  # Cloudflare's clock has whole seconds


def test_invoice_of_a_lost_charge_is_news(sandbox: Sandbox):
    progress = searching(sandbox)

    async def appear() -> None:
        await wait_for_polls(sandbox, 2)
        sandbox.add_invoice(2500)

    (event,) = fire(of_a_topup(progress), meanwhile=appear)
    assert event.payload["status"] == "resume"


@pytest.mark.parametrize("phase", ["settle", "reconcile"])
def test_trigger_hands_back_when_it_cannot_poll(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, phase: str
):
    """`airflow dags test` cannot read a stored connection in a trigger, on Airflow 3.3."""
    progress = searching(sandbox) if phase == "reconcile" else settling(sandbox, pending(sandbox))
    monkeypatch.delenv("AIRFLOW_CONN_CFBILLING_DEFAULT")
    before = len(sandbox.requests())
    (event,) = fire(of_a_topup(progress))
    assert (event.payload["status"], event.payload["progress"]) == ("resume", progress.to_json())
    assert "cfbilling_default" in event.payload["trigger_error"]
    assert len(sandbox.requests()) == before


def test_unreadable_history_is_handed_back_at_the_deadline(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(polling, "MAX_OUTAGE_SECONDS", 0.0)
    sandbox.fault("getInvoiceHistory", "status", status=503, times=None)
    progress = replace(searching(sandbox), reconcile_deadline_here=time.time() + 3)
    (event,) = fire(of_a_topup(progress))
    assert event.payload["trigger_error"] is None
    assert time.time() >= progress.reconcile_deadline_here
    assert len(sandbox.requests()) > 1


def test_history_that_refuses_is_polled_again(sandbox: Sandbox):
    """The search for a lost charge goes on while its window is open."""
    sandbox.add_invoice(2500)
    for status in (400, 403, 404):
        sandbox.fault("getInvoiceHistory", "status", status=status)
    (event,) = fire(of_a_topup(searching(sandbox)))
    assert event.payload["trigger_error"] is None
    assert len(sandbox.requests()) == 4


def test_refused_status_is_left_to_the_task(sandbox: Sandbox):
    progress = settling(sandbox, pending(sandbox))
    sandbox.fault("checkTopupStatus", "status", status=403, times=None)
    (event,) = fire(of_a_topup(progress))
    assert event.payload["trigger_error"] is None


@pytest.mark.parametrize("known_after", [2.0, None])
def test_unknown_topup_is_polled_again(sandbox: Sandbox, known_after: float | None):
    sandbox.configure(status_lag_seconds=known_after or 600, settle_seconds=0)
    topup = pending(sandbox, settle_seconds=0)
    deadline = time.time() + (60 if known_after else 2.0)
    (event,) = fire(of_a_topup(settling(sandbox, topup, not_found_deadline=deadline)))
    assert event.payload["trigger_error"] is None
    statuses = [request.status for request in sandbox.requests("checkTopupStatus")]
    assert statuses.count(404) >= 2
    assert (200 in statuses) is bool(known_after)


def test_waiters_for_a_topup_share_each_poll(sandbox: Sandbox):
    topup = pending(sandbox, settle_seconds=1)
    accepted = Record("accepted", charge_intent(sandbox), topup={"payment_intent_id": topup})
    before = len(sandbox.requests())
    began = time.monotonic()
    fire(
        *(completed(topup) for _ in range(50)),
        *(of_a_topup(Progress(accepted, "settle", settlement_deadline=time.time() + 60)) for _ in range(50)),
    )
    # The status, and while it is pending the invoice.
    requests = len(sandbox.requests()) - before
    assert requests <= 2 * ((time.monotonic() - began) / (COMMON["poll_interval"] / 2) + 2)


def test_no_trigger_ever_charges(sandbox: Sandbox):
    topup = pending(sandbox, settle_seconds=0.3)
    sandbox.auto_topup("break")
    posts = len(sandbox.requests("createTopup"))
    record = Record("not_charged", None)
    stale = Progress(record, "lookback", lookback_from=time.time())
    fire(broken(), low(999_999), completed(topup), of_a_topup(stale))
    assert len(sandbox.requests("createTopup")) == posts


def test_killed_deferred_topup_says_it_stays_charged(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    asyncio.run(of_a_topup(Progress(Record("started"), "charge")).on_kill())
    printed = capsys.readouterr()
    assert "A charge that was made is not reversed" in printed.out + printed.err + caplog.text
