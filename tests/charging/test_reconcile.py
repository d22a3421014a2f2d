"""Which invoices can be a charge whose answer was lost, and what their absence proves."""

from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.charging.journal import Intent
from airflow_provider_cfbilling.charging.reconcile import look_for
from airflow_provider_cfbilling.sandbox import Sandbox

AT = 1_772_445_600.0


def intent(sandbox: Sandbox, amount_cents: int = 2000, *known: str) -> Intent:
    return Intent(sandbox.account_id, amount_cents, AT, known)


def matches(sandbox: Sandbox, client: CfBillingClient, **details: Any) -> bool:
    """Tell whether the only invoice there is can be the charge."""
    invoice = sandbox.add_invoice(**{"amount_cents": 2000, "created": AT + 10} | details)
    found = look_for(client, intent(sandbox)).matches
    assert found in ((), (invoice.id,))
    return bool(found)


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
def test_charge_is_the_amount_asked_for_and_at_most_the_highest_tax(
    sandbox: Sandbox, client: CfBillingClient, due_cents: int, ours: bool
):
    assert matches(sandbox, client, amount_due_cents=due_cents) is ours


@pytest.mark.parametrize("status", ["draft", "open", "paid", "void", "uncollectible"])
def test_charge_is_found_whatever_became_of_it(sandbox: Sandbox, client: CfBillingClient, status: Any):
    assert matches(sandbox, client, status=status)


def test_automatic_top_up_is_not_the_charge(sandbox: Sandbox, client: CfBillingClient):
    assert not matches(sandbox, client, origin="auto")


@pytest.mark.parametrize("without", ["id", "created"])
def test_invoice_that_cannot_be_told_is_no_match_and_leaves_it_unproven(
    sandbox: Sandbox, client: CfBillingClient, without: str
):
    sandbox.add_invoice(2000, created=AT + 10, without=without)
    sighting = look_for(client, intent(sandbox))
    assert (sighting.matches, sighting.complete) == ((), False)


def test_invoice_that_was_there_before_is_not_the_charge(sandbox: Sandbox, client: CfBillingClient):
    before = sandbox.add_invoice(2000, created=AT).id
    ours = sandbox.add_invoice(2000, created=AT + 1).id
    assert look_for(client, intent(sandbox, 2000, before)).matches == (ours,)


def test_all_that_can_be_the_charge_are_named(sandbox: Sandbox, client: CfBillingClient):
    ids = {sandbox.add_invoice(amount, created=AT + 1).id for amount in (2000, 2000, 2500)}
    assert set(look_for(client, intent(sandbox)).matches) == ids


def test_without_an_intent_the_newest_invoices_are_seen_and_none_matches(
    sandbox: Sandbox, client: CfBillingClient
):
    ids = [sandbox.add_invoice(2000, created=AT + number).id for number in range(3)]
    sandbox.add_invoice(2000, origin="auto")
    sighting = look_for(client, None)
    assert (sighting.matches, sighting.complete) == ((), True)
    assert sorted(sighting.invoices) == sorted(ids)


def test_absence_is_proof_only_where_the_history_reaches_back(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(per_page=2, ignore_page=True)
    for number in range(3):
        sandbox.add_invoice(9000, created=AT + number)
    assert not look_for(client, intent(sandbox)).complete
    sandbox.configure(ignore_page=False)
    assert look_for(client, intent(sandbox)).complete


def test_sighting_is_dated_by_the_clock_of_cloudflare(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure_server(clock_offset_seconds=86_400)
    at = look_for(client, None).at
    assert at == pytest.approx(sandbox.requests()[-1].at, abs=5)


def test_looking_reads_and_nothing_else(sandbox: Sandbox, client: CfBillingClient):
    look_for(client, intent(sandbox))
    assert {request.method for request in sandbox.requests()} == {"GET"}
