"""What is checked before a card is charged. Each check costs at most one request, a budget at most ten.

Some checks only spare Cloudflare a request that it would refuse: if what they need cannot be read, the top-up
goes on without them. What the user requested (balance, runway, target, budget) stops it.
"""

import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from airflow_provider_cfbilling import validation
from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingError, CfBillingInvalidRequestError
from airflow_provider_cfbilling.api.models import CreditBalance, TopupLimits
from airflow_provider_cfbilling.api.money import cents_and_dollars
from airflow_provider_cfbilling.charging.endings import ChargeDeadlinePassed, TopupNotNeeded
from airflow_provider_cfbilling.charging.history import invoices_since
from airflow_provider_cfbilling.charging.order import BudgetPeriod, TopupOrder
from airflow_provider_cfbilling.charging.reconcile import DEAD
from airflow_provider_cfbilling.forecast import read_spending

# https://developers.cloudflare.com/ai-gateway/features/unified-billing/
FEE_PERCENT = 5

T = TypeVar("T")


def check_order(
    client: CfBillingClient, order: TopupOrder, log: logging.Logger, recorded_cents: int | None = None
) -> int:
    """Return the cents to charge; refuse a top-up that must not be made, or that Cloudflare would refuse.

    Nothing is charged here.

    :param recorded_cents: what an earlier try recorded as missing to ``target_balance_cents``: it stays the
        amount of this top-up.
    :raises ChargeDeadlinePassed: it was to be charged earlier.
    :raises TopupNotNeeded: the balance is not below ``only_if_balance_below_cents``, or lasts for
        ``only_if_runway_below_days``, or has come up to ``target_balance_cents``.
    :raises CfBillingInvalidRequestError: outside the account's limits, no payment method, over the budget.
    :raises CfBillingError: what a guard needs could not be read.
    """
    if order.charge_by is not None and time.time() > order.charge_by:
        latest = datetime.fromtimestamp(order.charge_by, UTC)
        raise ChargeDeadlinePassed(
            f"Skipped: this run's charge deadline ({latest:%Y-%m-%d %H:%M} UTC) has passed. Nothing was "
            "charged."
        )
    missing_cents = 0.0
    if order.depends_on_balance:
        balance = client.get_credit_balance()
        _check_balance(balance, order)
        _check_runway(client, balance, order)
        missing_cents = _missing_cents(balance, order)
        _check_payment_method(balance, order)
    elif order.payment_method_id is None and (
        default := _advice(client.get_credit_balance, "whether there is a default payment method", log)
    ):
        _check_payment_method(default, order)
    limits = _advice(client.get_topup_limits, "the account's limits", log)
    amount_cents = order.amount_cents or recorded_cents or _purchasable_cents(missing_cents, limits, log)
    if limits:
        _check_limits(limits, amount_cents)
    _check_budget(client, order, amount_cents)
    return amount_cents


def _advice(read: Callable[[], T], what: str, log: logging.Logger) -> T | None:
    """Return what only spares a request that Cloudflare would refuse, or None if it cannot be read."""
    try:
        return read()
    except CfBillingError as error:
        log.warning("Not checked before the charge: %s. Cloudflare checks it too. (%s)", what, error)
        return None


def _check_balance(balance: CreditBalance, order: TopupOrder) -> None:
    threshold_cents = order.only_if_balance_below_cents
    if threshold_cents is not None and balance.balance_cents >= threshold_cents:
        raise TopupNotNeeded(
            f"The balance is {cents_and_dollars(balance.balance_cents)}, which is not below "
            f"{cents_and_dollars(threshold_cents)}. Nothing was charged."
        )


def _check_runway(client: CfBillingClient, balance: CreditBalance, order: TopupOrder) -> None:
    days = order.only_if_runway_below_days
    if days is None:
        return
    runway = read_spending(client).runway(balance.balance_cents)
    if not runway.is_below(days):
        raise TopupNotNeeded(f"{runway}. That is not below {days:g} days. Nothing was charged.")


def _missing_cents(balance: CreditBalance, order: TopupOrder) -> float:
    """Return what is missing to the target, or 0 if there is none."""
    if order.target_balance_cents is None:
        return 0.0
    missing_cents = round(order.target_balance_cents - balance.balance_cents, 6)
    if missing_cents <= 0:
        raise TopupNotNeeded(
            f"The balance is {cents_and_dollars(balance.balance_cents)}, which is not below the target of "
            f"{cents_and_dollars(order.target_balance_cents)}. Nothing was charged."
        )
    return missing_cents


def _purchasable_cents(missing_cents: float, limits: TopupLimits | None, log: logging.Logger) -> int:
    """Return what to buy for what is missing: whole dollars, within the account's limits."""
    amount_cents = max(math.ceil(missing_cents / 100) * 100, validation.MIN_TOPUP_CENTS)
    if limits:
        amount_cents = min(max(amount_cents, limits.min_cents), limits.max_cents)
    log.info(
        "%s are missing to the target balance: buying %s.",
        cents_and_dollars(missing_cents),
        cents_and_dollars(amount_cents),
    )
    if amount_cents < missing_cents:
        log.warning("That is the most that this account may buy at once: the target is not reached.")
    return amount_cents


def _check_payment_method(balance: CreditBalance, order: TopupOrder) -> None:
    if order.payment_method_id is None and not balance.has_default_payment_method:
        raise CfBillingInvalidRequestError(
            "The account has no default payment method. Nothing was charged; add a card on the AI Gateway "
            "page of the Cloudflare dashboard (Credits Available, Manage), or pass payment_method_id."
        )


def _check_limits(limits: TopupLimits, amount_cents: int) -> None:
    if not limits.min_cents <= amount_cents <= limits.max_cents:
        raise CfBillingInvalidRequestError(
            f"amount_cents is {cents_and_dollars(amount_cents)}, but this account may top up from "
            f"{cents_and_dollars(limits.min_cents)} to {cents_and_dollars(limits.max_cents)} at once. "
            "Nothing was charged."
        )


def _check_budget(client: CfBillingClient, order: TopupOrder, amount_cents: int) -> None:
    if order.budget_cents is None or order.budget_period is None:
        return
    start = period_start(order.budget_period, datetime.now(UTC))
    history = invoices_since(client, start, "all")
    if history.error and history.error.retryable:
        raise history.error
    if not history.complete:
        raise CfBillingInvalidRequestError(
            f"The invoice history does not reach back to {start:%Y-%m-%d} (UTC), when the budget's period "
            "starts, or holds an invoice without id or date, so what was charged cannot be added up. Nothing "
            "was charged; use a shorter budget_period."
        )
    charged = sum(invoice.amount_due_cents for invoice in history.invoices if invoice.status not in DEAD)
    with_fee = math.ceil(amount_cents * (100 + FEE_PERCENT) / 100)
    if charged + with_fee > order.budget_cents:
        raise CfBillingInvalidRequestError(
            f"The budget is {cents_and_dollars(order.budget_cents)} a {order.budget_period}. Since "
            f"{start:%Y-%m-%d} (UTC) {cents_and_dollars(charged)} were charged, so "
            f"{cents_and_dollars(amount_cents)} more, {cents_and_dollars(with_fee)} with Cloudflare's "
            f"fee of {FEE_PERCENT} %, would exceed it. Nothing was charged."
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
