"""What the sandbox remembers: accounts, invoices, charges and requests. Every amount is in cents."""

from __future__ import annotations

import ipaddress
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

DEFAULT_ACCOUNT_ID = "0123456789abcdef0123456789abcdef"
WRITE_TOKEN = "sandbox-token"  # noqa: S105 - published on purpose: it opens nothing but a sandbox
READ_TOKEN = "sandbox-read-token"  # noqa: S105
GLOBAL_EMAIL = "sandbox@example.com"
GLOBAL_API_KEY = "sandbox-global-api-key"

PAYMENT_METHODS = {
    "pm_sandbox_default": {"brand": "visa", "last4": "4242"},
    "pm_sandbox_second": {"brand": "mastercard", "last4": "4444"},
}

Outcome = Literal["paid", "declined", "requires_action", "void", "uncollectible"]
Origin = Literal["manual", "auto"]
Status = Literal["draft", "open", "paid", "uncollectible", "void"]
DeadInvoice = Literal["nothing", "void", "open"]
PageParameter = Literal["honored", "ignored", "refused"]
AutoTopupAction = Literal["break", "recover", "disable", "unset", "perform"]
UnsetStyle = Literal["null", "zero", "absent"]

Record = TypeVar("Record")


def _active_topup_config() -> dict[str, Any]:
    return {"amount": 2000, "threshold": 500, "error": None, "disabledReason": None, "lastFailedAt": None}


def _no_spending_limit() -> dict[str, Any]:
    return {"enabled": False, "config": {"amount": None, "duration": None, "strategy": None}}


@dataclass(frozen=True)
class Account:
    """One account and its switches: each field can be given to ``configure``.

    :param balance_cents: credit balance in cents, fractions allowed.
    :param min_cents: smallest top-up in cents.
    :param max_cents: largest top-up in cents.
    :param currency: of limits and invoices.
    :param default_payment_method: ``pm_sandbox_default``, ``pm_sandbox_second``, or None: no default.
    :param topup_outcome: what becomes of a top-up: ``paid``; ``declined`` (at once, with a 402: nothing is
        charged); ``requires_action`` (3-D Secure: pending for ever); ``void`` or ``uncollectible`` (accepted,
        then failed at the time of settlement).
    :param next_topup_outcome: the same, for the next top-up only.
    :param declined_leaves: what a declined top-up leaves in the history: ``nothing``, or an invoice of that
        status that is never settled and is not a charge.
    :param settle_seconds: from a top-up's acceptance to its settlement.
    :param status_lag_seconds: how long after its creation ``topup/status`` responds with 404 for a top-up.
    :param fee_percent: Cloudflare's fee, from 0 to 100, added to the ``amount_due`` of a top-up's invoice.
        The credit bought stays the amount requested, whatever fee, tax and ``credit_cents`` are.
    :param tax_percent: added to the amount and its fee.
    :param credit_cents: account credit or a coupon, in cents: taken off the ``amount_due`` of every top-up's
        invoice, down to 0. It is not used up.
    :param history_lag_seconds: how long after its creation an invoice appears in the history.
    :param per_page: invoices on one page of the history, unless a request's ``per_page`` is honored.
    :param page_parameter: what the history does with ``page`` and ``per_page``, which the real API does not
        document: ``honored``, ``ignored``, or ``refused`` with a 400.
    :param spend_per_day_cents: what the usage history says was spent each day; None: made-up values. The
        balance is not touched.
    :param usage_days: how many days the usage history reaches back; None: as far as is requested.
    :param sparse: responses leave out what the contract calls optional, and send null for what may be null.
    :param topup_config: the auto top-up configuration, exactly as the API shall return it.
    :param spending_limit: the legacy spending limit, exactly as the API shall return it.
    :param token: the API token with "AI Gateway Write" on this account.
    :param read_token: the API token with "AI Gateway Read" on this account.
    :param allowed_addresses: addresses and networks from which both tokens may be used (their Client IP
        Address Filtering), such as ``["203.0.113.0/24"]``; empty: from everywhere.
    """

    balance_cents: float = 640.19
    min_cents: int = 1_000
    max_cents: int = 100_000
    currency: str = "usd"
    default_payment_method: Literal["pm_sandbox_default", "pm_sandbox_second"] | None = "pm_sandbox_default"
    topup_outcome: Outcome = "paid"
    next_topup_outcome: Outcome | None = None
    declined_leaves: DeadInvoice = "nothing"
    settle_seconds: float = 2.0
    status_lag_seconds: float = 0.0
    fee_percent: float = 5.0
    tax_percent: float = 0.0
    credit_cents: int = 0
    history_lag_seconds: float = 0.0
    per_page: int = 20
    page_parameter: PageParameter = "ignored"
    spend_per_day_cents: float | None = None
    usage_days: float | None = None
    sparse: bool = False
    topup_config: dict[str, Any] = field(default_factory=_active_topup_config)
    spending_limit: dict[str, Any] = field(default_factory=_no_spending_limit)
    token: str = WRITE_TOKEN
    read_token: str = READ_TOKEN
    allowed_addresses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for address in self.allowed_addresses:
            ipaddress.ip_network(address)
        if self.per_page < 1:
            raise ValueError("per_page must be at least 1")
        if not 0 <= self.fee_percent <= 100:
            raise ValueError("fee_percent must be from 0 to 100")
        if min(self.spend_per_day_cents or 0, self.usage_days or 0) < 0:
            raise ValueError("spend_per_day_cents and usage_days must not be negative")
        if self.credit_cents < 0 or self.status_lag_seconds < 0:
            raise ValueError("credit_cents and status_lag_seconds must not be negative")

    def allows(self, address: str) -> bool:
        """Whether the tokens may be used from there."""
        networks = [ipaddress.ip_network(network) for network in self.allowed_addresses]
        return not networks or any(ipaddress.ip_address(address) in network for network in networks)

    def amount_due_cents(self, amount_cents: int) -> int:
        """What an invoice over that many cents of credit is due with: fee and tax, less account credit."""
        with_fee = amount_cents + round(amount_cents * self.fee_percent / 100)
        with_tax = with_fee + round(with_fee * self.tax_percent / 100)
        return max(0, with_tax - self.credit_cents)


@dataclass(frozen=True)
class LedgerInvoice:
    """An invoice as the sandbox keeps it; times are Unix seconds.

    :param amount_cents: the credit bought.
    :param amount_due_cents: what the card pays: with fee and tax, less account credit.
    :param visible_at: when the history begins to show it.
    :param settles_at: when ``status`` becomes ``settles_as``; both None: never.
    :param without: comma-separated names of fields the history leaves out.
    :param status_visible_at: when ``topup/status`` begins to report it.
    """

    id: str
    account_id: str
    amount_cents: int
    amount_due_cents: int
    status: Status
    origin: Origin
    created: int
    visible_at: float
    settles_at: float | None = None
    settles_as: Status | None = None
    description: str | None = "AI Gateway credits"
    without: str = ""
    status_visible_at: float = 0.0


@dataclass(frozen=True)
class Charge:
    """A top-up that was performed, whether or not its response arrived.

    :param amount_cents: the credit bought.
    :param amount_due_cents: what the card pays: with fee and tax, less account credit.
    :param at: Unix seconds.
    :param status: of its invoice, now: ``open`` until it is settled.
    """

    account_id: str
    amount_cents: int
    amount_due_cents: int
    at: float
    invoice_id: str
    origin: Origin
    status: Status


@dataclass(frozen=True)
class SeenRequest:
    """A request to the API.

    :param at: Unix seconds.
    :param operation: its operationId, None if nothing is routed.
    :param status: the response's, None: no (whole) response so far.
    :param token: a fingerprint of the credentials, never the credentials.
    :param fault: the kind of fault that met it, if any.
    """

    at: float
    method: str
    path: str
    query: str
    operation: str | None
    status: int | None
    token: str | None
    fault: str | None


@dataclass(frozen=True)
class PastInvoice:
    """An invoice to put into the history; it is not a charge and does not touch the balance.

    :param created: Unix seconds; by default now.
    :param amount_due_cents: by default ``amount_cents``, without fee and tax.
    :param without: comma-separated names of fields the history leaves out.
    """

    amount_cents: int
    origin: Origin = "manual"
    status: Status = "paid"
    created: float | None = None
    amount_due_cents: int | None = None
    description: str | None = "AI Gateway credits"
    without: str = ""


@dataclass(frozen=True)
class AutoTopup:
    """Something that happens to an account's auto top-up.

    :param action: ``break`` it (the last charge failed), ``disable`` it (Cloudflare turned it off), let it
        ``recover`` from both, ``unset`` it, or ``perform`` one now.
    :param error: for ``break``.
    :param last_failed_at: for ``break``: Unix seconds; by default now.
    :param milliseconds: for ``break``: the API returns that time in milliseconds.
    :param reason: for ``disable``.
    :param style: for ``unset``: returned as nulls, as zeros, or without the optional fields.
    :param amount_cents: for ``perform``; by default the configured amount.
    """

    action: AutoTopupAction
    error: str = "card_declined"
    last_failed_at: float | None = None
    milliseconds: bool = False
    reason: str = "too_many_failures"
    style: UnsetStyle = "null"
    amount_cents: int | None = None


def checked(kind: type[Record], values: Mapping[str, object]) -> Record:
    """Build a record from JSON, refusing unknown keys by name and values of another type."""
    hints = get_type_hints(kind)
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"unknown key {key!r}; known keys: {', '.join(hints)}")
        if not _fits(value, hints[key]):
            raise ValueError(f"{key}: {value!r} does not fit {hints[key]}")
    try:
        return kind(**values)
    except TypeError as missing:
        raise ValueError(str(missing)) from None


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint in (int, float):
        allowed = (int, float) if hint is float else int
        return isinstance(value, allowed) and not isinstance(value, bool)
    return isinstance(value, origin or hint)
