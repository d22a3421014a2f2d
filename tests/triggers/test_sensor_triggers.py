"""What triggers see, say and survive, in an event loop of their own in front of the sandbox."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_cfbilling import polling
from airflow_provider_cfbilling.charging import settlement
from airflow_provider_cfbilling.charging.journal import ChargeIntent, Record
from airflow_provider_cfbilling.charging.progress import Progress
from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.triggers.cfbilling import (
    CfBillingCreditBalanceTrigger,
    CfBillingTopupCompletedTrigger,
    CfBillingTopupConfigErrorTrigger,
    CfBillingTopupTrigger,
)
from tests.raw_servers import fresh_token

CONN_ID = "cfbilling_default"
COMMON: dict[str, Any] = {"cfbilling_conn_id": CONN_ID, "account_id": None, "poll_interval": 0.1}


@pytest.fixture(autouse=True)
def own_token(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause that another test was asked for is kept here."""
    token = fresh_token()
    sandbox.configure(token=token)
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token=token))


def broken(**arguments: Any) -> CfBillingTopupConfigErrorTrigger:
    return CfBillingTopupConfigErrorTrigger(**{**COMMON, "wait_for": "error", "since": None} | arguments)


def low(below_cents: Any = 2000, **arguments: Any) -> CfBillingCreditBalanceTrigger:
    lines = {"below_cents": below_cents, "at_least_cents": None}
    return CfBillingCreditBalanceTrigger(**{**COMMON, **lines} | arguments)


def completed(payment_intent_id: str, **arguments: Any) -> CfBillingTopupCompletedTrigger:
    return CfBillingTopupCompletedTrigger(**{**COMMON, "payment_intent_id": payment_intent_id} | arguments)


def of_a_topup(progress: Progress) -> CfBillingTopupTrigger:
    return CfBillingTopupTrigger(**COMMON, progress=progress.to_json())


def revived(trigger: BaseTrigger) -> Any:
    """Return the trigger as another triggerer has it, after a restart."""
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))


async def first_event(trigger: BaseTrigger) -> TriggerEvent:
    async with aclosing(aiter(trigger.run())) as events:  # type: ignore[type-var]
        return await anext(events)


def fire(
    *triggers: BaseTrigger, meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> list[Any]:
    """Run triggers side by side, as they are after a restart, and return what each fires with."""

    async def run() -> list[Any]:
        waiting = [asyncio.create_task(first_event(revived(trigger))) for trigger in triggers]
        if meanwhile:
            await meanwhile()
        return list(await asyncio.wait_for(asyncio.gather(*waiting), timeout=30))

    return asyncio.run(run())


async def looks(sandbox: Sandbox, count: int) -> None:
    """Wait until Cloudflare was asked so often."""
    while len(await asyncio.to_thread(sandbox.requests)) < count:
        await asyncio.sleep(0.02)


def pending(sandbox: Sandbox, settle_seconds: float = 3600) -> str:
    """Top up, and return the id of what has not settled."""
    sandbox.configure(settle_seconds=settle_seconds)
    return CfBillingHook(CONN_ID).create_topup(2500).payment_intent_id


def test_broken_auto_topup_is_told_with_its_configuration(sandbox: Sandbox):
    sandbox.auto_topup("break")
    (event,) = fire(broken())
    assert event.payload["status"] == "success"
    assert event.payload["result"]["error"] == "card_declined"


def test_cleared_error_is_told(sandbox: Sandbox):
    sandbox.auto_topup("break")

    async def heal() -> None:
        await looks(sandbox, 2)
        sandbox.auto_topup("recover")

    (event,) = fire(broken(wait_for="cleared"), meanwhile=heal)
    assert event.payload["result"]["state"] == "active"


@pytest.mark.parametrize(
    ("lines", "fires"),
    [
        ({"below_cents": 640.2}, True),
        ({"below_cents": 640.19}, False),
        ({"at_least_cents": 640.19}, True),
        ({"at_least_cents": 640.2}, False),
        ({"below_cents": "2000"}, True),
    ],
    ids=str,
)
def test_balance_is_compared_to_the_fraction_of_a_cent(sandbox: Sandbox, lines: dict[str, Any], fires: bool):
    sandbox.configure(balance_cents=640.19)

    async def cross() -> None:
        await looks(sandbox, 2)
        sandbox.configure(balance_cents=100 if "below_cents" in lines else 9000)

    trigger = low(**{"below_cents": None} | lines)
    (event,) = fire(trigger, meanwhile=None if fires else cross)
    assert (event.payload["result"]["balance_cents"] == 640.19) == fires


def test_settled_topup_is_told(sandbox: Sandbox):
    topup = pending(sandbox, settle_seconds=0.5)
    (event,) = fire(completed(topup))
    assert event.payload["result"] == {"payment_intent_id": topup, "status": "completed"}


@pytest.mark.parametrize("status", ["void", "uncollectible"])
def test_failed_payment_fails_the_task_for_good(sandbox: Sandbox, status: str):
    sandbox.configure(topup_outcome=status)
    topup = pending(sandbox, settle_seconds=0)
    (event,) = fire(completed(topup))
    assert (event.payload["status"], event.payload["retry"]) == ("failed", False)
    assert status in event.payload["message"]


def test_trigger_can_end_the_task_itself(sandbox: Sandbox):
    sandbox.auto_topup("break")
    (event,) = fire(broken(ends_task=True))
    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms
    assert event.xcoms["return_value"]["state"] == "failing"


def test_all_who_watch_an_account_share_each_look(sandbox: Sandbox):
    """Whatever they wait for; and who comes late gets the last response."""
    waiting = [*(broken() for _ in range(100)), *(low(100) for _ in range(100))]

    async def watched() -> list[TriggerEvent]:
        tasks = [asyncio.create_task(first_event(trigger)) for trigger in waiting]
        await looks(sandbox, 4)
        sandbox.auto_topup("break")
        sandbox.configure(balance_cents=50)
        return await asyncio.gather(*tasks)

    began = time.monotonic()
    assert len(asyncio.run(watched())) == 200
    # One look each interval, and one in case it fell between the two changes.
    assert 4 <= len(sandbox.requests()) <= (time.monotonic() - began) / COMMON["poll_interval"] + 2
    assert {request.operation for request in sandbox.requests()} == {"getCreditBalance"}


def test_all_who_wait_for_a_topup_share_each_look(sandbox: Sandbox):
    topup = pending(sandbox, settle_seconds=1)
    accepted = Record("accepted", charge_intent(sandbox), topup={"payment_intent_id": topup})
    before = len(sandbox.requests())
    began = time.monotonic()
    fire(
        *(completed(topup) for _ in range(50)),
        *(of_a_topup(Progress(accepted, "settle", settlement_deadline=time.time() + 60)) for _ in range(50)),
    )
    # The status, and while it is pending the invoice.
    asked = len(sandbox.requests()) - before
    assert asked <= 2 * ((time.monotonic() - began) / (COMMON["poll_interval"] / 2) + 2)


def test_passing_failures_are_lived_with(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    sandbox.auto_topup("break")
    for fault in ({"kind": "reset"}, {"kind": "status", "status": 503, "html": True}, {"kind": "garbage"}):
        sandbox.fault("getCreditBalance", **fault)
    monkeypatch.setattr(polling, "_MAX_BACKOFF_SECONDS", 0.05)
    (event,) = fire(broken())
    assert event.payload["status"] == "success"
    assert len(sandbox.requests()) == 4


def test_outage_that_lasts_is_reported_and_the_task_may_retry(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(polling, "_MAX_BACKOFF_SECONDS", 0.05)
    monkeypatch.setattr(polling, "MAX_OUTAGE_SECONDS", 1.0)
    sandbox.fault("getCreditBalance", "status", status=503, times=None)
    (event,) = fire(broken())
    assert (event.payload["status"], event.payload["retry"]) == ("failed", True)
    assert "All polls of the last 1 s have failed" in event.payload["message"]
    assert len(sandbox.requests()) > 3


def test_rate_limit_fails_nobody(sandbox: Sandbox):
    sandbox.auto_topup("break")
    sandbox.fault("getCreditBalance", "status", status=429, headers={"retry-after": "1"}, times=3)
    events = fire(*(broken() for _ in range(20)))
    assert {event.payload["status"] for event in events} == {"success"}
    assert len(sandbox.requests()) == 4


def test_refused_credentials_fail_for_good_after_one_look(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    uri = sandbox.connection_uri(token="not-the-token")
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", uri)
    events = fire(broken(), low(), broken(wait_for="cleared"))
    assert {(event.payload["status"], event.payload["retry"]) for event in events} == {("failed", False)}
    assert len(sandbox.requests()) == 1


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        (broken(since="yesterday"), "since must be a datetime with a time zone"),
        (low("{{ ds }}"), r"below_cents must be a number of cents above 0 \(1000 is \$10.00\)"),
        (low(None), "Give either below_cents or at_least_cents"),
        (completed("../limits"), "payment_intent_id must be an id made of letters"),
    ],
)
def test_what_cannot_be_meant_fails_before_any_request(sandbox: Sandbox, trigger: Any, message: str):
    (event,) = fire(trigger)
    assert (event.payload["status"], event.payload["retry"]) == ("failed", False)
    with pytest.raises(ValueError, match=message):
        raise ValueError(event.payload["message"])
    assert sandbox.requests() == []


# the operator's wait


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
        await looks(sandbox, 2)
        sandbox.add_invoice(2500)

    (event,) = fire(of_a_topup(progress), meanwhile=appear)
    assert event.payload["status"] == "resume"


@pytest.mark.parametrize("phase", ["settle", "reconcile"])
def test_trigger_that_cannot_poll_hands_back_to_the_task(
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


def test_trigger_hands_back_at_the_deadline_what_cannot_be_read_until_then(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
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


@pytest.mark.parametrize("known_after", [0.4, None])
def test_topup_that_is_not_known_yet_is_polled_again(sandbox: Sandbox, known_after: float | None):
    sandbox.configure(status_lag_seconds=known_after or 600, settle_seconds=0)
    topup = pending(sandbox, settle_seconds=0)
    deadline = time.time() + (60 if known_after else 0.5)
    (event,) = fire(of_a_topup(settling(sandbox, topup, not_found_deadline=deadline)))
    assert event.payload["trigger_error"] is None
    statuses = [request.status for request in sandbox.requests("checkTopupStatus")]
    assert statuses.count(404) >= 2
    assert (200 in statuses) is bool(known_after)


def test_sensor_polls_again_for_a_topup_that_is_not_known_yet(sandbox: Sandbox):
    sandbox.configure(status_lag_seconds=0.4)
    (event,) = fire(completed(pending(sandbox, settle_seconds=0)))
    assert event.payload["status"] == "success"
    assert 404 in [request.status for request in sandbox.requests("checkTopupStatus")]


def test_sensor_gives_up_a_topup_that_is_never_known(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settlement, "UNKNOWN_OUTCOME_WINDOW", 0.3)
    (event,) = fire(completed("in_gone"))
    assert (event.payload["status"], event.payload["retry"]) == ("failed", False)
    assert "does not know top-up in_gone" in event.payload["message"]
    assert len(sandbox.requests()) >= 2


def test_sensors_trigger_that_cannot_poll_hands_back_to_the_task(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AIRFLOW_CONN_CFBILLING_DEFAULT", raising=False)
    for trigger in (broken(), low(), completed("in_1")):
        (event,) = fire(trigger)
        assert event.payload["status"] == "trigger_error"
        assert "cfbilling_default" in event.payload["message"]


def test_no_trigger_ever_charges(sandbox: Sandbox):
    topup = pending(sandbox, settle_seconds=0.3)
    sandbox.auto_topup("break")
    posts = len(sandbox.requests("createTopup"))
    record = Record("not_charged", None)
    stale = Progress(record, "lookback", lookback_from=time.time())
    fire(broken(), low(999_999), completed(topup), of_a_topup(stale))
    assert len(sandbox.requests("createTopup")) == posts


def test_user_who_ends_a_deferred_topup_is_told_that_it_stays_charged(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    asyncio.run(of_a_topup(Progress(Record("started"), "charge")).on_kill())
    printed = capsys.readouterr()
    assert "A charge that was made is not reversed" in printed.out + printed.err + caplog.text


def test_triggers_yield_to_others_between_looks(sandbox: Sandbox):
    """A trigger that never sleeps would stop all others."""

    async def run() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.create_task(tick())
        watching = asyncio.create_task(first_event(broken(poll_interval=0)))
        await looks(sandbox, 5)
        watching.cancel()
        ticking.cancel()
        return ticks

    assert asyncio.run(run()) > 100
