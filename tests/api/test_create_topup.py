"""The one call that charges a card: accepted, or refused in a way that proves that nothing was charged."""

import json
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingNotFoundError,
    CfBillingOutcomeUnknownError,
    CfBillingPaymentDeclinedError,
    CfBillingPermissionError,
    CfBillingRateLimitError,
)
from airflow_provider_cfbilling.api.models import Topup
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.models import READ_TOKEN
from tests.api.charges import (
    TOPUP,
    error_of,
)
from tests.raw_servers import (
    client_of,
    ok,
    refused,
)

# accepted


def test_topup_is_returned_without_client_secret(sandbox: Sandbox, client: CfBillingClient):
    topup = client.create_topup(2500, "pm_sandbox_second")

    (charge,) = sandbox.charges()
    assert topup == Topup(charge.invoice_id, onboarding=True, brand="mastercard", last4="4444")
    assert charge.amount_cents == 2500
    assert "secret" not in repr(topup) + json.dumps(topup.to_dict())


@pytest.mark.parametrize(
    "details",
    [
        {"client_secret": None},
        {"brand": None, "last4": None},
        {"brand": 4242, "last4": 4242, "onboarding": "yes"},
        {"onboarding": None, "unknown": {"deep": [1]}},
    ],
)
def test_accepted_topup_needs_nothing_but_its_id(sandbox: Sandbox, client: CfBillingClient, details: dict):
    sandbox.fault("createTopup", "garbage", when="after", body=json.dumps(ok(TOPUP | details)))

    topup = client.create_topup(1000)

    assert topup.payment_intent_id == "in_1"
    assert (topup.brand, topup.last4) == (None, None)
    assert topup.onboarding in (True, None)


# refused here, before any request


@pytest.mark.parametrize("amount", [999, 0, -1000, True, 1000.5, "999", "1000 cents", None, 1e999])
def test_invalid_amount_is_refused_before_any_request(sandbox: Sandbox, client: CfBillingClient, amount: Any):
    with pytest.raises(CfBillingInvalidRequestError, match="amount_cents must be"):
        client.create_topup(amount)
    assert sandbox.requests() == []


@pytest.mark.parametrize("payment_method_id", ["pm card", "pm\n1", "pm/1", "pm_ä", 7, b"pm_1"])
def test_invalid_payment_method_is_refused_before_any_request(
    sandbox: Sandbox, client: CfBillingClient, payment_method_id: Any
):
    with pytest.raises(CfBillingInvalidRequestError, match="payment_method_id must be an id"):
        client.create_topup(1000, payment_method_id)
    assert sandbox.requests() == []


# refused by Cloudflare in its own words: proven not charged


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, 7001, CfBillingInvalidRequestError),
        (401, 10000, CfBillingAuthenticationError),
        (402, 7103, CfBillingPaymentDeclinedError),
        (403, 9109, CfBillingAuthenticationError),
        (403, 10403, CfBillingPermissionError),
        (404, 7003, CfBillingNotFoundError),
        (405, 7405, CfBillingInvalidRequestError),
        (413, 1, CfBillingInvalidRequestError),
        (415, 1, CfBillingInvalidRequestError),
        (422, 1, CfBillingInvalidRequestError),
        (429, 10429, CfBillingRateLimitError),
    ],
)
def test_refusal_in_json_proves_that_nothing_was_charged(
    sandbox: Sandbox, client: CfBillingClient, status: int, code: int, kind: type[CfBillingError]
):
    sandbox.fault("createTopup", "status", status=status, body=json.dumps(refused(code, "No way")))

    error = error_of(client)

    assert type(error) is kind
    assert (error.status, error.codes) == (status, (code,))
    assert "No way" in str(error)
    assert f"cf-ray {error.request_id}" in str(error)
    assert len(sandbox.requests("createTopup")) == 1
    assert sandbox.charges() == []


DENIED = (400, 401, 402, 403, 404, 405, 413, 415, 422, 429)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("status", [status for status in range(400, 500) if status not in DENIED])
def test_4xx_that_does_not_deny_proves_nothing(
    sandbox: Sandbox, client: CfBillingClient, status: int, when: Any
):
    """A gateway that has given up, a conflict, and what is not known: the charge may have been made."""
    sandbox.fault("createTopup", "status", when, status=status, body=json.dumps(refused(1, "Gave up")))
    error = error_of(client)
    assert type(error) is CfBillingOutcomeUnknownError
    assert error.status == status
    assert "othing was charged" not in str(error)
    assert len(sandbox.charges()) == (when == "after")


def test_declined_card_says_what_to_do(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(topup_outcome="declined")
    error = error_of(client)
    assert type(error) is CfBillingPaymentDeclinedError
    assert str(error).startswith(
        "The payment method was declined: Your card was declined (card_declined). Nothing"
    )
    assert "set another card on the AI Gateway page of the Cloudflare dashboard" in str(error)


def test_declined_card_is_proven_not_charged(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(topup_outcome="declined")

    assert "Your card was declined" in str(error_of(client))
    assert sandbox.charges() == []


def test_read_only_token_learns_which_permission_is_missing(sandbox: Sandbox):
    with client_of(sandbox, secret=READ_TOKEN) as client:
        error = error_of(client)

    assert type(error) is CfBillingPermissionError
    assert '"AI Gateway Write"' in str(error)
    assert sandbox.charges() == []
