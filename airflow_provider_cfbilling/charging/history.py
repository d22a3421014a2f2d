"""Reads the invoice history back to some time, and says whether it saw everything since then."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingError
from airflow_provider_cfbilling.api.models import Invoice

_MAX_PAGES = 10


@dataclass(frozen=True)
class RecentInvoices:
    """The invoices created since some time.

    :param invoices: those that have an id and a date.
    :param complete: whether these are provably all of them. False if the history does not reach back so far,
        or holds an invoice without id or date.
    :param server_time: when Cloudflare responded, by its own clock.
    :param error: why a further page could not be read. The API documents no page parameter.
    """

    invoices: tuple[Invoice, ...]
    complete: bool
    server_time: datetime
    error: CfBillingError | None = None


def invoices_since(
    client: CfBillingClient,
    since: datetime | None,
    type: Literal["manual", "all"],
    older: Container[str] = (),
) -> RecentInvoices:
    """Read as many pages as it takes, at most ten; without ``since`` the first one.

    :param older: ids of invoices from before ``since``: a history that shows one reaches back, whatever the
        clocks say.
    :raises CfBillingError: the first page could not be read.
    """
    found: dict[str, Invoice] = {}  # by id: a new invoice moves the others on, perhaps to the next page
    dated = True
    reached = False
    error = None
    history = client.get_invoice_history(type)
    server_time = history.server_time
    for page in range(1, _MAX_PAGES + 1):
        times = [invoice.created_at for invoice in history.invoices if invoice.created_at]
        dated = dated and all(invoice.id and invoice.created_at for invoice in history.invoices)
        found |= {
            invoice.id: invoice
            for invoice in history.invoices
            if invoice.id and invoice.created_at and (since is None or invoice.created_at >= since)
        }
        newest_first = all(earlier >= later for earlier, later in pairwise(times))
        oldest = history.invoices[-1] if history.invoices else None
        reached = (
            since is None
            or not history.pagination.has_more
            or (newest_first and bool(times) and times[-1] < since)
            or (newest_first and oldest is not None and oldest.id in older)
        )
        if reached or page == _MAX_PAGES:
            break
        if history.pagination.page != page:  # it counts pages in another way: the next may not follow
            break
        try:
            history = client.get_invoice_history(type, page=page + 1)
        except CfBillingError as refused:
            error = refused
            break
        if history.pagination.page != page + 1:  # the parameter was ignored, and the first page sent again
            break
    return RecentInvoices(tuple(found.values()), dated and reached, server_time, error)
