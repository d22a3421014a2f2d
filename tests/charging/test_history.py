"""Reading the invoice history back to a point in time, and knowing whether all of it was seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingInvalidRequestError
from airflow_provider_cfbilling.charging.history import RecentInvoices, invoices_since
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.raw_servers import Peer, RawServer, client_at, http, ok

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def at(hour: int) -> datetime:
    return NOON.replace(hour=hour)


def ids(recent: RecentInvoices) -> list[str | None]:
    return [invoice.id for invoice in recent.invoices]


def invoices(sandbox: Sandbox, *hours: int, **details: Any) -> list[str]:
    """Put invoices into the history, and return their ids, newest first."""
    added = {
        hour: sandbox.add_invoice(1000, created=at(hour).timestamp(), **details).id for hour in sorted(hours)
    }
    return [added[hour] for hour in sorted(added, reverse=True)]


def test_invoices_since_a_time_are_found_inclusively(sandbox: Sandbox, client: CfBillingClient):
    newest, middle, _ = invoices(sandbox, 8, 9, 10)
    recent = invoices_since(client, at(9), "manual")
    assert ids(recent) == [newest, middle]
    assert recent.complete


def test_without_a_time_only_the_first_page_is_read(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(per_page=2, page_parameter="honored")
    newest, middle, _ = invoices(sandbox, 8, 9, 10)
    recent = invoices_since(client, None, "manual")
    assert ids(recent) == [newest, middle]
    assert recent.complete
    assert len(sandbox.requests("getInvoiceHistory")) == 1


def test_empty_history_is_complete(client: CfBillingClient):
    recent = invoices_since(client, at(9), "all")
    assert (recent.invoices, recent.complete) == ((), True)


@pytest.mark.parametrize(("type", "count"), [("manual", 1), ("all", 3)])
def test_only_invoices_of_the_requested_type_are_read(
    sandbox: Sandbox, client: CfBillingClient, type: Any, count: int
):
    invoices(sandbox, 8)
    invoices(sandbox, 9, 10, origin="auto")
    assert len(invoices_since(client, at(0), type).invoices) == count


def test_pages_are_read_until_one_reaches_back_far_enough(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(per_page=2, page_parameter="honored")
    expected = invoices(sandbox, *range(1, 11))[:5]
    recent = invoices_since(client, at(6), "manual")
    assert ids(recent) == expected
    assert recent.complete
    assert len(sandbox.requests("getInvoiceHistory")) == 3


def test_page_that_ends_exactly_at_that_time_is_not_the_last(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(per_page=2, page_parameter="honored")
    for _ in range(4):
        sandbox.add_invoice(1000, created=at(9).timestamp())
    assert len(invoices_since(client, at(9), "manual").invoices) == 4


@pytest.mark.parametrize(("since", "complete"), [(8, False), (10, False), (11, True)])
def test_api_without_paging_proves_only_what_its_first_page_holds(
    sandbox: Sandbox, client: CfBillingClient, since: int, complete: bool
):
    sandbox.configure(per_page=3, page_parameter="ignored")
    expected = invoices(sandbox, 8, 9, 10, 11, 12)[:3]
    recent = invoices_since(client, at(since), "manual")
    assert set(ids(recent)) <= set(expected)
    assert recent.complete is complete


def test_at_most_ten_pages_are_read(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(per_page=1, page_parameter="honored")
    invoices(sandbox, *range(12))
    recent = invoices_since(client, at(0), "manual")
    assert (len(recent.invoices), recent.complete) == (10, False)
    assert len(sandbox.requests("getInvoiceHistory")) == 10


@pytest.mark.parametrize("without", ["id", "created"])
@pytest.mark.parametrize("since", [at(9), None], ids=["since", "newest"])
def test_invoice_without_id_or_date_leaves_the_rest_unproven(
    sandbox: Sandbox, client: CfBillingClient, without: str, since: datetime | None
):
    (known,) = invoices(sandbox, 10)
    invoices(sandbox, 11, without=without)
    recent = invoices_since(client, since, "manual")
    assert ids(recent) == [known]
    assert not recent.complete


def test_first_page_that_is_unreadable_is_an_error(sandbox: Sandbox, client: CfBillingClient):
    sandbox.fault("getInvoiceHistory", "status", status=400)
    with pytest.raises(CfBillingInvalidRequestError):
        invoices_since(client, at(0), "manual")


@pytest.mark.parametrize("status", [400, 404, 503])
def test_further_page_that_is_unreadable_is_not_the_end_of_the_history(
    sandbox: Sandbox, client: CfBillingClient, status: int
):
    sandbox.configure(per_page=1, page_parameter="honored")
    newest, _ = invoices(sandbox, 8, 9)
    sandbox.fault("getInvoiceHistory", "status", status=status, skip=1)
    recent = invoices_since(client, at(0), "manual")
    assert (ids(recent), recent.complete) == ([newest], False)
    assert recent.error
    assert recent.error.status == status


def page(number: int, hours: dict[str, int], *, has_more: bool) -> dict[str, Any]:
    listed = [
        {"id": id, "created": int(at(hour).timestamp()), "status": "paid", "currency": "usd"}
        | {"amount_due": 1000, "amount_paid": 1000, "amount_remaining": 0}
        for id, hour in hours.items()
    ]
    more = {"has_more": has_more, "page": number, "per_page": len(listed), "total_count": 9}
    return {"invoices": listed, "pagination": more}


@contextmanager
def client_of_pages(*pages: dict[str, Any]) -> Iterator[CfBillingClient]:
    """A client of a history that no sandbox serves; each page is sent an hour after the one before."""

    def serve(peer: Peer) -> None:
        for hours in range(len(pages)):
            peer.request()
            number = int(peer.path().partition("&page=")[2] or 1)
            date = format_datetime(NOON + timedelta(hours=hours), usegmt=True)
            peer.send(http(ok(pages[number - 1]), Date=date))

    with RawServer(serve) as server, client_at(server.url) as client:
        yield client


def test_server_time_is_that_of_the_first_page():
    pages = [page(1, {"in_3": 11, "in_2": 10}, has_more=True), page(2, {"in_1": 9}, has_more=False)]
    with client_of_pages(*pages) as client:
        recent = invoices_since(client, at(1), "manual")
    assert ids(recent) == ["in_3", "in_2", "in_1"]
    assert recent.server_time == NOON


def test_invoice_that_a_newer_one_moved_to_the_next_page_is_there_once():
    pages = [page(1, {"in_3": 11, "in_2": 10}, has_more=True), page(2, {"in_2": 10}, has_more=False)]
    with client_of_pages(*pages) as client:
        assert ids(invoices_since(client, at(1), "manual")) == ["in_3", "in_2"]


def test_history_that_is_not_newest_first_is_read_to_its_end():
    pages = [page(1, {"in_1": 1, "in_3": 11}, has_more=True), page(2, {"in_2": 10}, has_more=False)]
    with client_of_pages(*pages) as client:
        recent = invoices_since(client, at(9), "manual")
    assert ids(recent) == ["in_3", "in_2"]
    assert recent.complete


@pytest.mark.parametrize("has_more", [False, True])
def test_api_that_numbers_pages_differently_gets_one_request(has_more: bool):
    with client_of_pages(page(0, {"in_1": 11}, has_more=has_more)) as client:
        recent = invoices_since(client, at(9), "manual")
    assert ids(recent) == ["in_1"]
    assert recent.complete is not has_more


def test_page_without_invoices_that_promises_more_is_not_the_end():
    pages = [page(1, {}, has_more=True), page(2, {"in_1": 10}, has_more=False)]
    with client_of_pages(*pages) as client:
        recent = invoices_since(client, at(9), "manual")
    assert ids(recent) == ["in_1"]
    assert recent.complete
