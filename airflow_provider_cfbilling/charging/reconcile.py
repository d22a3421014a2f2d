"""Finds out from the invoice history whether a charge was made whose response was lost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.models import Invoice
from airflow_provider_cfbilling.charging.history import invoices_since
from airflow_provider_cfbilling.charging.journal import ChargeIntent
from airflow_provider_cfbilling.validation import MIN_TOPUP_CENTS

# Cloudflare's clocks need not agree to the second, and its timestamps have no fractions.
CLOCK_TOLERANCE_SECONDS = 5.0
# Cloudflare's fee of 5 % and tax are added to the requested amount; no country takes more than 27 %.
MAX_FEE_AND_TAX = 1.35

DEAD = ("void", "uncollectible")
# What is requested has no currency; amounts of another one cannot be compared with it.
CURRENCY = "usd"


@dataclass(frozen=True)
class ReconcileResult:
    """What the invoice history shows.

    :param candidates: the invoices that can be the charge.
    :param suspects: invoices that may turn out to be the charge: due with less than was requested, by
        account credit or a coupon, or because they are not final; due in another currency; or, if what was
        requested is not recorded, with any amount.
    :param complete: whether the charge would have been seen, had it been listed by then.
    :param at: when Cloudflare responded, in Unix seconds of its clock.
    :param invoices: ids of all invoices seen, for a new intent's ``known_invoices``.
    """

    candidates: tuple[Invoice, ...]
    suspects: tuple[Invoice, ...]
    complete: bool
    at: float
    invoices: tuple[str, ...]

    @property
    def living_candidates(self) -> tuple[Invoice, ...]:
        """Those that are paid, or may be."""
        return _living(self.candidates)

    @property
    def living_suspects(self) -> tuple[Invoice, ...]:
        """Those that are paid, or may be."""
        return _living(self.suspects)


def find_candidate_invoices(
    client: CfBillingClient,
    intent: ChargeIntent,
    *,
    until: float | None = None,
    ignore_dead: bool = False,
    is_recorded: bool = True,
) -> ReconcileResult:
    """Search the manual invoices for the charge of ``intent``. Reads only.

    :param until: the charge was not made later, in Unix seconds of Cloudflare's clock.
    :param ignore_dead: leave out what will never be paid: what a declined card leaves behind.
    :param is_recorded: whether the intent was. If not, its amount is today's: an earlier try may have charged
        another one.
    :raises CfBillingError: the history could not be read.
    """
    tolerance = CLOCK_TOLERANCE_SECONDS
    since = datetime.fromtimestamp(intent.not_before - tolerance, UTC)
    recent = invoices_since(client, since, "manual", older=intent.known_invoices)
    unknown = [
        invoice
        for invoice in recent.invoices
        if invoice.id not in intent.known_invoices
        and not (ignore_dead and invoice.status in DEAD)
        and not (until and invoice.created_at and invoice.created_at.timestamp() > until + tolerance)
    ]
    least = intent.amount_cents or MIN_TOPUP_CENTS
    most = intent.amount_cents * MAX_FEE_AND_TAX if intent.amount_cents else math.inf
    comparable = [each for each in unknown if (each.currency or CURRENCY).lower() == CURRENCY]
    candidates = [each for each in comparable if least <= each.amount_due_cents <= most]
    too_large = [each for each in comparable if each.amount_due_cents > most] if is_recorded else []
    return ReconcileResult(
        candidates=tuple(candidates),
        suspects=tuple(each for each in unknown if each not in candidates and each not in too_large),
        complete=recent.complete,
        at=recent.server_time.timestamp(),
        invoices=_invoice_ids(recent.invoices),
    )


def snapshot_invoices(client: CfBillingClient) -> ReconcileResult:
    """Return the newest invoices that exist before a charge. Reads only.

    :raises CfBillingError: the history could not be read.
    """
    recent = invoices_since(client, None, "manual")
    return ReconcileResult(
        (), (), recent.complete, recent.server_time.timestamp(), _invoice_ids(recent.invoices)
    )


def _living(invoices: Iterable[Invoice]) -> tuple[Invoice, ...]:
    return tuple(invoice for invoice in invoices if invoice.status not in DEAD)


def _invoice_ids(invoices: Iterable[Invoice]) -> tuple[str, ...]:
    return tuple(invoice.id for invoice in invoices if invoice.id)
