"""Which invoices can be a charge whose response was lost, and what their absence proves."""

from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.charging.journal import ChargeIntent
from airflow_provider_cfbilling.charging.reconcile import (
    ReconcileResult,
    find_candidate_invoices,
    snapshot_invoices,
)
from airflow_provider_cfbilling.sandbox import Sandbox

AT = 1_772_445_600.0


def intent(sandbox: Sandbox, amount_cents: int = 2000, *known: str) -> ChargeIntent:
    return ChargeIntent(sandbox.account_id, amount_cents, AT, AT, known)


def matches(sandbox: Sandbox, client: CfBillingClient, **details: Any) -> bool:
    """Return whether the only invoice there is can be the charge."""
    invoice = sandbox.add_invoice(**{"amount_cents": 2000, "created": AT + 10} | details)
    found = ids(find_candidate_invoices(client, intent(sandbox)))
    assert found in ([], [invoice.id])
    return bool(found)


def ids(found: ReconcileResult) -> list[str | None]:
    return [invoice.id for invoice in found.candidates]


def suspects(found: ReconcileResult) -> list[str | None]:
    return [invoice.id for invoice in found.suspects]


@pytest.mark.parametrize(
    ("after", "ours"), [(-3600, False), (-6, False), (-5, True), (0, True), (1, True), (86_400, True)]
)
def test_charge_is_no_older_than_its_intent_but_for_clocks(
    sandbox: Sandbox, client: CfBillingClient, after: float, ours: bool
):
    assert matches(sandbox, client, created=AT + after) is ours


@pytest.mark.parametrize(
    ("due_cents", "ours"),
    [(0, False), (1999, False), (2000, True), (2380, True), (2540, True), (2700, True), (2701, False)],
)
def test_charge_is_the_requested_amount_and_at_most_the_highest_tax(
    sandbox: Sandbox, client: CfBillingClient, due_cents: int, ours: bool
):
    assert matches(sandbox, client, amount_due_cents=due_cents) is ours


@pytest.mark.parametrize("status", ["draft", "open", "paid", "void", "uncollectible"])
def test_charge_is_found_whatever_became_of_it(sandbox: Sandbox, client: CfBillingClient, status: Any):
    assert matches(sandbox, client, status=status)


def test_automatic_topup_is_not_the_charge(sandbox: Sandbox, client: CfBillingClient):
    assert not matches(sandbox, client, origin="auto")


@pytest.mark.parametrize("without", ["id", "created"])
def test_unidentifiable_invoice_is_no_match_and_leaves_it_unproven(
    sandbox: Sandbox, client: CfBillingClient, without: str
):
    sandbox.add_invoice(2000, created=AT + 10, without=without)
    found = find_candidate_invoices(client, intent(sandbox))
    assert (found.candidates, found.complete) == ((), False)


def test_invoice_that_was_there_before_is_not_the_charge(sandbox: Sandbox, client: CfBillingClient):
    before = sandbox.add_invoice(2000, created=AT).id
    ours = sandbox.add_invoice(2000, created=AT + 1).id
    assert ids(find_candidate_invoices(client, intent(sandbox, 2000, before))) == [ours]


def test_all_that_can_be_the_charge_are_named(sandbox: Sandbox, client: CfBillingClient):
    ours = {sandbox.add_invoice(amount, created=AT + 1).id for amount in (2000, 2000, 2500)}
    assert set(ids(find_candidate_invoices(client, intent(sandbox)))) == ours


def test_without_an_intent_the_newest_invoices_are_seen_and_none_matches(
    sandbox: Sandbox, client: CfBillingClient
):
    known = [sandbox.add_invoice(2000, created=AT + number).id for number in range(3)]
    sandbox.add_invoice(2000, origin="auto")
    found = snapshot_invoices(client)
    assert (found.candidates, found.complete) == ((), True)
    assert sorted(found.invoices) == sorted(known)


def test_absence_is_proof_only_if_the_history_reaches_back(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(per_page=2, page_parameter="ignored")
    for number in range(3):
        sandbox.add_invoice(9000, created=AT + number)
    assert not find_candidate_invoices(client, intent(sandbox)).complete
    sandbox.configure(page_parameter="honored")
    assert find_candidate_invoices(client, intent(sandbox)).complete


def test_found_is_dated_by_the_clock_of_cloudflare(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure_server(clock_offset_seconds=86_400)
    at = snapshot_invoices(client).at
    assert at == pytest.approx(sandbox.requests()[-1].at, abs=5)


def test_search_only_reads(sandbox: Sandbox, client: CfBillingClient):
    find_candidate_invoices(client, intent(sandbox))
    assert {request.method for request in sandbox.requests()} == {"GET"}


@pytest.mark.parametrize("due_cents", [0, 1999])
@pytest.mark.parametrize("status", ["draft", "open", "paid", "void"])
def test_invoice_due_with_less_may_be_the_charge(
    sandbox: Sandbox, client: CfBillingClient, due_cents: int, status: Any
):
    """Account credit, a coupon, a draft that is not final."""
    less = sandbox.add_invoice(2000, created=AT + 1, amount_due_cents=due_cents, status=status).id
    found = find_candidate_invoices(client, intent(sandbox))
    assert (ids(found), suspects(found)) == ([], [less])
    assert find_candidate_invoices(client, intent(sandbox, 2000, less)).suspects == ()


def test_invoice_due_with_far_more_cannot_be_the_charge(sandbox: Sandbox, client: CfBillingClient):
    sandbox.add_invoice(2701, created=AT + 1)
    found = find_candidate_invoices(client, intent(sandbox))
    assert (ids(found), suspects(found)) == ([], [])


def test_any_amount_may_be_the_charge_of_a_try_without_record(sandbox: Sandbox, client: CfBillingClient):
    """What it requested is not known: a template may have rendered another amount."""
    more = sandbox.add_invoice(2701, created=AT + 1).id
    found = find_candidate_invoices(client, intent(sandbox), is_recorded=False)
    assert (ids(found), suspects(found)) == ([], [more])


@pytest.mark.parametrize("due_cents", [1500, 2000, 27_500])
def test_amount_in_another_currency_may_be_the_charge(
    sandbox: Sandbox, client: CfBillingClient, due_cents: int
):
    sandbox.configure(currency="sek")
    other = sandbox.add_invoice(2000, created=AT + 1, amount_due_cents=due_cents).id
    found = find_candidate_invoices(client, intent(sandbox))
    assert (ids(found), suspects(found)) == ([], [other])


@pytest.mark.parametrize("currency", ["usd", "USD"])
def test_currency_of_the_request_is_us_dollars(sandbox: Sandbox, client: CfBillingClient, currency: str):
    sandbox.configure(currency=currency)
    assert matches(sandbox, client)


def test_fields_that_nothing_rests_on_may_be_missing(sandbox: Sandbox, client: CfBillingClient):
    assert matches(sandbox, client, without="amount_paid,amount_remaining,currency")


@pytest.mark.parametrize("status", ["void", "uncollectible"])
@pytest.mark.parametrize("amount_cents", [1500, 2000])
def test_dead_invoice_of_a_denied_charge_is_ignored(
    sandbox: Sandbox, client: CfBillingClient, status: Any, amount_cents: int
):
    sandbox.add_invoice(amount_cents, created=AT + 1, status=status)
    found = find_candidate_invoices(client, intent(sandbox), ignore_dead=True)
    assert (ids(found), suspects(found)) == ([], [])


@pytest.mark.parametrize(("after", "ours"), [(65, True), (66, False)])
def test_charge_that_was_given_up_is_no_younger_than_that(
    sandbox: Sandbox, client: CfBillingClient, after: int, ours: bool
):
    sandbox.add_invoice(2000, created=AT + after)
    sandbox.add_invoice(1500, created=AT + after)
    found = find_candidate_invoices(client, intent(sandbox), until=AT + 60)
    assert (len(found.candidates), len(found.suspects)) == ((1, 1) if ours else (0, 0))


def test_history_that_shows_a_known_invoice_reaches_back(sandbox: Sandbox, client: CfBillingClient):
    """The worker's clock was years behind when the intent was written."""
    sandbox.configure(per_page=2)
    known = [sandbox.add_invoice(9000, created=AT + number).id for number in range(3)]
    behind = ChargeIntent(sandbox.account_id, 2000, AT + 10, AT - 1e8, tuple(known))
    assert find_candidate_invoices(client, behind).complete
    for number in range(2):
        sandbox.add_invoice(9000, created=AT + 20 + number)
    assert not find_candidate_invoices(client, behind).complete


@pytest.mark.parametrize("status", [400, 404, 503])
def test_page_parameter_that_is_refused_leaves_the_first_page(
    sandbox: Sandbox, client: CfBillingClient, status: int
):
    sandbox.configure(per_page=2, page_parameter="honored")
    for number in range(3):
        sandbox.add_invoice(9000, created=AT + number)
    ours = sandbox.add_invoice(2000, created=AT + 10).id
    sandbox.fault("getInvoiceHistory", "status", status=status, skip=1, times=None)
    found = find_candidate_invoices(client, intent(sandbox))
    assert (ids(found), found.complete) == ([ours], False)
