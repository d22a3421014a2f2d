"""What a real account and a real network do that the happy path does not know: never charged twice."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingNotFoundError,
    CfBillingPaymentDeclinedError,
    CfBillingPermissionError,
)
from airflow_provider_cfbilling.charging.endings import (
    ChargeUnconfirmedError,
    ManualReviewRequiredError,
    RecordError,
)
from airflow_provider_cfbilling.charging.journal import Record
from airflow_provider_cfbilling.charging.progress import Progress
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import AMOUNT_CENTS, Task


def lose(sandbox: Sandbox, when: str = "after", **fault: Any) -> None:
    """Lose the response to the next charge, ``after`` or ``before`` it is made."""
    sandbox.fault("createTopup", **{"kind": "reset", "when": when} | fault)


def is_accepted(progress: Progress) -> bool:
    return progress.record.state == "accepted"


# an invoice that is due with less


@pytest.mark.parametrize("credit_cents", [2625, 625], ids=["due with nothing", "due with less"])
def test_lost_charge_paid_by_account_credit_is_not_charged_again(
    sandbox: Sandbox, any_task: Task, credit_cents: int
):
    sandbox.configure(credit_cents=credit_cents)
    lose(sandbox)
    for _ in range(2):
        with pytest.raises(ManualReviewRequiredError, match="due with another amount") as caught:
            any_task.run()
        assert any_task.charged() in str(caught.value)
        any_task.passes(3600)
    assert any_task.posts() == 1
    assert any_task.kept.record.state == "intent"


def test_draft_that_becomes_final_is_adopted(sandbox: Sandbox, task: Task):
    lose(sandbox, "before")
    draft = sandbox.add_invoice(AMOUNT_CENTS, amount_due_cents=0, status="draft", created=task.time.now + 1)
    task.run(until=lambda progress: progress.should_wait)
    final = sandbox.add_invoice(AMOUNT_CENTS, created=task.time.now + 2)
    result = task.run(wait_seconds=None)
    assert (result["payment_intent_id"], result["outcome"]) == (final.id, "adopted")
    assert draft.id != final.id


def test_invoice_due_with_far_more_is_no_reason_not_to_charge(sandbox: Sandbox, any_task: Task):
    lose(sandbox, "before")
    sandbox.add_invoice(AMOUNT_CENTS * 2, created=any_task.time.now + 1)
    assert any_task.run()["payment_intent_id"] == any_task.charged()


# a declined card


@pytest.mark.parametrize("leaves", ["nothing", "void"])
def test_declined_card_is_charged_once_it_works_again(sandbox: Sandbox, any_task: Task, leaves: str):
    sandbox.configure(next_topup_outcome="declined", declined_leaves=leaves)
    with pytest.raises(CfBillingPaymentDeclinedError, match="Nothing was charged"):
        any_task.run()
    assert sandbox.charges() == []
    any_task.cleared = True
    result = any_task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "charged")
    assert any_task.polls <= 2


def test_declined_twice_and_then_lost_is_still_found_out(sandbox: Sandbox, any_task: Task):
    """What was denied stays denied: no dead invoice is taken for the charge of a later try."""
    sandbox.configure(declined_leaves="void")
    for _ in range(2):
        sandbox.configure(next_topup_outcome="declined")
        with pytest.raises(CfBillingPaymentDeclinedError):
            any_task.run()
    lose(sandbox)
    result = any_task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "adopted")


def test_dead_invoice_is_ignored_after_a_charge_that_was_never_sent(
    sandbox: Sandbox, task: Task, monkeypatch: pytest.MonkeyPatch
):
    sandbox.configure(next_topup_outcome="declined", declined_leaves="void")
    with pytest.raises(CfBillingPaymentDeclinedError):
        task.run()
    sandbox.fault("createTopup", "status", status=429, headers={"retry-after": "0"})
    with pytest.raises(CfBillingError, match="Nothing was charged"):
        task.run()
    assert task.run()["payment_intent_id"] == task.charged()


def test_open_invoice_of_a_declined_card_is_adopted_not_charged_again(sandbox: Sandbox, task: Task):
    sandbox.configure(next_topup_outcome="declined", declined_leaves="open")
    with pytest.raises(CfBillingPaymentDeclinedError):
        task.run()
    assert task.run(wait_seconds=None)["outcome"] == "adopted"
    assert sandbox.charges() == []


# clocks


@pytest.mark.parametrize("seconds", [3600, -3600], ids=["ahead", "behind"])
@pytest.mark.parametrize("skip", [0, 1, 2], ids=["at the intent", "at the first poll", "at the second poll"])
def test_one_wrong_date_does_not_shorten_the_search(
    sandbox: Sandbox, any_task: Task, seconds: int, skip: int
):
    sandbox.configure(history_lag_seconds=590)
    sandbox.fault("getInvoiceHistory", "clock", seconds=seconds, skip=skip)
    lose(sandbox)
    result = any_task.run(wait_seconds=None)
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "adopted")
    assert any_task.polls <= 40


@pytest.mark.parametrize("seconds", [3600, -3600], ids=["ahead", "behind"])
def test_wrong_date_at_the_intent_does_not_prolong_the_search_forever(
    sandbox: Sandbox, any_task: Task, seconds: int, caplog: pytest.LogCaptureFixture
):
    sandbox.fault("getInvoiceHistory", "clock", seconds=seconds)
    lose(sandbox, "before")
    began = any_task.time.now
    assert any_task.run(wait_seconds=None)["outcome"] == "charged"
    assert any_task.time.now - began < 1300  # at most one more window
    assert "clock and this machine's have moved apart by" in caplog.text


@pytest.mark.parametrize("seconds", [3600.0, -3600.0], ids=["ahead", "behind"])
def test_worker_whose_clock_is_set_meanwhile_does_not_charge_again(
    sandbox: Sandbox, task: Task, seconds: float
):
    sandbox.configure(history_lag_seconds=590)
    lose(sandbox)
    task.run(until=lambda progress: progress.should_wait)
    task.time.skew = seconds
    assert task.run(wait_seconds=None)["payment_intent_id"] == task.charged()
    assert task.posts() == 1


# what a 4xx proves


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("status", [408, 409, 423, 425, 499])
def test_4xx_that_proves_nothing_is_found_out(sandbox: Sandbox, any_task: Task, status: int, when: str):
    lose(sandbox, when, kind="status", status=status)
    assert any_task.run(wait_seconds=None)["payment_intent_id"] == any_task.charged()
    assert any_task.posts() == (1 if when == "after" else 2)


# a top-up that is not known everywhere yet, and pages that cannot be turned


def test_topup_that_is_not_known_yet_is_waited_for(sandbox: Sandbox, any_task: Task):
    sandbox.configure(status_lag_seconds=100, settle_seconds=0)
    any_task.deferrable = False  # the trigger has tests of its own
    result = any_task.run()
    assert (result["status"], result["outcome"]) == ("completed", "charged")


def test_topup_that_is_never_known_is_named_when_the_window_ends(sandbox: Sandbox, task: Task):
    sandbox.configure(status_lag_seconds=9999)
    with pytest.raises(CfBillingNotFoundError) as caught:
        task.run()
    assert f"Cloudflare accepted top-up {task.charged()} of 2500 cents ($25.00)" in str(caught.value)
    assert task.polls >= 19
    assert task.posts() == 1


@pytest.mark.parametrize("charged", [True, False], ids=["charged", "not charged"])
def test_history_that_refuses_paging_is_decided_by_its_first_page(
    sandbox: Sandbox, task: Task, charged: bool
):
    sandbox.configure(per_page=2, page_parameter="refused")
    for number in range(3):
        sandbox.add_invoice(9000, created=task.began_at - 1000 - number)
    lose(sandbox, "after" if charged else "before")
    assert task.run(wait_seconds=None)["payment_intent_id"] == task.charged()


def test_history_without_paging_that_hides_the_charge_needs_a_person(sandbox: Sandbox, task: Task):
    sandbox.configure(per_page=2, page_parameter="refused")
    lose(sandbox)
    task.run(until=lambda progress: progress.phase == "reconcile")
    for number in range(4):
        sandbox.add_invoice(9000, created=task.time.now + 1 + number)
    task.passes(10)
    with pytest.raises(ManualReviewRequiredError, match="does not reach back"):
        task.run()
    assert task.posts() == 1


# every end after the charge says whether money moved

REFUSALS: dict[str, tuple[int, type[CfBillingError]]] = {
    "bad request": (400, CfBillingInvalidRequestError),
    "unauthorized": (401, CfBillingAuthenticationError),
    "forbidden": (403, CfBillingPermissionError),
}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_history_that_refuses_for_good_after_a_lost_charge(sandbox: Sandbox, any_task: Task, status: int):
    any_task.deferrable = False
    lose(sandbox)
    sandbox.fault("getInvoiceHistory", "status", status=status, skip=1, times=None)
    with pytest.raises(ChargeUnconfirmedError) as caught:
        any_task.run()
    assert "A charge of 2500 cents ($25.00) may have been sent" in str(caught.value)
    assert not caught.value.retryable
    assert any_task.polls >= 19
    sandbox.clear_faults()
    assert any_task.run(wait_seconds=None)["payment_intent_id"] == any_task.charged()


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_status_that_is_refused_after_the_charge(
    sandbox: Sandbox, task: Task, refusal: tuple[int, type[CfBillingError]]
):
    status, kind = refusal
    sandbox.fault("checkTopupStatus", "status", status=status, times=None)
    with pytest.raises(kind) as caught:
        task.run()
    assert f"Cloudflare accepted top-up {task.charged()} of 2500 cents ($25.00)" in str(caught.value)
    assert "it is not charged again" in str(caught.value)
    sandbox.clear_faults()
    assert task.run()["outcome"] == "resumed"


def test_settlement_that_is_refused_goes_on_by_the_status(sandbox: Sandbox, task: Task):
    """The history only reports failed payments: it is not needed for one that is paid."""
    sandbox.configure(settle_seconds=100)
    sandbox.fault("getInvoiceHistory", "status", status=403, skip=1, times=None)
    assert task.run()["status"] == "completed"


def test_order_that_became_invalid_does_not_hide_a_charge(sandbox: Sandbox, task: Task):
    task.run(until=is_accepted)
    assert task.run(amount_cents=1)["payment_intent_id"] == task.charged()


def test_order_that_became_invalid_is_not_needed_to_find_a_lost_charge(sandbox: Sandbox, task: Task):
    lose(sandbox)
    task.run(until=lambda progress: progress.phase == "reconcile")
    assert task.run(amount_cents=1, wait_seconds=None)["payment_intent_id"] == task.charged()


def test_order_that_is_invalid_is_refused_before_any_request(sandbox: Sandbox, task: Task):
    with pytest.raises(CfBillingInvalidRequestError, match=r"at least 1000 .*Nothing was charged"):
        task.run(amount_cents=1)
    assert sandbox.requests() == []


def test_record_that_cannot_be_read_says_that_nothing_more_was_sent(task: Task):
    def begin(*_: object) -> Record:
        raise OSError("the journal is away")

    task.kept.begin = begin  # type: ignore[method-assign]
    with pytest.raises(RecordError, match="Nothing more was sent") as caught:
        task.run()
    assert caught.value.retryable
    assert task.posts() == 0


class Timeout(BaseException):
    """How Airflow ends a task: by an exception that nothing catches."""


def raised(*_: object, **__: object) -> Any:
    raise Timeout


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (lambda client: setattr(client, "create_topup", raised), "may have been sent"),
        (lambda client: setattr(client, "get_topup_status", raised), "Cloudflare accepted top-up in_"),
    ],
    ids=["in the charge", "in the wait"],
)
def test_try_that_is_ended_from_outside_logs_whether_money_moved(
    sandbox: Sandbox,
    task: Task,
    arrange: Callable[[Any], None],
    said: str,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.WARNING)
    client = task.client_of(sandbox.account_id)
    arrange(client)
    with pytest.raises(Timeout):
        task.run()
    assert said in caplog.text
    vars(client).pop("create_topup", None)
    vars(client).pop("get_topup_status", None)
    assert task.run(wait_seconds=None)["payment_intent_id"] == task.charged()


def test_try_that_is_ended_while_it_sleeps_logs_whether_money_moved(
    sandbox: Sandbox, task: Task, caplog: pytest.LogCaptureFixture
):
    protocol = task.protocol()
    progress = protocol.begin(cleared=False, began_at=task.began_at)
    while progress.phase != "settle":
        progress = protocol.advance(progress)
    task.time.sleep = raised  # type: ignore[attr-defined]
    with pytest.raises(Timeout):
        protocol.sleep(1)
    assert f"Cloudflare accepted top-up {task.charged()}" in caplog.text
