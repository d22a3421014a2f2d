"""What the API returns. Amounts are in cents, times in UTC, and the fields' names say so.

Fields and nullability: Cloudflare's API reference for AI Gateway Billing, kept in ``sandbox/openapi.yaml``.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from airflow_provider_cfbilling.api.errors import CfBillingMalformedResponseError
from airflow_provider_cfbilling.api.http.reader import Id, Key, Link, Model
from airflow_provider_cfbilling.api.http.text import one_line
from airflow_provider_cfbilling.validation import is_stripe_id

_MAX_WORD = 40


@dataclass(frozen=True)
class Topup(Model):
    """A top-up that Cloudflare has accepted; it settles later. ``client_secret`` is dropped unread.

    :param payment_intent_id: really a Stripe invoice id (``in_...``), the same as in the invoice history.
    :param onboarding: whether the account was already set up for billing; None if that was not said.
    """

    payment_intent_id: str
    onboarding: bool | None
    brand: str | None
    last4: str | None

    @classmethod
    def read(cls, value: Any) -> "Topup":
        """Read an accepted top-up. Only a wrong id is an error: the card is charged all the same."""
        found = value if isinstance(value, dict) else {}
        payment_intent_id = found.get("payment_intent_id")
        if not is_stripe_id(payment_intent_id):
            raise CfBillingMalformedResponseError("The response holds no readable payment_intent_id")
        onboarding, brand, last4 = (found.get(name) for name in ("onboarding", "brand", "last4"))
        return cls(
            payment_intent_id=payment_intent_id,
            onboarding=onboarding if isinstance(onboarding, bool) else None,
            brand=one_line(brand, _MAX_WORD) if isinstance(brand, str) else None,
            last4=one_line(last4, _MAX_WORD) if isinstance(last4, str) else None,
        )


@dataclass(frozen=True)
class TopupStatus(Model):
    """How far a top-up has come. The API never says "failed"; the invoice does."""

    payment_intent_id: Id
    status: Literal["completed", "pending"]


@dataclass(frozen=True)
class TopupConfig(Model):
    """The automatic top-up: it charges ``amount_cents`` when the balance falls below ``threshold_cents``.

    :param error: set: the last automatic charge failed.
    :param disabled_reason: set: Cloudflare switched the automatic top-up off.
    """

    amount_cents: Annotated[float | None, Key("amount")]
    threshold_cents: Annotated[float | None, Key("threshold")]
    error: str | None
    disabled_reason: Annotated[str | None, Key("disabledReason")]
    last_failed_at: Annotated[datetime | None, Key("lastFailedAt")]

    @property
    def state(self) -> Literal["unset", "active", "failing", "disabled"]:
        """``disabled`` (Cloudflare switched it off), ``failing``, ``active`` or ``unset``."""
        if self.disabled_reason:
            return "disabled"
        if self.error:
            return "failing"
        return "active" if self.amount_cents else "unset"

    def is_broken(self, since: datetime | None = None) -> bool:
        """Return whether charges fail or are switched off. A failure from before ``since`` does not count."""
        if self.state not in ("failing", "disabled"):
            return False
        return since is None or self.last_failed_at is None or self.last_failed_at >= since

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and ``state``."""
        return {**super().to_dict(), "state": self.state}


@dataclass(frozen=True)
class TopupLimits(Model):
    """The smallest and the largest top-up of this account."""

    min_cents: int
    max_cents: int
    currency: str


@dataclass(frozen=True)
class ManualTopup(Model):
    """What a manual top-up may be."""

    limits: TopupLimits


@dataclass(frozen=True)
class TopupEligibility(Model):
    """Within which limits the account can top up. Nothing else of this response is documented."""

    manual_topup: ManualTopup


@dataclass(frozen=True)
class PaymentMethod(Model):
    """The default card."""

    brand: str | None
    last4: str | None


@dataclass(frozen=True)
class CreditBalance(Model):
    """What is left to spend, with fractions of a cent: 640.19 is $6.40. It can be negative."""

    balance_cents: Annotated[float, Key("balance")]
    has_default_payment_method: bool
    payment_method: PaymentMethod | None
    topup_config: TopupConfig
    first_topup_success: bool | None


@dataclass(frozen=True)
class Invoice(Model):
    """One charge, automatic or manual.

    :param amount_due_cents: with Cloudflare's fee and tax, less account credit and coupons: it may be more
        than the requested amount, or less.
    :param status: ``draft``, ``open``, ``paid``, ``uncollectible`` or ``void``.
    :param invoice_pdf: None also if its address is not one to click on.
    """

    id: Id | None
    amount_due_cents: Annotated[float, Key("amount_due")]
    amount_paid_cents: Annotated[float | None, Key("amount_paid")]
    amount_remaining_cents: Annotated[float | None, Key("amount_remaining")]
    currency: str | None
    created_at: Annotated[datetime | None, Key("created")]
    created_by: str | None
    status: str | None
    attempted: bool | None
    attempt_count: float | None
    auto_advance: bool | None
    description: str | None
    invoice_origin: str | None
    invoice_pdf: Link | None


@dataclass(frozen=True)
class Pagination(Model):
    """Which part of a list a response is."""

    has_more: bool
    page: int | None
    per_page: int | None
    total_count: int | None


@dataclass(frozen=True)
class InvoiceHistory(Model):
    """Past invoices, newest first.

    :param server_time: when Cloudflare responded, by its own clock.
    """

    invoices: tuple[Invoice, ...]
    pagination: Pagination
    server_time: datetime


@dataclass(frozen=True)
class Period(Model):
    """What an invoice's line is for."""

    start_at: Annotated[datetime, Key("start")]
    end_at: Annotated[datetime, Key("end")]


@dataclass(frozen=True)
class Pricing(Model):
    """The price of one unit, in cents, as a decimal number in text."""

    unit_amount_cents: Annotated[str | None, Key("unit_amount_decimal")]


@dataclass(frozen=True)
class InvoiceLine(Model):
    """One line of the upcoming invoice."""

    amount_cents: Annotated[float, Key("amount")]
    currency: str
    description: str | None
    period: Period
    pricing: Pricing
    quantity: float


@dataclass(frozen=True)
class InvoicePreview(Model):
    """The upcoming invoice."""

    id: str
    amount_due_cents: Annotated[float, Key("amount_due")]
    amount_paid_cents: Annotated[float, Key("amount_paid")]
    amount_remaining_cents: Annotated[float, Key("amount_remaining")]
    currency: str
    period_start_at: Annotated[datetime, Key("period_start")]
    period_end_at: Annotated[datetime, Key("period_end")]
    status: Literal["draft", "open", "paid", "uncollectible", "void"]
    invoice_lines: tuple[InvoiceLine, ...]


@dataclass(frozen=True)
class UsageWindow(Model):
    """What was spent in one day or hour, in cents with fractions."""

    id: str
    spent_cents: Annotated[float, Key("aggregated_value", times=100)]  # the API gives US dollars
    start_at: Annotated[datetime, Key("start_time")]
    end_at: Annotated[datetime, Key("end_time")]


@dataclass(frozen=True)
class UsageHistory(Model):
    """Spend per window of time.

    :param server_time: when Cloudflare responded, by its own clock.
    """

    history: tuple[UsageWindow, ...]
    server_time: datetime


@dataclass(frozen=True)
class SpendingLimitConfig(Model):
    """How much may be spent in what time."""

    amount_cents: Annotated[float | None, Key("amount")]
    duration: str | None
    strategy: str | None


@dataclass(frozen=True)
class SpendingLimit(Model):
    """The account's legacy spending limit."""

    enabled: bool
    config: SpendingLimitConfig
