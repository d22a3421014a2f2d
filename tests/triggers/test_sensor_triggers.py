"""What the sensors' triggers see, say and survive."""

import asyncio
import re
import time
from collections import Counter
from typing import Any

import pytest
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_cfbilling import polling
from airflow_provider_cfbilling.charging import settlement
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.triggers.firing import (
    COMMON,
    broken,
    completed,
    fire,
    first_event,
    low,
    pending,
    short,
    wait_for_polls,
)

pytestmark = pytest.mark.usefixtures("own_token", "short_backoff")


def test_broken_auto_topup_is_reported_with_its_configuration(sandbox: Sandbox):
    sandbox.auto_topup("break")
    (event,) = fire(broken())
    assert event.payload["status"] == "success"
    assert event.payload["result"]["error"] == "card_declined"


def test_cleared_error_is_reported(sandbox: Sandbox):
    sandbox.auto_topup("break")

    async def heal() -> None:
        await wait_for_polls(sandbox, 2)
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
def test_balance_is_compared_in_fractional_cents(sandbox: Sandbox, lines: dict[str, Any], fires: bool):
    sandbox.configure(balance_cents=640.19)

    async def cross() -> None:
        await wait_for_polls(sandbox, 2)
        sandbox.configure(balance_cents=100 if "below_cents" in lines else 9000)

    trigger = low(**{"below_cents": None} | lines)
    (event,) = fire(trigger, meanwhile=None if fires else cross)
    assert (event.payload["result"]["balance_cents"] == 640.19) == fires


def test_settled_topup_is_reported(sandbox: Sandbox):
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


def test_watchers_of_an_account_share_each_poll(sandbox: Sandbox):
    """Whatever they wait for; and who comes late gets the last response."""
    sandbox.configure(spend_per_day_cents=240)
    waiting = [*(broken() for _ in range(100)), *(low(100) for _ in range(100))]
    waiting += [short(0.5) for _ in range(100)]

    async def watched() -> list[TriggerEvent]:
        tasks = [asyncio.create_task(first_event(trigger)) for trigger in waiting]
        await wait_for_polls(sandbox, 8)
        sandbox.auto_topup("break")
        sandbox.configure(balance_cents=50)
        return await asyncio.gather(*tasks)

    began = time.monotonic()
    assert len(asyncio.run(watched())) == 300
    # One poll each interval, and one in case it fell between the two changes.
    most = (time.monotonic() - began) / COMMON["poll_interval"] + 2
    made = Counter(request.operation for request in sandbox.requests())
    assert made.keys() == {"getCreditBalance", "getUsageHistory"}
    assert all(2 <= count <= most for count in made.values()), (made, most)


def test_transient_failures_are_retried(sandbox: Sandbox):
    sandbox.auto_topup("break")
    for fault in ({"kind": "reset"}, {"kind": "status", "status": 503, "html": True}, {"kind": "garbage"}):
        sandbox.fault("getCreditBalance", **fault)
    (event,) = fire(broken())
    assert event.payload["status"] == "success"
    assert len(sandbox.requests()) == 4


def test_long_outage_fails_and_may_be_retried(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(polling, "MAX_OUTAGE_SECONDS", 1.0)
    sandbox.fault("getCreditBalance", "status", status=503, times=None)
    (event,) = fire(broken())
    assert (event.payload["status"], event.payload["retry"]) == ("failed", True)
    assert re.search(r"All polls of the last [1-9]\d* s have failed", event.payload["message"])
    assert len(sandbox.requests()) > 3


def test_rate_limit_fails_no_trigger(sandbox: Sandbox):
    sandbox.auto_topup("break")
    sandbox.fault("getCreditBalance", "status", status=429, headers={"retry-after": "1"}, times=3)
    events = fire(*(broken() for _ in range(20)))
    assert {event.payload["status"] for event in events} == {"success"}
    assert len(sandbox.requests()) == 4


def test_refused_credentials_fail_for_good_after_one_poll(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
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
def test_invalid_arguments_fail_before_any_request(sandbox: Sandbox, trigger: Any, message: str):
    (event,) = fire(trigger)
    assert (event.payload["status"], event.payload["retry"]) == ("failed", False)
    with pytest.raises(ValueError, match=message):
        raise ValueError(event.payload["message"])
    assert sandbox.requests() == []


def test_sensor_polls_again_for_an_unknown_topup(sandbox: Sandbox):
    sandbox.configure(status_lag_seconds=2)
    (event,) = fire(completed(pending(sandbox, settle_seconds=0)))
    assert event.payload["status"] == "success"
    assert 404 in [request.status for request in sandbox.requests("checkTopupStatus")]


def test_sensor_gives_up_on_an_unknown_topup(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settlement, "UNKNOWN_OUTCOME_WINDOW", 0.3)
    (event,) = fire(completed("in_gone"))
    assert (event.payload["status"], event.payload["retry"]) == ("failed", False)
    assert "does not know top-up in_gone" in event.payload["message"]
    assert len(sandbox.requests()) >= 2


def test_sensor_triggers_hand_back_when_they_cannot_poll(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AIRFLOW_CONN_CFBILLING_DEFAULT", raising=False)
    for trigger in (broken(), low(), completed("in_1")):
        (event,) = fire(trigger)
        assert event.payload["status"] == "trigger_error"
        assert "cfbilling_default" in event.payload["message"]


def test_triggers_yield_to_others_between_polls(sandbox: Sandbox):
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
        await wait_for_polls(sandbox, 5)
        watching.cancel()
        ticking.cancel()
        return ticks

    assert asyncio.run(run()) > 100
