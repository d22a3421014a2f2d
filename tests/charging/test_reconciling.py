"""What becomes of a charge whose response was lost."""

from typing import Any

import pytest

from airflow_provider_cfbilling.api.errors import (
    CfBillingInvalidRequestError,
)
from airflow_provider_cfbilling.charging.endings import (
    ChargeUnconfirmedError,
    ManualReviewRequiredError,
)
from airflow_provider_cfbilling.charging.protocol import SEND_WITHIN_SECONDS
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import (
    AMOUNT_CENTS,
    LOST,
    Task,
    history_reads,
    killed_after_the_charge,
    lose,
    not_charged,
)

# reconciling


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: fault["kind"])
def test_lost_response_is_adopted_not_charged_again(sandbox: Sandbox, any_task: Task, fault: dict[str, Any]):
    sandbox.configure(history_lag_seconds=100)
    lose(sandbox, "after", **fault)
    result = any_task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "adopted")
    assert (result["status"], result["amount_cents"]) == ("completed", AMOUNT_CENTS)
    assert any_task.kept.states == ["started", "intent", "accepted", "completed"]
    assert any_task.posts() == 1


@pytest.mark.parametrize("fault", LOST[:4], ids=lambda fault: fault["kind"])
def test_charge_that_was_not_made_is_made_once_that_is_proven(
    sandbox: Sandbox, any_task: Task, fault: dict[str, Any]
):
    lose(sandbox, **fault)
    result = any_task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "charged")
    states = ["started", "intent", "not_charged", "intent", "accepted", "completed"]
    assert any_task.kept.states == states
    assert any_task.posts() == 2


def test_try_charges_again_once_and_the_next_one_goes_on(any_task: Task):
    not_charged(any_task)
    assert any_task.posts() == 2
    assert any_task.run()["payment_intent_id"] == any_task.charged()
    assert any_task.posts() == 3


@pytest.mark.parametrize(
    ("due_cents", "is_ours"),
    [(2500, True), (2975, True), (3175, True), (3375, True), (3376, False), (5000, False)],
)
def test_invoice_is_ours_from_the_requested_amount_up_to_the_highest_tax(
    sandbox: Sandbox, any_task: Task, due_cents: int, is_ours: bool
):
    killed_after_the_charge(any_task)
    seen = sandbox.add_invoice(2500, amount_due_cents=due_cents).id
    result = any_task.run()
    assert (result["payment_intent_id"] == seen) is is_ours
    assert result["amount_cents"] == AMOUNT_CENTS
    assert len(sandbox.charges()) == (0 if is_ours else 1)


@pytest.mark.parametrize("tax_percent", [7.7, 19, 27])
def test_charge_with_tax_is_adopted(sandbox: Sandbox, task: Task, tax_percent: float):
    sandbox.configure(tax_percent=tax_percent)
    lose(sandbox, "after")
    assert task.run()["payment_intent_id"] == task.charged()


def test_invoice_that_was_there_before_is_not_adopted(sandbox: Sandbox, any_task: Task):
    for _ in range(3):
        sandbox.add_invoice(AMOUNT_CENTS)
    lose(sandbox)
    assert any_task.run()["payment_intent_id"] == any_task.charged()


def test_automatic_topup_is_not_adopted(sandbox: Sandbox, any_task: Task):
    killed_after_the_charge(any_task)
    automatic = sandbox.auto_topup("perform", amount_cents=AMOUNT_CENTS)
    assert automatic is not None
    assert any_task.run()["payment_intent_id"] != automatic.id


def test_two_invoices_that_can_be_ours_are_named_and_nothing_is_charged(sandbox: Sandbox, any_task: Task):
    killed_after_the_charge(any_task, charged=True)
    other = sandbox.add_invoice(AMOUNT_CENTS).id
    for _ in range(2):
        with pytest.raises(ManualReviewRequiredError) as caught:
            any_task.run()
        assert any_task.charged() in str(caught.value)
        assert other in str(caught.value)
        assert "dashboard" in str(caught.value)
        any_task.passes(3600)
    assert any_task.posts() == 1
    assert any_task.kept.record.state == "intent"


@pytest.mark.parametrize(
    ("account", "without"),
    [({"per_page": 2, "page_parameter": "ignored"}, ""), ({}, "id"), ({}, "created")],
    ids=["page is ignored", "no id", "no date"],
)
def test_history_that_may_hide_the_charge_proves_nothing(
    sandbox: Sandbox, any_task: Task, account: dict[str, Any], without: str
):
    killed_after_the_charge(any_task)
    sandbox.configure(**account)
    for _ in range(3):
        sandbox.add_invoice(9000, without=without)
    with pytest.raises(ManualReviewRequiredError, match="whether the card was charged cannot be determined"):
        any_task.run()
    assert any_task.polls >= 18  # it may still appear
    assert any_task.posts() == 1


def test_charge_is_found_on_a_later_page(sandbox: Sandbox, any_task: Task):
    sandbox.configure(per_page=2, page_parameter="honored")
    killed_after_the_charge(any_task, charged=True)
    for _ in range(7):
        sandbox.add_invoice(9000)
    assert any_task.run()["payment_intent_id"] == any_task.charged()
    assert history_reads(any_task) >= 5


def test_all_pages_since_the_intent_are_proof_that_nothing_was_charged(sandbox: Sandbox, task: Task):
    sandbox.configure(per_page=2, page_parameter="honored")
    for _ in range(5):
        sandbox.add_invoice(AMOUNT_CENTS, created=task.began_at - 60)
    killed_after_the_charge(task)
    for _ in range(7):
        sandbox.add_invoice(9000)
    assert task.run()["payment_intent_id"] == task.charged()


def test_failed_polls_are_retried_while_the_window_is_open(sandbox: Sandbox, task: Task):
    killed_after_the_charge(task, charged=True)
    sandbox.fault("getInvoiceHistory", "status", status=503, times=7)
    sandbox.fault("getInvoiceHistory", "garbage", times=7)
    assert task.run()["payment_intent_id"] == task.charged()
    assert task.polls >= 14


def test_failed_polls_end_the_try_and_the_next_finds_the_charge(sandbox: Sandbox, task: Task):
    killed_after_the_charge(task, charged=True)
    sandbox.fault("getInvoiceHistory", "status", status=503, times=None)
    with pytest.raises(ChargeUnconfirmedError, match="may have been sent") as caught:
        task.run()
    assert caught.value.retryable
    assert 18 <= task.polls <= 22
    sandbox.clear_faults()
    assert task.run()["payment_intent_id"] == task.charged()
    assert task.posts() == 1


@pytest.mark.parametrize(("more", "allowed"), [(0.0, False), (0.1, True)])
def test_window_must_be_longer_than_a_charge_may_be_under_way(
    sandbox: Sandbox, task: Task, more: float, allowed: bool
):
    window = SEND_WITHIN_SECONDS + task.client_of(sandbox.account_id).read_timeout + more
    if allowed:
        assert task.run(window_seconds=window)["outcome"] == "charged"
        return
    with pytest.raises(CfBillingInvalidRequestError, match="make the window longer, or read_timeout shorter"):
        task.run(window_seconds=window)
    assert sandbox.requests() == []
