"""What the tests of the one call that charges share."""

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingError,
    CfBillingOutcomeUnknownError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.sandbox import Sandbox

TOPUP = {"client_secret": "seti_hidden_secret", "onboarding": True, "payment_intent_id": "in_1"}
BALANCE = {
    "balance": 0,
    "has_default_payment_method": True,
    "payment_method": None,
    "topup_config": {"amount": None, "threshold": None},
}
SERVER_ERRORS = [500, 502, 503, 504, *range(520, 528)]
REDIRECTS = [301, 302, 303, 307, 308]


def error_of(client: CfBillingClient) -> CfBillingError:
    with pytest.raises(CfBillingError) as caught:
        client.create_topup(1000)
    return caught.value


def assert_unknown(sandbox: Sandbox, client: CfBillingClient, charged: int) -> None:
    error = error_of(client)
    assert type(error) is CfBillingOutcomeUnknownError
    assert "is not known" in str(error)
    assert len(sandbox.requests("createTopup")) == 1
    assert len(sandbox.charges()) == charged


def assert_nothing_sent(error: CfBillingError) -> None:
    assert type(error) is CfBillingUnavailableError
    assert "Nothing was sent" in str(error)
