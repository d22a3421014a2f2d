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

    :param amount_cents: what to charge; None: what is missing to ``target_balance_cents``.
    :param payment_method_id: the Stripe payment method, or None for the account's default.
    :param target_balance_cents: the balance to come up to.
    :param only_if_balance_below_cents: charge only when the credit balance is lower.
    :param only_if_runway_below_days: charge only when the credits last for less.
    :param budget_cents: the most that may be charged in ``budget_period``, this top-up included.
    :param budget_period: UTC calendar day, ISO week (from Monday) or calendar month.
    :param charge_by: after this time it is not charged any more, in Unix seconds.
    :raises CfBillingInvalidRequestError: naming the parameter that is invalid.
    """

    amount_cents: int | None = None
    payment_method_id: str | None = None
    target_balance_cents: float | None = None
    only_if_balance_below_cents: float | None = None
    only_if_runway_below_days: float | None = None
    budget_cents: float | None = None
    budget_period: BudgetPeriod | None = None
    charge_by: float | None = None

    def __post_init__(self) -> None:
        for name, read in (
            ("payment_method_id", validation.stripe_id),
            ("target_balance_cents", validation.cents),
            ("only_if_balance_below_cents", validation.cents),
            ("only_if_runway_below_days", validation.days),
            ("budget_cents", validation.cents),
        ):
            self._set(name, read(name, getattr(self, name)))
        if self.target_balance_cents is None:
            self._set("amount_cents", validation.amount_cents(self.amount_cents))
        elif not validation.is_absent(self.amount_cents):
            raise CfBillingInvalidRequestError("Give either amount_cents or target_balance_cents.")
        else:
            self._set("amount_cents", None)
        self._set("budget_period", validation.choice("budget_period", self.budget_period, BUDGET_PERIODS))
        if (self.budget_cents is None) != (self.budget_period is None):
            raise CfBillingInvalidRequestError(
                "budget_cents and budget_period belong together: give both or neither."
            )

    @property
    def depends_on_balance(self) -> bool:
        """Whether it must not be made without knowing the balance."""
        conditions = (
            self.target_balance_cents,
            self.only_if_balance_below_cents,
            self.only_if_runway_below_days,
        )
        return any(condition is not None for condition in conditions)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
