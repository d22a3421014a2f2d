"""Topping up to a balance: what is missing is recorded before the charge, and stays the amount."""

import pytest

from airflow_provider_cfbilling.api.errors import CfBillingError, CfBillingInvalidRequestError
from airflow_provider_cfbilling.charging.endings import ManualReviewRequiredError, TopupNotNeeded
from airflow_provider_cfbilling.charging.journal import Record
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import ANOTHER_ACCOUNT, KeptJournal, Task, lose

TARGET = {"amount_cents": None, "target_balance_cents": 10_000}


def amounts(sandbox: Sandbox) -> list[int]:
    return [charge.amount_cents for charge in sandbox.charges()]


@pytest.mark.parametrize(
    ("balance_cents", "amount_cents"),
    [
        (640.19, 9400),  # whole dollars
        (7500, 2500),
        (7500.01, 2500),
        (7499.99, 2600),
        (9999.99, 2000),  # the account's minimum
        (-250.5, 10_300),
        (-60_000, 50_000),  # the account's maximum
    ],
)
def test_what_is_missing_is_charged(
    sandbox: Sandbox, task: Task, balance_cents: float, amount_cents: int
) -> None:
    sandbox.configure(balance_cents=balance_cents, min_cents=2000, max_cents=50_000)
    assert task.run(**TARGET)["amount_cents"] == amount_cents
    assert amounts(sandbox) == [amount_cents]
    assert task.kept.record.intent is not None
    assert task.kept.record.intent.amount_cents == amount_cents


@pytest.mark.parametrize("balance_cents", [10_000, 10_000.01, 99_999])
def test_nothing_is_missing(sandbox: Sandbox, task: Task, balance_cents: float) -> None:
    sandbox.configure(balance_cents=balance_cents)
    with pytest.raises(TopupNotNeeded, match=r"not below the target of 10000 cents \(\$100\.00\)\. Nothing"):
        task.run(**TARGET)
    assert task.posts() == 0


def test_limits_that_cannot_be_read_do_not_stop_it(sandbox: Sandbox, task: Task) -> None:
    sandbox.configure(balance_cents=9999)
    for operation in ("getTopupEligibility", "getTopupLimits"):
        sandbox.fault(operation, "status", status=404, times=None)
    assert task.run(**TARGET)["amount_cents"] == 1000


def test_a_balance_that_cannot_be_read_does(sandbox: Sandbox, task: Task) -> None:
    sandbox.fault("getCreditBalance", "status", status=404, times=None)
    with pytest.raises(CfBillingError, match="Nothing was charged"):
        task.run(**TARGET)
    assert task.posts() == 0


def test_budget_counts_what_is_missing(sandbox: Sandbox, task: Task) -> None:
    sandbox.configure(balance_cents=5000)
    with pytest.raises(CfBillingInvalidRequestError, match=r"5250 cents \(\$52\.50\) with Cloudflare's fee"):
        task.run(**TARGET, budget_cents=5249, budget_period="month")
    assert task.run(**TARGET, budget_cents=5250, budget_period="month")["amount_cents"] == 5000


def test_lost_charge_is_made_again_with_its_amount(sandbox: Sandbox, task: Task) -> None:
    """The first may still appear, and is found by its amount."""
    sandbox.configure(balance_cents=7500)
    killed_after_the_charge_to(task, charged=False)
    sandbox.configure(balance_cents=0)
    assert task.run(**TARGET)["amount_cents"] == 2500
    assert amounts(sandbox) == [2500]


def test_declined_charge_is_made_again_with_its_amount(sandbox: Sandbox, task: Task) -> None:
    sandbox.configure(balance_cents=7500, next_topup_outcome="declined")
    with pytest.raises(CfBillingError, match="declined"):
        task.run(**TARGET)
    sandbox.configure(balance_cents=0)
    assert task.run(**TARGET)["amount_cents"] == 2500


def test_after_a_charge_that_was_not_made_nothing_may_be_missing(sandbox: Sandbox, task: Task) -> None:
    sandbox.configure(balance_cents=7500, next_topup_outcome="declined")
    with pytest.raises(CfBillingError, match="declined"):
        task.run(**TARGET)
    sandbox.configure(balance_cents=10_000)
    with pytest.raises(TopupNotNeeded):
        task.run(**TARGET)
    assert amounts(sandbox) == []


def test_amount_of_another_account_is_not_taken(sandbox: Sandbox, task: Task) -> None:
    sandbox.configure(balance_cents=7500, next_topup_outcome="declined")
    with pytest.raises(CfBillingError, match="declined"):
        task.run(**TARGET)
    sandbox.configure(ANOTHER_ACCOUNT, balance_cents=5000)
    assert task.run(**TARGET, account_id=ANOTHER_ACCOUNT)["amount_cents"] == 5000


@pytest.mark.parametrize("charged", [True, False], ids=["charged", "not charged"])
def test_lost_response_is_searched_for_by_its_amount(sandbox: Sandbox, task: Task, charged: bool) -> None:
    sandbox.configure(balance_cents=7500)
    killed_after_the_charge_to(task, charged=charged)
    sandbox.configure(balance_cents=2000)  # what would be missing now is another amount
    result = task.run(**TARGET)
    assert (result["amount_cents"], result["outcome"]) == (2500, "adopted" if charged else "charged")
    assert amounts(sandbox) == [2500]


@pytest.mark.parametrize("spent", [False, True], ids=["at the target", "spent since"])
def test_charge_without_a_record_is_adopted_whatever_its_amount(
    sandbox: Sandbox, task: Task, spent: bool
) -> None:
    sandbox.configure(balance_cents=7500)
    task.run(**TARGET)
    task.journal, task.cleared = KeptJournal(), True
    if spent:
        sandbox.configure(balance_cents=10)
    result = task.run(**TARGET)
    assert (result["payment_intent_id"], result["outcome"]) == (task.charged(), "adopted")
    assert result["amount_cents"] is None  # nothing says how much of the invoice is fee and tax
    assert Record.from_json(task.kept.record.to_json()) == task.kept.record
    assert task.run(**TARGET) == {**result, "outcome": "already_completed"}


def test_without_a_record_and_a_charge_what_is_missing_is_charged(sandbox: Sandbox, task: Task) -> None:
    sandbox.configure(balance_cents=7500)
    task.tries, task.cleared = 1, True
    assert task.run(**TARGET)["amount_cents"] == 2500
    assert amounts(sandbox) == [2500]


def test_two_charges_without_a_record_need_a_person(sandbox: Sandbox, task: Task) -> None:
    sandbox.configure(balance_cents=7500)
    task.cleared = True
    for amount_cents in (1200, 9900):
        sandbox.add_invoice(amount_cents)
    with pytest.raises(ManualReviewRequiredError, match="all match this top-up"):
        task.run(**TARGET)
    assert task.posts() == 0


@pytest.mark.parametrize("given", [{}, {"amount_cents": 2500, "target_balance_cents": 10_000}])
def test_one_of_the_two_must_be_given(sandbox: Sandbox, task: Task, given: dict[str, int]) -> None:
    with pytest.raises(CfBillingInvalidRequestError, match="amount_cents"):
        task.run(**{"amount_cents": None, **given})
    assert sandbox.requests() == []


def killed_after_the_charge_to(task: Task, *, charged: bool) -> None:
    """Run a try that is killed when the response to its charge, up to the target, is lost."""
    lose(task.sandbox, "after" if charged else "before")
    task.run(until=lambda progress: progress.record.state == "intent", **TARGET)
