"""Reads the invoice history back to a moment, and tells whether it saw everything since then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.models import Invoice

_MAX_PAGES = 10


@dataclass(frozen=True)
class RecentInvoices:
    """The invoices created since a moment.

    :param invoices: those that have an id and a date.
    :param complete: whether these are provably all of them. False where the history does not reach back so
        far, or holds an invoice without id or date.
    :param answered_at: when Cloudflare answered, by its own clock.
    """

    invoices: tuple[Invoice, ...]
    complete: bool
    answered_at: datetime


def invoices_since(
    client: CfBillingClient, since: datetime | None, type: Literal["manual", "all"]
) -> RecentInvoices:
    """Read as many pages as it takes, at most ten; without ``since`` the first one.

    :raises CfBillingError: a page could not be read.
    """
    found: dict[str, Invoice] = {}  # by id: a new invoice moves the others on, perhaps to the next page
    dated = True
    reached = False
    answered_at = None
    for page in range(1, _MAX_PAGES + 1):
        history = client.get_invoice_history(type, page=page)
        answered_at = answered_at or history.answered_at
        turned = history.pagination.page == page
        if page > 1 and not turned:
            break  # the API does not turn pages, and sent the first one again
        moments = [invoice.created_at for invoice in history.invoices if invoice.created_at]
        dated = dated and all(invoice.id and invoice.created_at for invoice in history.invoices)
        found |= {
            invoice.id: invoice
            for invoice in history.invoices
            if invoice.id and invoice.created_at and (since is None or invoice.created_at >= since)
        }
        newest_first = all(newer >= older for newer, older in pairwise(moments))
        old_enough = since is None or (newest_first and moments and moments[-1] < since)
        if old_enough or not history.pagination.has_more:
            reached = True
            break
        if not turned:
            break  # the API counts pages in another way: the next one may not be the next part
    return RecentInvoices(tuple(found.values()), dated and reached, answered_at or datetime.now(UTC))
