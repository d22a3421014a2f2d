"""What is to be charged, validated."""

from dataclasses import dataclass
from typing import Literal

from airflow_provider_cfbilling import validation
from airflow_provider_cfbilling.api.errors import CfBillingInvalidRequestError

BudgetPeriod = Literal["day", "week", "month"]
BUDGET_PERIODS: tuple[BudgetPeriod, ...] = ("day", "week", "month")


@dataclass(frozen=True)
class TopupOrder:
    """One top-up and the conditions on which it may be made: as given, or as templates render them.

    :param amount_cents: what to charge.
    :param payment_method_id: the Stripe payment method, or None for the account's default.
    :param only_if_balance_below_cents: charge only when the credit balance is lower.
    :param budget_cents: the most that may be charged in ``budget_period``, this top-up included.
    :param budget_period: UTC calendar day, ISO week (from Monday) or calendar month.
    :param charge_by: after this time it is not charged any more, in Unix seconds.
    :raises CfBillingInvalidRequestError: naming the parameter that is invalid.
    """

    amount_cents: int
    payment_method_id: str | None = None
    only_if_balance_below_cents: float | None = None
    budget_cents: float | None = None
    budget_period: BudgetPeriod | None = None
    charge_by: float | None = None

    def __post_init__(self) -> None:
        self._set("amount_cents", validation.amount_cents(self.amount_cents))
        for name, read in (
            ("payment_method_id", validation.stripe_id),
            ("only_if_balance_below_cents", validation.cents),
            ("budget_cents", validation.cents),
        ):
            self._set(name, read(name, getattr(self, name)))
        self._set("budget_period", validation.choice("budget_period", self.budget_period, BUDGET_PERIODS))
        if (self.budget_cents is None) != (self.budget_period is None):
            raise CfBillingInvalidRequestError(
                "budget_cents and budget_period belong together: give both or neither."
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
