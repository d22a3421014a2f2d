"""Charges of other runs and of earlier tries are neither taken for a task's own nor overlooked."""

import logging

import pytest

from airflow_provider_cfbilling.api.errors import CfBillingPaymentDeclinedError, CfBillingRateLimitError
from airflow_provider_cfbilling.charging.endings import (
    ManualReviewRequiredError,
    NotChargedError,
    PaymentFailedError,
    StillPendingError,
)
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import AMOUNT_CENTS, Task, lose, not_charged


def refused(sandbox: Sandbox, task: Task) -> None:
    """Run a try whose charge Cloudflare refuses for now."""
    sandbox.fault("createTopup", "status", status=429, headers={"retry-after": "0"})
    with pytest.raises(CfBillingRateLimitError, match="Nothing was charged"):
        task.run()


def declined(task: Task, leaves: str, **account: object) -> None:
    """Run a try whose card is declined."""
    task.sandbox.configure(next_topup_outcome="declined", declined_leaves=leaves, **account)
    with pytest.raises(CfBillingPaymentDeclinedError, match="Nothing was charged"):
        task.run()


# after a charge that was proven not to be made


@pytest.mark.parametrize("others", [1, 2])
def test_charge_of_another_run_after_a_refusal_is_not_adopted(sandbox: Sandbox, any_task: Task, others: int):
    refused(sandbox, any_task)
    theirs = {sandbox.add_invoice(AMOUNT_CENTS, created=any_task.time.now + 1).id for _ in range(others)}
    any_task.passes(60)
    result = any_task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "charged")
    assert result["payment_intent_id"] not in theirs


def test_charge_of_another_run_after_one_that_was_not_sent_is_not_adopted(
    sandbox: Sandbox, task: Task, monkeypatch: pytest.MonkeyPatch
):
    client = task.client_of(sandbox.account_id)
    create_topup = client.create_topup

    def held_up(*arguments: object, **options: object) -> object:
        task.passes(10)
        return create_topup(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(client, "create_topup", held_up)
        with pytest.raises(NotChargedError, match="Nothing was charged"):
            task.run()
    sandbox.add_invoice(AMOUNT_CENTS, created=task.time.now + 1)
    task.passes(60)
    assert task.run()["payment_intent_id"] == task.charged()


def test_lost_charge_before_a_refusal_is_still_searched_for(sandbox: Sandbox, any_task: Task):
    lose(sandbox, "before")
    sandbox.fault("createTopup", "status", status=429, headers={"retry-after": "0"})
    with pytest.raises(CfBillingRateLimitError):
        any_task.run()
    late = sandbox.add_invoice(AMOUNT_CENTS, created=any_task.time.now).id
    assert any_task.run()["payment_intent_id"] == late
    assert any_task.posts() == 2


@pytest.mark.parametrize("others", [1, 2])
def test_charge_of_another_run_long_after_a_declined_card_is_not_adopted(
    sandbox: Sandbox, any_task: Task, others: int
):
    declined(any_task, leaves="nothing")
    any_task.passes(3 * 3600)
    for _ in range(others):
        sandbox.add_invoice(AMOUNT_CENTS, created=any_task.time.now)
    any_task.passes(3600)
    assert any_task.run()["payment_intent_id"] == any_task.charged()


@pytest.mark.parametrize("account", [{"currency": "eur"}, {"credit_cents": 625}], ids=str)
def test_open_invoice_of_a_declined_card_is_reviewed_if_it_may_be_paid(
    sandbox: Sandbox, any_task: Task, account: dict[str, object]
):
    declined(any_task, leaves="open", **account)
    with pytest.raises(ManualReviewRequiredError, match="due with another amount"):
        any_task.run()
    assert any_task.posts() == 1


def test_open_invoice_of_a_declined_card_is_not_called_lost(
    sandbox: Sandbox, any_task: Task, caplog: pytest.LogCaptureFixture
):
    declined(any_task, leaves="open")
    with caplog.at_level(logging.INFO):
        any_task.run(wait_seconds=None)
    assert "is the charge that this task has made before: its invoice is open." in caplog.text


@pytest.mark.parametrize("later", [False, True])
def test_charge_that_appears_late_is_adopted_only_if_it_was_made_by_then(
    sandbox: Sandbox, any_task: Task, later: bool
):
    not_charged(any_task)
    given_up_at = any_task.time.now
    any_task.passes(3600)
    found = sandbox.add_invoice(AMOUNT_CENTS, created=given_up_at + (3000 if later else -60)).id
    assert (any_task.run()["payment_intent_id"] == found) is not later


# the record is gone


@pytest.mark.parametrize("before_cents", [1000, 5000])
def test_earlier_try_may_have_charged_another_amount(sandbox: Sandbox, any_task: Task, before_cents: int):
    """A template renders another amount now than it did then."""
    sandbox.add_invoice(before_cents, created=any_task.time.now + 1)
    any_task.cleared = True
    any_task.passes(3600)
    with pytest.raises(ManualReviewRequiredError, match=r"its record is gone.*due with another amount"):
        any_task.run()
    assert any_task.posts() == 0


def test_dead_invoice_of_another_amount_is_no_earlier_try_s(sandbox: Sandbox, any_task: Task):
    sandbox.add_invoice(5000, created=any_task.time.now + 1, status="void")
    any_task.cleared = True
    assert any_task.run()["payment_intent_id"] == any_task.charged()


def test_charge_that_is_lost_after_the_search_for_an_earlier_one_is_made_again(
    sandbox: Sandbox, any_task: Task
):
    any_task.cleared = True
    lose(sandbox, "before")
    assert any_task.run()["payment_intent_id"] == any_task.charged()
    assert any_task.posts() == 2


# what was found will not be paid, or is not yet


@pytest.mark.parametrize("status", ["void", "uncollectible"])
@pytest.mark.parametrize("wait_seconds", [None, 60.0])
def test_lost_charge_that_will_not_be_paid_is_a_failure(
    sandbox: Sandbox,
    any_task: Task,
    status: str,
    wait_seconds: float | None,
    caplog: pytest.LogCaptureFixture,
):
    sandbox.configure(topup_outcome=status, settle_seconds=0, history_lag_seconds=5)
    lose(sandbox, "after")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            with pytest.raises(
                PaymentFailedError, match=f"its invoice is {status}. The card was not charged"
            ):
                any_task.run(wait_seconds=wait_seconds)
    assert "the card was charged once" not in caplog.text
    assert any_task.posts() == 1


def test_dead_invoice_of_another_run_does_not_hide_a_late_charge(sandbox: Sandbox, any_task: Task):
    sandbox.configure(history_lag_seconds=120)
    lose(sandbox, "after")
    any_task.run(until=lambda progress: progress.phase == "reconcile")
    dead = sandbox.add_invoice(AMOUNT_CENTS, created=any_task.time.now + 1, status="void").id
    with pytest.raises(ManualReviewRequiredError, match="all match this top-up") as caught:
        any_task.run()
    assert {dead, any_task.charged()} <= set(str(caught.value).replace(",", "").split())
    assert any_task.posts() == 1


def test_lost_charge_that_is_not_paid_yet_is_reported_as_that(
    sandbox: Sandbox, any_task: Task, caplog: pytest.LogCaptureFixture
):
    sandbox.configure(topup_outcome="requires_action")
    lose(sandbox, "after")
    with caplog.at_level(logging.INFO):
        result = any_task.run(wait_seconds=None)
    assert (result["outcome"], result["status"]) == ("adopted", "pending")
    assert "whose response was lost: its invoice is open." in caplog.text


# what Cloudflare does not say


def test_search_in_responses_of_one_date_ends_with_a_person(sandbox: Sandbox, any_task: Task):
    """They come from a cache, so that the invoice may be missing in them."""
    lose(sandbox, "before")
    standing = {"date": "Mon, 02 Mar 2026 10:00:00 GMT"}
    empty = '{"invoices": [], "pagination": {"has_more": false}}'
    history = f'{{"success": true, "errors": [], "messages": [], "result": {empty}}}'
    any_task.run(until=lambda progress: progress.phase == "reconcile")
    sandbox.fault("getInvoiceHistory", "garbage", times=None, body=history, headers=standing)
    with pytest.raises(ManualReviewRequiredError, match="stay dated 10:00:00 UTC and may be old"):
        any_task.run()
    assert any_task.posts() == 1


def test_clock_that_is_set_ahead_does_not_end_the_search_with_a_person(sandbox: Sandbox, task: Task):
    """Even if two polls get the same date: it has whole seconds."""
    lose(sandbox, "before")
    task.run(until=lambda progress: progress.should_wait)
    task.time.skew = 700.0
    protocol = task.protocol()
    progress = protocol.begin(cleared=False, began_at=task.began_at)
    for _ in range(40):
        progress = protocol.advance(progress)
        task.passes(0.2)
    assert progress.phase == "reconcile"


def test_wait_whose_status_is_unreadable_says_so(sandbox: Sandbox, task: Task):
    sandbox.fault("checkTopupStatus", "status", status=503, times=None)
    with pytest.raises(StillPendingError, match="is paid could not be read") as caught:
        task.run(wait_seconds=300.0)
    assert task.charged() in str(caught.value)
    assert "3-D Secure" not in str(caught.value)
    sandbox.clear_faults()
    assert task.run()["outcome"] == "resumed"


def test_history_with_fewer_fields_does_not_stop_a_topup(sandbox: Sandbox, any_task: Task):
    sandbox.add_invoice(9000, without="amount_paid,amount_remaining,currency")
    lose(sandbox, "after")
    result = any_task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "adopted")


def test_lost_charge_in_another_currency_is_not_charged_again(sandbox: Sandbox, any_task: Task):
    sandbox.configure(currency="sek", fee_percent=100)
    lose(sandbox, "after")
    with pytest.raises(ManualReviewRequiredError, match="due with another amount") as caught:
        any_task.run()
    assert any_task.charged() in str(caught.value)
    assert any_task.posts() == 1
