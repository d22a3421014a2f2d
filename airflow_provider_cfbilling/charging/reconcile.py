"""Finds out from the invoice history whether a charge was made whose answer was lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.charging.history import invoices_since
from airflow_provider_cfbilling.charging.journal import Intent

# Cloudflare's clocks need not agree to the second, and its timestamps have no fractions.
CLOCK_TOLERANCE_SECONDS = 5.0
# Tax is added to the amount asked for; no country takes more than 27 %.
MOST_TAX = 1.35


@dataclass(frozen=True)
class Sighting:
    """What the invoice history shows.

    :param matches: ids of the invoices that can be the charge looked for.
    :param complete: whether that charge would have been seen, had it been listed by then.
    :param at: when Cloudflare answered, in Unix seconds of its clock.
    :param invoices: ids of all invoices seen, for a new intent's ``known_invoices``.
    """

    matches: tuple[str, ...]
    complete: bool
    at: float
    invoices: tuple[str, ...]


def look_for(client: CfBillingClient, intent: Intent | None) -> Sighting:
    """Look for the charge of ``intent`` among the manual invoices, or just at the newest. Reads only.

    :raises CfBillingError: the history could not be read.
    """
    since = datetime.fromtimestamp(intent.at - CLOCK_TOLERANCE_SECONDS, UTC) if intent else None
    recent = invoices_since(client, since, "manual")
    seen = {invoice.id: invoice.amount_due_cents for invoice in recent.invoices if invoice.id}
    matches = [
        invoice_id
        for invoice_id, amount_due_cents in seen.items()
        if intent
        and invoice_id not in intent.known_invoices
        and intent.amount_cents <= amount_due_cents <= intent.amount_cents * MOST_TAX
    ]
    return Sighting(tuple(matches), recent.complete, recent.answered_at.timestamp(), tuple(seen))
