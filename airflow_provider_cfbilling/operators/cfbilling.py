"""Operators: top up AI Gateway credits, read the balance and the automatic top-up's configuration."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from airflow_provider_cfbilling.api.errors import CfBillingRateLimitError, CfBillingUnavailableError
from airflow_provider_cfbilling.api.money import cents_and_dollars
from airflow_provider_cfbilling.base import WithHook, check_seconds, number_if_rendered
from airflow_provider_cfbilling.links import CfBillingDashboardLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cfbilling.api.models import Topup
    from airflow_provider_cfbilling.charging.order import TopupOrder


class CfBillingBaseOperator(WithHook, BaseOperator):
    """What all operators of this provider share: the connection and the account.

    :param cfbilling_conn_id: the Airflow connection.
    :param account_id: the account to use in place of the connection's, 32 hex digits.
    """

    template_fields: Sequence[str] = ("cfbilling_conn_id", "account_id")
    ui_color = "#faae40"
    ui_fgcolor = "#1d1f20"

    def __init__(
        self, *, cfbilling_conn_id: str = "cfbilling_default", account_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.cfbilling_conn_id = cfbilling_conn_id
        self.account_id = account_id


class CfBillingCreateTopupOperator(CfBillingBaseOperator):
    """Charge a card and add the amount to the account's AI Gateway credits.

    Before the charge it checks the account's limits, the payment method and the guards below; a guard that
    says no costs nothing. The charge is sent once. When its answer is lost, the task fails without a retry
    and says that the outcome is unknown.

    :param amount_cents: what to charge, in cents: 2500 is $25.00. At least 1000, and within the account's
        limits. A template may render it.
    :param payment_method_id: the Stripe payment method to charge; the account's default where None.
    :param wait_for_completion: wait until the charge has settled and the credits are there.
    :param poll_interval: seconds between two looks while waiting.
    :param timeout: seconds to wait for completion.
    :param only_if_balance_below_cents: charge only when the credit balance is lower; the task is skipped
        otherwise.
    :param budget_cents: the most that may be charged in one ``budget_period``, by automatic and manual
        top-ups together, this one included. The task fails without charging where it would be exceeded.
    :param budget_period: ``day``, ``week`` (from Monday) or ``month``, in UTC.
    :param dry_run: check everything, charge nothing.
    """

    template_fields: Sequence[str] = (
        *CfBillingBaseOperator.template_fields,
        "amount_cents",
        "payment_method_id",
        "only_if_balance_below_cents",
        "budget_cents",
        "budget_period",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"amount_cents": "json", "budget_cents": "json"}
    operator_extra_links = (CfBillingDashboardLink(),)

    def __init__(
        self,
        *,
        amount_cents: int | str,
        payment_method_id: str | None = None,
        wait_for_completion: bool = True,
        poll_interval: float = 30,
        timeout: float = 3600,
        only_if_balance_below_cents: float | str | None = None,
        budget_cents: int | str | None = None,
        budget_period: Literal["day", "week", "month"] | None = None,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.amount_cents = amount_cents
        self.payment_method_id = payment_method_id
        self.wait_for_completion = wait_for_completion
        self.poll_interval = check_seconds("poll_interval", poll_interval)
        self.timeout = check_seconds("timeout", timeout)
        self.only_if_balance_below_cents = only_if_balance_below_cents
        self.budget_cents = budget_cents
        self.budget_period = budget_period
        self.charges_nothing = dry_run  # BaseOperator has a method named dry_run

    def execute(self, context: Context) -> dict[str, Any]:
        """Check, charge, wait, and return what became of it."""
        from airflow_provider_cfbilling.hooks.cfbilling import airflow_errors

        with airflow_errors():
            account_id = self.hook.get_conn().account_id
            context["ti"].xcom_push(key="account_id", value=account_id)  # for the link, whatever happens
            order = self._order()
            self._check(order, account_id)
            if self.charges_nothing:
                self.log.info("All checks passed. This is a dry run: nothing was charged.")
                return self._result(order, account_id, outcome="dry_run")
            topup = self._charge(order)
        context["ti"].xcom_push(key="payment_intent_id", value=topup.payment_intent_id)
        if self.wait_for_completion:
            self._wait(topup.payment_intent_id)
        status = "completed" if self.wait_for_completion else "pending"
        return self._result(order, account_id, outcome="charged", topup=topup, status=status)

    def _order(self) -> TopupOrder:
        from airflow_provider_cfbilling.charging.order import TopupOrder

        return TopupOrder(
            amount_cents=number_if_rendered(self.amount_cents),
            payment_method_id=self.payment_method_id,
            only_if_balance_below_cents=number_if_rendered(self.only_if_balance_below_cents),
            budget_cents=number_if_rendered(self.budget_cents),
            budget_period=self.budget_period,
        )

    def _check(self, order: TopupOrder, account_id: str) -> None:
        from airflow_provider_cfbilling.charging.guards import BalanceIsEnough, check_order

        amount = cents_and_dollars(order.amount_cents)
        self.log.info("Checking whether account %s may be topped up by %s.", account_id, amount)
        try:
            check_order(self.hook.get_conn(), order)
        except BalanceIsEnough as reason:
            raise AirflowSkipException(str(reason)) from None

    def _charge(self, order: TopupOrder) -> Topup:
        self.log.info("All checks passed. Charging %s.", cents_and_dollars(order.amount_cents))
        topup = self.hook.create_topup(order.amount_cents, order.payment_method_id)
        card = f"{topup.brand} ending in {topup.last4}" if topup.last4 else "the payment method"
        self.log.info("Cloudflare accepted top-up %s; it charges %s.", topup.payment_intent_id, card)
        return topup

    def _wait(self, payment_intent_id: str) -> None:
        """Wait for the settlement. The card is charged by now, so that nothing here may lead to a retry."""
        from airflow_provider_cfbilling.api.errors import CfBillingError
        from airflow_provider_cfbilling.charging.settlement import is_settled

        give_up_at = time.monotonic() + self.timeout
        while True:
            try:
                if is_settled(self.hook.get_conn(), payment_intent_id):
                    self.log.info("Top-up %s is completed: the credits are there.", payment_intent_id)
                    return
            except (CfBillingUnavailableError, CfBillingRateLimitError) as error:
                self.log.warning("Could not see how the top-up is doing, and will look again: %s", error)
            except CfBillingError as error:
                raise AirflowFailException(f"Top-up {payment_intent_id} was sent, but: {error}") from error
            left = give_up_at - time.monotonic()
            if left <= 0:
                raise AirflowFailException(
                    f"Top-up {payment_intent_id} was accepted and is still pending {self.timeout:g} s later. "
                    "The card may ask for 3-D Secure, or was declined. It is not charged again: look at its "
                    f"invoice on the AI Gateway page of the Cloudflare dashboard, {self._dashboard_url()}."
                )
            time.sleep(min(self.poll_interval, left))

    def _dashboard_url(self) -> str:
        return CfBillingDashboardLink.url(self.hook.get_conn().account_id)

    def _result(
        self,
        order: TopupOrder,
        account_id: str,
        *,
        outcome: str,
        topup: Topup | None = None,
        status: str | None = None,
    ) -> dict[str, Any]:
        return {
            "payment_intent_id": topup.payment_intent_id if topup else None,
            "status": status,
            "amount_cents": order.amount_cents,
            "account_id": account_id,
            "brand": topup.brand if topup else None,
            "last4": topup.last4 if topup else None,
            "onboarding": topup.onboarding if topup else None,
            "outcome": outcome,
        }


class CfBillingGetTopupConfigOperator(CfBillingBaseOperator):
    """Return the automatic top-up's configuration, and in ``state`` whether it works."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Read it once."""
        from airflow_provider_cfbilling.hooks.cfbilling import airflow_errors

        with airflow_errors():
            config = self.hook.get_topup_config()
        self.log.info("The automatic top-up is %s.", config.state)
        return config.to_dict()


class CfBillingGetCreditBalanceOperator(CfBillingBaseOperator):
    """Return the credit balance in ``balance_cents``, and whether a default payment method exists."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Read it once."""
        from airflow_provider_cfbilling.hooks.cfbilling import airflow_errors

        with airflow_errors():
            balance = self.hook.get_credit_balance()
        self.log.info("The balance is %s.", cents_and_dollars(balance.balance_cents))
        return balance.to_dict()
