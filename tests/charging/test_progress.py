"""How long to wait for the next step, and whether it would do more than wait."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingUnavailableError
from airflow_provider_cfbilling.charging.endings import PaymentFailedError
from airflow_provider_cfbilling.charging.journal import ChargeIntent, Record
from airflow_provider_cfbilling.charging.progress import (
    Progress,
    intent_of,
    topup_of,
)
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import Task, has_news, task_in


def searching(sandbox: Sandbox, window_ends_in: float = 600.0, here: float | None = None) -> Progress:
    """The progress of a try that searches for a lost charge of 2000 cents."""
    now = time.time()
    intent = ChargeIntent(sandbox.account_id, 2000, now, now)
    return Progress(
        Record("intent", intent, intent, charge_requests=1),
        "reconcile",
        reconcile_deadline=now + window_ends_in,
        reconcile_deadline_here=now + window_ends_in if here is None else here,
    )


def waiting(sandbox: Sandbox, payment_intent_id: str, give_up_in: float = 600.0) -> Progress:
    """The progress of a try that waits for a top-up."""
    record = Record(
        "accepted", intent_of(searching(sandbox).record), topup={"payment_intent_id": payment_intent_id}
    )
    return Progress(record, "settle", settlement_deadline=time.time() + give_up_in)


@pytest.mark.parametrize(
    ("ends", "poll_interval", "seconds"),
    [
        ({}, 30, 30),
        ({"reconcile_deadline": 600}, 30, 30),
        ({"reconcile_deadline": 10}, 30, 10),
        ({"settlement_deadline": 10}, 30, 10),
        ({"settlement_deadline": 20, "reconcile_deadline": 10}, 30, 10),
        ({"reconcile_deadline": -60}, 30, 30),
        ({"reconcile_deadline": -60, "reconcile_deadline_here": 10}, 30, 10),
        ({"settlement_deadline": 0.2}, 30, 1),
        ({"settlement_deadline": -60}, 0.1, 0.1),
        ({"settlement_deadline": 0.05}, 0.1, 0.1),
        ({"settlement_deadline": 600}, 0.1, 0.1),
    ],
    ids=str,
)
def test_pause_ends_with_the_interval_or_a_deadline_but_is_never_none(
    ends: dict[str, float], poll_interval: float, seconds: float
):
    now = time.time()
    progress = Progress(Record("started"), "charge", **{name: now + end for name, end in ends.items()})
    assert progress.seconds_until_next_poll(poll_interval) == pytest.approx(
        seconds, abs=0.5 if seconds >= 10 else 0.01
    )


def test_appearing_invoice_is_news(sandbox: Sandbox, client: CfBillingClient):
    progress = searching(sandbox)
    assert not has_news(client, progress)
    sandbox.add_invoice(1000)
    assert not has_news(client, progress)
    sandbox.add_invoice(2000)
    assert has_news(client, progress)


@pytest.mark.parametrize(
    ("cloudflare", "here", "over"), [(605, 600, False), (0, -1, False), (605, -1, True)], ids=str
)
def test_search_ends_only_when_both_clocks_say_so(
    sandbox: Sandbox, client: CfBillingClient, cloudflare: float, here: float, over: bool
):
    progress = searching(sandbox, here=time.time() + here)
    sandbox.configure_server(clock_offset_seconds=cloudflare)
    assert has_news(client, progress) is over


@pytest.mark.parametrize("outcome", ["paid", "requires_action"])
def test_settlement_is_news(sandbox: Sandbox, client: CfBillingClient, outcome: Any):
    sandbox.configure(topup_outcome=outcome, settle_seconds=0)
    progress = waiting(sandbox, client.create_topup(2000).payment_intent_id)
    assert has_news(client, progress) is (outcome == "paid")


def test_end_of_the_wait_is_news(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(settle_seconds=600)
    topup = client.create_topup(2000).payment_intent_id
    assert not has_news(client, waiting(sandbox, topup))
    assert has_news(client, waiting(sandbox, topup, give_up_in=-1))


def test_failed_payment_is_reported(sandbox: Sandbox, client: CfBillingClient):
    failed = sandbox.add_invoice(2000, status="void").id
    with pytest.raises(PaymentFailedError):
        has_news(client, waiting(sandbox, failed))


def test_response_is_news_to_a_try_that_knows_nothing(sandbox: Sandbox, client: CfBillingClient):
    progress = Progress(Record("started"), "lookback", lookback_from=time.time())
    sandbox.fault("getInvoiceHistory", "status", status=503)
    with pytest.raises(CfBillingUnavailableError):
        has_news(client, progress)
    assert has_news(client, progress)


def test_polling_charges_nothing(sandbox: Sandbox, client: CfBillingClient):
    has_news(client, searching(sandbox))
    has_news(client, searching(sandbox, window_ends_in=-600))
    assert sandbox.requests("createTopup") == []


def test_account_is_the_one_that_was_charged(sandbox: Sandbox):
    assert searching(sandbox).account_id == sandbox.account_id
    assert Progress(Record("started"), "charge").account_id is None


@pytest.mark.parametrize(("what", "named"), [(intent_of, "has no intent"), (topup_of, "has no id")])
def test_record_that_has_not_come_so_far_is_refused(what: Any, named: str):
    with pytest.raises(ValueError, match=f"a top-up that is started {named}"):
        what(Record("started"))


@pytest.fixture
def task(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    with task_in(sandbox, monkeypatch) as task:
        yield task


def test_adopted_charge_is_polled_at_the_usual_interval(sandbox: Sandbox, task: Task):
    """The end of the search must not hurry the wait: two requests a second would use up the rate limit."""
    sandbox.configure(settle_seconds=3000)
    sandbox.fault("createTopup", "reset", when="after")
    assert task.run()["outcome"] == "adopted"
    assert 98 <= task.polls + 2 <= 110
