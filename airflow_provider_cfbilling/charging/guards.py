"""What is checked before a card is charged. Each check costs at most one request, a budget at most ten."""

import time
from datetime import UTC, datetime, timedelta

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingInvalidRequestError
from airflow_provider_cfbilling.api.models import CreditBalance
from airflow_provider_cfbilling.api.money import cents_and_dollars
from airflow_provider_cfbilling.charging.errors import BalanceIsEnough, ComesTooLate
from airflow_provider_cfbilling.charging.history import invoices_since
from airflow_provider_cfbilling.charging.order import BudgetPeriod, TopupOrder

_NOT_CHARGED = ("void", "uncollectible")


def check_order(client: CfBillingClient, order: TopupOrder) -> None:
    """Refuse a top-up that must not be made, or that Cloudflare would refuse. Nothing is charged here.

    :raises ComesTooLate: it was to be charged earlier.
    :raises BalanceIsEnough: the balance is not below ``only_if_balance_below_cents``.
    :raises CfBillingInvalidRequestError: outside the account's limits, no payment method, over the budget.
    :raises CfBillingError: what is needed to decide could not be read.
    """
    if order.charge_by is not None and time.time() > order.charge_by:
        latest = datetime.fromtimestamp(order.charge_by, UTC)
        raise ComesTooLate(
            f"This was to be charged until {latest:%Y-%m-%d %H:%M} (UTC). Nothing was charged."
        )
    if order.only_if_balance_below_cents is not None or order.payment_method_id is None:
        balance = client.get_credit_balance()
        _check_balance(balance, order)
        _check_payment_method(balance, order)
    _check_limits(client, order)
    _check_budget(client, order)


def _check_balance(balance: CreditBalance, order: TopupOrder) -> None:
    line = order.only_if_balance_below_cents
    if line is not None and balance.balance_cents >= line:
        raise BalanceIsEnough(
            f"The balance is {cents_and_dollars(balance.balance_cents)}, which is not below "
            f"{cents_and_dollars(line)}. Nothing was charged."
        )


def _check_payment_method(balance: CreditBalance, order: TopupOrder) -> None:
    if order.payment_method_id is None and not balance.has_default_payment_method:
        raise CfBillingInvalidRequestError(
            "The account has no default payment method. Nothing was charged; add a card on the AI Gateway "
            "page of the Cloudflare dashboard (Credits Available, Manage), or pass payment_method_id."
        )


def _check_limits(client: CfBillingClient, order: TopupOrder) -> None:
    limits = client.get_topup_limits()
    if not limits.min_cents <= order.amount_cents <= limits.max_cents:
        raise CfBillingInvalidRequestError(
            f"amount_cents is {cents_and_dollars(order.amount_cents)}, but this account may top up from "
            f"{cents_and_dollars(limits.min_cents)} to {cents_and_dollars(limits.max_cents)} at once. "
            "Nothing was charged."
        )


def _check_budget(client: CfBillingClient, order: TopupOrder) -> None:
    if order.budget_cents is None or order.budget_period is None:
        return
    start = period_start(order.budget_period, datetime.now(UTC))
    history = invoices_since(client, start, "all")
    if not history.complete:
        raise CfBillingInvalidRequestError(
            f"The invoice history does not reach back to {start:%Y-%m-%d} (UTC), where the budget's period "
            "starts, or holds an invoice without id or date, so what was charged cannot be added up. Nothing "
            "was charged; use a shorter budget_period."
        )
    charged = sum(
        invoice.amount_due_cents for invoice in history.invoices if invoice.status not in _NOT_CHARGED
    )
    if charged + order.amount_cents > order.budget_cents:
        raise CfBillingInvalidRequestError(
            f"The budget is {cents_and_dollars(order.budget_cents)} a {order.budget_period}. Since "
            f"{start:%Y-%m-%d} (UTC) {cents_and_dollars(charged)} were charged, so "
            f"{cents_and_dollars(order.amount_cents)} more would exceed it. Nothing was charged."
        )


def period_start(period: BudgetPeriod, now: datetime) -> datetime:
    """Return the start of the UTC calendar day, ISO week or calendar month that ``now`` lies in."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case "day":
            return midnight
        case "week":
            return midnight - timedelta(days=midnight.weekday())
        case "month":
            return midnight.replace(day=1)
