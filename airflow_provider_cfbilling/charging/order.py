"""What somebody asks to be charged, checked."""

from dataclasses import dataclass
from typing import Literal

from airflow_provider_cfbilling.api.client import checked_amount_cents, checked_id
from airflow_provider_cfbilling.api.errors import CfBillingInvalidRequestError
from airflow_provider_cfbilling.api.money import is_number_above_0

BudgetPeriod = Literal["day", "week", "month"]
BUDGET_PERIODS: tuple[BudgetPeriod, ...] = ("day", "week", "month")


@dataclass(frozen=True)
class TopupOrder:
    """One top-up and the conditions on which it may be made.

    :param amount_cents: what to charge.
    :param payment_method_id: the Stripe payment method, or None for the account's default.
    :param only_if_balance_below_cents: charge only when the credit balance is lower.
    :param budget_cents: the most that may be charged in ``budget_period``, this top-up included.
    :param budget_period: UTC calendar day, ISO week (from Monday) or calendar month.
    :param charge_by: after this moment it is not charged any more, in Unix seconds.
    :raises CfBillingInvalidRequestError: naming the parameter that cannot be meant.
    """

    amount_cents: int
    payment_method_id: str | None = None
    only_if_balance_below_cents: float | None = None
    budget_cents: int | None = None
    budget_period: BudgetPeriod | None = None
    charge_by: float | None = None

    def __post_init__(self) -> None:
        checked_amount_cents(self.amount_cents)
        if self.payment_method_id is not None:
            checked_id("payment_method_id", self.payment_method_id)
        for name in ("only_if_balance_below_cents", "budget_cents"):
            _check_positive_cents(name, getattr(self, name))
        if (self.budget_cents is None) != (self.budget_period is None):
            raise CfBillingInvalidRequestError(
                "budget_cents and budget_period belong together: give both or neither."
            )
        if self.budget_period is not None and self.budget_period not in BUDGET_PERIODS:
            raise CfBillingInvalidRequestError(
                f"budget_period must be one of {', '.join(BUDGET_PERIODS)}; got {self.budget_period!r}."
            )


def _check_positive_cents(name: str, cents: float | None) -> None:
    if cents is not None and not is_number_above_0(cents):
        raise CfBillingInvalidRequestError(
            f"{name} must be a number of cents above 0 (1000 is $10.00); got {cents!r:.60}."
        )
