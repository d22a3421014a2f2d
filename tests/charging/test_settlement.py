"""What became of an accepted top-up."""

from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingNotFoundError, CfBillingUnavailableError
from airflow_provider_cfbilling.charging.endings import PaymentFailedError
from airflow_provider_cfbilling.charging.settlement import is_settled
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.raw_servers import eventually


@pytest.fixture(autouse=True)
def _settles_at_once(sandbox: Sandbox) -> None:
    sandbox.configure(settle_seconds=0)


def test_paid_topup_is_settled(client: CfBillingClient):
    topup = client.create_topup(1000)
    eventually(lambda: is_settled(client, topup.payment_intent_id))


@pytest.mark.parametrize(
    "account",
    [
        {"settle_seconds": 600},
        {"topup_outcome": "requires_action"},
        {"settle_seconds": 600, "history_lag_seconds": 600},
    ],
    ids=str,
)
def test_open_topup_is_not_settled(sandbox: Sandbox, client: CfBillingClient, account: dict[str, Any]):
    sandbox.configure(**account)
    topup = client.create_topup(1000)
    assert is_settled(client, topup.payment_intent_id) is False


@pytest.mark.parametrize("outcome", ["void", "uncollectible"])
def test_failed_payment_is_named_with_its_state(sandbox: Sandbox, client: CfBillingClient, outcome: str):
    sandbox.configure(topup_outcome=outcome)
    lost = client.create_topup(1000).payment_intent_id
    eventually(lambda: sandbox.charges()[0].status == outcome)

    with pytest.raises(PaymentFailedError, match=f"top-up {lost} failed: its invoice is {outcome}"):
        is_settled(client, lost)


def test_failed_payment_of_another_topup_does_not_count(sandbox: Sandbox, client: CfBillingClient):
    sandbox.add_invoice(1000, status="void")
    sandbox.configure(settle_seconds=600)
    topup = client.create_topup(1000)
    assert is_settled(client, topup.payment_intent_id) is False


def test_unknown_topup_is_not_found_and_named(sandbox: Sandbox, client: CfBillingClient):
    with pytest.raises(CfBillingNotFoundError, match="does not know top-up in_gone") as caught:
        is_settled(client, "in_gone")
    assert caught.value.status == 404


def test_status_that_is_unreadable_decides_nothing(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(settle_seconds=600)
    topup = client.create_topup(1000)
    sandbox.fault("checkTopupStatus", "status", status=503)
    with pytest.raises(CfBillingUnavailableError):
        is_settled(client, topup.payment_intent_id)


@pytest.mark.parametrize("status", [400, 403, 404, 503])
def test_status_is_what_counts_if_the_invoices_are_unreadable(
    sandbox: Sandbox, client: CfBillingClient, status: int
):
    sandbox.configure(settle_seconds=600)
    topup = client.create_topup(1000)
    sandbox.fault("getInvoiceHistory", "status", status=status)
    assert is_settled(client, topup.payment_intent_id) is False


def test_status_check_charges_nothing(sandbox: Sandbox, client: CfBillingClient):
    topup = client.create_topup(1000)
    for _ in range(3):
        is_settled(client, topup.payment_intent_id)
    assert len(sandbox.charges()) == 1
    assert len(sandbox.requests("createTopup")) == 1
