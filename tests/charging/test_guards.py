"""What is checked before a card is charged: nothing is charged by checking, and nothing is guessed."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.charging.endings import TopupNotNeeded
from airflow_provider_cfbilling.charging.guards import check_order, period_start
from airflow_provider_cfbilling.charging.order import BUDGET_PERIODS, TopupOrder
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.raw_servers import Peer, RawServer, client_at, http, ok

LIMITS = {"manual_topup": {"limits": {"min_cents": 1000, "max_cents": 100_000, "currency": "usd"}}}
LOG = logging.getLogger("cfbilling.checks")


@pytest.fixture(autouse=True)
def _charges_nothing(sandbox: Sandbox) -> Iterator[None]:
    yield
    assert sandbox.charges() == []
    assert sandbox.requests("createTopup") == []


def check(client: CfBillingClient, amount_cents: int = 1000, **conditions: Any) -> None:
    check_order(client, TopupOrder(amount_cents, **conditions), LOG)


def in_period(period: Any) -> float:
    """Unix time in the period that lies as far back as it can."""
    return period_start(period, datetime.now(UTC)).timestamp()


# limits and payment method


@pytest.mark.parametrize(("amount_cents", "allowed"), [(1999, 0), (2000, 1), (5000, 1), (5001, 0)])
def test_amount_must_lie_within_the_limits_of_the_account(
    sandbox: Sandbox, client: CfBillingClient, amount_cents: int, allowed: int
):
    sandbox.configure(min_cents=2000, max_cents=5000)
    if allowed:
        check(client, amount_cents)
        return
    with pytest.raises(CfBillingInvalidRequestError) as caught:
        check(client, amount_cents)
    assert str(caught.value) == (
        f"amount_cents is {amount_cents} cents (${amount_cents / 100:.2f}), but this account may top up from "
        "2000 cents ($20.00) to 5000 cents ($50.00) at once. Nothing was charged."
    )


def test_account_without_a_card_is_refused_unless_one_is_given(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(default_payment_method=None)
    with pytest.raises(CfBillingInvalidRequestError, match=r"no default payment method\. Nothing was"):
        check(client)
    check(client, payment_method_id="pm_sandbox_second")


# balance


@pytest.mark.parametrize(
    ("balance_cents", "enough"),
    [(-10.0, False), (499.99, False), (500.0, True), (500.01, True), (9999.0, True)],
)
@pytest.mark.parametrize("payment_method_id", [None, "pm_sandbox_second"])
def test_balance_must_be_below_the_line(
    sandbox: Sandbox,
    client: CfBillingClient,
    balance_cents: float,
    enough: bool,
    payment_method_id: str | None,
):
    sandbox.configure(balance_cents=balance_cents)
    order = {"only_if_balance_below_cents": 500, "payment_method_id": payment_method_id}
    if enough:
        with pytest.raises(TopupNotNeeded, match=r"is not below 500 cents \(\$5\.00\). Nothing was charged"):
            check(client, **order)
    else:
        check(client, **order)


def test_enough_balance_is_reported_even_if_a_charge_would_be_refused(
    sandbox: Sandbox, client: CfBillingClient
):
    sandbox.configure(balance_cents=500.0, default_payment_method=None, max_cents=1000)
    with pytest.raises(TopupNotNeeded):
        check(client, 5000, only_if_balance_below_cents=500)


# runway


@pytest.mark.parametrize(("days", "enough"), [(9.5, True), (10.5, False)])
def test_runway_must_be_below_the_line(sandbox: Sandbox, client: CfBillingClient, days: float, enough: bool):
    sandbox.configure(balance_cents=2500, spend_per_day_cents=250)
    if enough:
        with pytest.raises(TopupNotNeeded, match=r"lasts .* days.* That is not below 9.5 days. Nothing was"):
            check(client, only_if_runway_below_days=days)
    else:
        check(client, only_if_runway_below_days=days)
    assert len(sandbox.requests("getCreditBalance")) == 1


def test_credits_that_are_not_spent_last(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(balance_cents=1, spend_per_day_cents=0)
    with pytest.raises(TopupNotNeeded, match="nothing was spent in the last seven days"):
        check(client, only_if_runway_below_days=365)


def test_both_guards_must_hold(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(balance_cents=2500, spend_per_day_cents=250)
    both = {"only_if_runway_below_days": 14, "only_if_balance_below_cents": 2500}
    with pytest.raises(TopupNotNeeded):
        check(client, **both)
    check(client, **{**both, "only_if_balance_below_cents": 2501})


def test_usage_that_cannot_be_read_stops_what_depends_on_it(sandbox: Sandbox, client: CfBillingClient):
    sandbox.fault("getUsageHistory", "status", status=404, times=None)
    with pytest.raises(CfBillingError):
        check(client, only_if_runway_below_days=14)
    check(client)


# budget


@pytest.mark.parametrize("period", BUDGET_PERIODS)
@pytest.mark.parametrize(("budget_cents", "allowed"), [(6649, False), (6650, True)])
def test_budget_counts_all_invoices_of_its_period_and_this_topup(
    sandbox: Sandbox, client: CfBillingClient, period: Any, budget_cents: int, allowed: bool
):
    start = in_period(period)
    sandbox.add_invoice(1000, created=start, status="paid")
    sandbox.add_invoice(2000, created=start, origin="auto", status="open")
    sandbox.add_invoice(400, created=start, status="draft")
    sandbox.add_invoice(100, created=start, without="status")
    sandbox.add_invoice(70_000, created=start, status="void")
    sandbox.add_invoice(80_000, created=start, origin="auto", status="uncollectible")
    sandbox.add_invoice(90_000, created=start - 1)

    if allowed:
        check(client, 3000, budget_cents=budget_cents, budget_period=period)
        return
    with pytest.raises(CfBillingInvalidRequestError) as caught:
        check(client, 3000, budget_cents=budget_cents, budget_period=period)
    assert str(caught.value) == (
        f"The budget is 6649 cents ($66.49) a {period}. Since {datetime.fromtimestamp(start, UTC):%Y-%m-%d} "
        "(UTC) 3500 cents ($35.00) were charged, so 3000 cents ($30.00) more, 3150 cents ($31.50) with "
        "Cloudflare's fee of 5 %, would exceed it. Nothing was charged."
    )


@pytest.mark.parametrize(("budget_cents", "allowed"), [(2239, False), (2240, True)])
def test_budget_counts_what_was_due_with_tax(
    sandbox: Sandbox, client: CfBillingClient, budget_cents: int, allowed: bool
):
    sandbox.add_invoice(1000, amount_due_cents=1190)
    if allowed:
        check(client, budget_cents=budget_cents, budget_period="month")
        return
    with pytest.raises(CfBillingInvalidRequestError, match="would exceed it"):
        check(client, budget_cents=budget_cents, budget_period="month")


@pytest.mark.parametrize(("budget_cents", "allowed"), [(6049, False), (6050, True)])
def test_budget_is_added_up_over_several_pages(
    sandbox: Sandbox, client: CfBillingClient, budget_cents: int, allowed: bool
):
    sandbox.configure(per_page=2, page_parameter="honored")
    for _ in range(5):
        sandbox.add_invoice(1000, created=in_period("month"))
    if allowed:
        check(client, budget_cents=budget_cents, budget_period="month")
    else:
        with pytest.raises(CfBillingInvalidRequestError, match=r"5000 cents \(\$50\.00\) were charged"):
            check(client, budget_cents=budget_cents, budget_period="month")
    assert len(sandbox.requests("getInvoiceHistory")) == 3


def test_history_is_read_no_further_than_the_period_reaches(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(per_page=2, page_parameter="honored")
    for days in range(10):
        sandbox.add_invoice(1000, created=in_period("day") - 86_400 * days)

    check(client, budget_cents=2050, budget_period="day")

    assert len(sandbox.requests("getInvoiceHistory")) == 1


def test_api_without_paging_suffices_if_its_first_page_reaches_back(
    sandbox: Sandbox, client: CfBillingClient
):
    sandbox.configure(per_page=2, page_parameter="ignored")
    for days in range(4):
        sandbox.add_invoice(1000, created=in_period("day") - 86_400 * days)
    check(client, budget_cents=2050, budget_period="day")


@pytest.mark.parametrize(
    ("account", "invoices", "requests"),
    [
        ({"per_page": 2, "page_parameter": "ignored"}, 3, 2),
        ({"per_page": 1, "page_parameter": "honored"}, 11, 10),
    ],
    ids=["page is ignored", "too many pages"],
)
def test_history_that_does_not_reach_back_is_refused(
    sandbox: Sandbox, client: CfBillingClient, account: dict[str, Any], invoices: int, requests: int
):
    sandbox.configure(**account)
    for _ in range(invoices):
        sandbox.add_invoice(1000, created=in_period("month"))
    with pytest.raises(CfBillingInvalidRequestError, match=r"does not reach back to \d{4}-\d\d-01 \(UTC\)"):
        check(client, budget_cents=1_000_000, budget_period="month")
    assert len(sandbox.requests("getInvoiceHistory")) == requests


@pytest.mark.parametrize("without", ["id", "created"])
@pytest.mark.parametrize("status", ["paid", "void"])
def test_invoice_without_id_or_date_is_refused(
    sandbox: Sandbox, client: CfBillingClient, without: str, status: Any
):
    sandbox.add_invoice(1000, without=without, status=status)
    with pytest.raises(CfBillingInvalidRequestError, match="without id or date") as caught:
        check(client, budget_cents=1_000_000, budget_period="day")
    assert "Nothing was charged" in str(caught.value)
    assert sandbox.requests("getInvoiceHistory")


def history(page: int, invoices: list[tuple[str, float]], has_more: bool) -> dict[str, Any]:
    listed = [
        {"id": id, "created": created, "status": "paid", "currency": "usd"}
        | {"amount_due": 1000, "amount_paid": 1000, "amount_remaining": 0}
        for id, created in invoices
    ]
    more = {"has_more": has_more, "page": page, "per_page": len(listed), "total_count": 99}
    return {"invoices": listed, "pagination": more}


def check_against(pages: dict[int, dict[str, Any]], **conditions: Any) -> int:
    """Check an order against a history that no sandbox serves; return how many pages were requested."""
    requested = 0

    def serve(peer: Peer) -> None:
        nonlocal requested
        while True:
            peer.request()
            path = peer.path()
            number = int(path.partition("&page=")[2] or 1)
            requested += "/invoice-history" in path
            peer.send(http(ok(pages[number] if "/invoice-history" in path else LIMITS)))

    with RawServer(serve) as server, client_at(server.url) as client:
        check(client, payment_method_id="pm_1", budget_period="day", **conditions)
    return requested


def test_invoice_that_moves_on_to_the_next_page_is_counted_once():
    today = in_period("day")
    pages = {
        1: history(1, [("in_3", today), ("in_2", today)], has_more=True),
        2: history(2, [("in_2", today), ("in_1", today)], has_more=False),
    }
    assert check_against(pages, budget_cents=4050) == 2
    with pytest.raises(CfBillingInvalidRequestError, match=r"3000 cents \(\$30\.00\) were charged"):
        check_against(pages, budget_cents=4049)


def test_api_that_counts_pages_from_zero_gives_its_first_page():
    today = in_period("day")
    whole = {1: history(0, [("in_1", today)], has_more=False)}
    assert check_against(whole, budget_cents=2050) == 1
    part = {1: history(0, [("in_1", today)], has_more=True), 2: history(2, [], has_more=False)}
    with pytest.raises(CfBillingInvalidRequestError, match="does not reach back"):
        check_against(part, budget_cents=1_000_000)


def test_history_that_is_not_newest_first_is_read_to_its_end():
    today = in_period("day")
    pages = {
        1: history(1, [("in_1", today - 86_400), ("in_2", today)], has_more=True),
        2: history(2, [("in_3", today), ("in_4", today)], has_more=False),
    }
    assert check_against(pages, budget_cents=4050) == 2
    with pytest.raises(CfBillingInvalidRequestError, match=r"3000 cents \(\$30\.00\) were charged"):
        check_against(pages, budget_cents=4049)


@pytest.mark.parametrize(
    ("period", "start"),
    [("day", "2026-03-05"), ("week", "2026-03-02"), ("month", "2026-03-01")],
)
@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))])
def test_period_is_a_utc_day_an_iso_week_or_a_month(period: Any, start: str, zone: timezone):
    now = datetime.fromisoformat("2026-03-05T23:59:59+00:00").astimezone(zone)  # a Thursday
    assert period_start(period, now) == datetime.fromisoformat(f"{start}T00:00:00+00:00")


@pytest.mark.parametrize("day", ["2026-03-02T00:00:00+00:00", "2026-03-08T23:59:59+00:00"])
def test_week_begins_on_monday_at_midnight(day: str):
    start = period_start("week", datetime.fromisoformat(day))
    assert start == datetime(2026, 3, 2, tzinfo=UTC)


# what cannot be read


UNREADABLE: dict[str, dict[str, Any]] = {
    "gone": {"kind": "status", "status": 404},
    "forbidden": {"kind": "status", "status": 403},
    "refused": {"kind": "status", "status": 400},
    "down": {"kind": "status", "status": 503},
    "another shape": {
        "kind": "garbage",
        "body": '{"success": true, "errors": [], "messages": [], "result": []}',
    },
}
unreadable = pytest.mark.parametrize("fault", UNREADABLE.values(), ids=UNREADABLE)


@unreadable
@pytest.mark.parametrize("operation", ["getCreditBalance", "getInvoiceHistory"])
def test_requested_guard_that_cannot_be_checked_stops_the_charge(
    sandbox: Sandbox, client: CfBillingClient, operation: str, fault: dict[str, Any]
):
    sandbox.configure(balance_cents=0.0)
    sandbox.fault(operation, **fault, times=None)
    with pytest.raises(CfBillingError):
        check(client, only_if_balance_below_cents=500, budget_cents=99_000, budget_period="day")


@unreadable
def test_optional_checks_never_stop_a_topup(
    sandbox: Sandbox, client: CfBillingClient, caplog: pytest.LogCaptureFixture, fault: dict[str, Any]
):
    for operation in ("getCreditBalance", "getTopupEligibility", "getTopupLimits"):
        sandbox.fault(operation, **fault, times=None)
    check(client)
    assert "Not checked before the charge: whether there is a default payment method" in caplog.text
    assert "Not checked before the charge: the account's limits. Cloudflare checks it too" in caplog.text


@unreadable
def test_limits_fall_back_to_the_deprecated_endpoint(
    sandbox: Sandbox, client: CfBillingClient, fault: dict[str, Any]
):
    sandbox.configure(max_cents=5000)
    sandbox.fault("getTopupEligibility", **fault, times=None)
    with pytest.raises(CfBillingInvalidRequestError, match=r"may top up from .* to 5000 cents \(\$50\.00\)"):
        check(client, 5001)


def test_budget_is_not_guessed_from_the_first_page(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(per_page=1, page_parameter="honored")
    for _ in range(2):
        sandbox.add_invoice(1000, created=in_period("day"))
    sandbox.fault("getInvoiceHistory", "status", status=503, skip=1)
    with pytest.raises(CfBillingUnavailableError):
        check(client, budget_cents=99_000, budget_period="day")
    sandbox.fault("getInvoiceHistory", "status", status=400, skip=1)
    with pytest.raises(CfBillingInvalidRequestError, match="does not reach back"):
        check(client, budget_cents=99_000, budget_period="day")


def test_only_what_is_needed_is_requested(sandbox: Sandbox, client: CfBillingClient):
    check(client, payment_method_id="pm_sandbox_second")
    assert [request.operation for request in sandbox.requests()] == ["getTopupEligibility"]
