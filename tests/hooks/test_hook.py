"""The hook: Airflow's connection on one side, the API's responses on the other."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSkipException

from airflow_provider_cfbilling.api import errors, models
from airflow_provider_cfbilling.charging import endings as charging
from airflow_provider_cfbilling.errors import airflow_errors
from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook
from airflow_provider_cfbilling.operators.cfbilling import (
    CfBillingCreateTopupOperator,
    CfBillingGetCreditBalanceOperator,
)
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.models import GLOBAL_API_KEY, GLOBAL_EMAIL, READ_TOKEN
from airflow_provider_cfbilling.sensors.cfbilling import CfBillingCreditBalanceSensor
from tests.raw_servers import ok, refused, refusing_port

DAY = datetime(2026, 3, 1, tzinfo=UTC)
OTHER_ACCOUNT_ID = "f" * 32


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give the default connection another URI."""

    def connect(uri: str) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", uri)

    return connect


@pytest.mark.parametrize(
    ("call", "operation", "query", "kind"),
    [
        (lambda hook: hook.create_topup(1000), "createTopup", "", models.Topup),
        (lambda hook: hook.create_topup(1000, "pm_sandbox_second"), "createTopup", "", models.Topup),
        (lambda hook: hook.get_topup_config(), "getTopupConfig", "", models.TopupConfig),
        (lambda hook: hook.get_topup_limits(), "getTopupEligibility", "", models.TopupLimits),
        (lambda hook: hook.get_credit_balance(), "getCreditBalance", "", models.CreditBalance),
        (lambda hook: hook.get_invoice_history(), "getInvoiceHistory", "type=all", models.InvoiceHistory),
        (
            lambda hook: hook.get_invoice_history("auto"),
            "getInvoiceHistory",
            "type=auto",
            models.InvoiceHistory,
        ),
        (lambda hook: hook.get_invoice_preview(), "getInvoicePreview", "", models.InvoicePreview),
        (
            lambda hook: hook.get_usage_history("day", DAY, DAY),
            "getUsageHistory",
            "value_grouping_window=day&start_time=1772323200000&end_time=1772323200000",
            models.UsageHistory,
        ),
        (lambda hook: hook.get_spending_limit(), "getSpendingLimit", "", models.SpendingLimit),
    ],
)
def test_method_sends_one_request_and_returns_a_dataclass(
    sandbox: Sandbox, call: Callable[[CfBillingHook], Any], operation: str, query: str, kind: type
):
    result = call(CfBillingHook())

    assert type(result) is kind
    assert json.dumps(result.to_dict())
    (request,) = sandbox.requests()
    assert (request.operation, request.query) == (operation, query)


def test_topup_status_is_queried_by_id(sandbox: Sandbox):
    hook = CfBillingHook()
    topup = hook.create_topup(1000)
    status = hook.get_topup_status(topup.payment_intent_id)
    assert type(status) is models.TopupStatus
    assert status.payment_intent_id == topup.payment_intent_id


def test_account_id_of_the_hook_wins(sandbox: Sandbox):
    sandbox.configure(OTHER_ACCOUNT_ID, token=sandbox.token, balance_cents=77.0)
    hook = CfBillingHook(account_id=OTHER_ACCOUNT_ID)
    assert hook.get_conn().account_id == OTHER_ACCOUNT_ID
    assert hook.get_credit_balance().balance_cents == 77


def test_client_of_another_account_uses_the_same_connection(sandbox: Sandbox):
    sandbox.configure(OTHER_ACCOUNT_ID, token=sandbox.token, balance_cents=77.0)
    hook = CfBillingHook()
    assert hook.get_client(sandbox.account_id) is hook.get_conn()
    assert hook.get_client(OTHER_ACCOUNT_ID).get_credit_balance().balance_cents == 77
    with pytest.raises(errors.CfBillingInvalidRequestError, match="account id must be 32 hex digits"):
        hook.get_client("somewhere else")


def test_another_connection_can_be_named(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_SECOND", sandbox.connection_uri(token=READ_TOKEN))
    hook = CfBillingHook("second")
    assert hook.get_topup_limits().currency == "usd"
    with pytest.raises(errors.CfBillingPermissionError, match='"AI Gateway Write"'):
        hook.create_topup(1000)
    assert sandbox.charges() == []


def test_hook_keeps_its_client_and_thereby_its_connections(sandbox: Sandbox):
    hook = CfBillingHook()
    assert hook.get_conn() is hook.get_conn()


def test_no_object_shows_the_secret(sandbox: Sandbox, connect: Callable[[str], None]):
    token = "planted-token-58aa"
    connect(sandbox.connection_uri(token=token))
    hook, balance = CfBillingHook(), CfBillingGetCreditBalanceOperator(task_id="balance")
    with pytest.raises(errors.CfBillingAuthenticationError) as refused_read:
        hook.get_credit_balance()
    with pytest.raises(AirflowFailException) as failed_task:
        balance.execute({})  # type: ignore[arg-type]
    client = hook.get_conn()
    assert client._settings.secret == token  # it is there, and not shown
    objects = [
        *(hook, client, client._settings, client._transport, balance, balance.hook),
        *(refused_read.value, failed_task.value, failed_task.value.__cause__),
        CfBillingCreateTopupOperator(task_id="topup", amount_cents=1000),
        CfBillingCreditBalanceSensor(task_id="sensor", below_cents=1, deferrable=True).trigger(),
    ]
    for shown in objects:
        assert token not in f"{shown} {shown!r}"
        assert token not in repr({**vars(shown), "secret": None})


# test_connection


@pytest.mark.parametrize(
    ("switches", "said"),
    [
        ({"action": "recover"}, "Auto top-up: active, $20.00 below $5.00."),
        ({"action": "unset", "style": "null"}, "Auto top-up: not set up."),
        ({"action": "unset", "style": "zero"}, "Auto top-up: not set up."),
        ({"action": "break", "error": "card_declined"}, "Auto top-up: failing (card_declined)."),
        ({"action": "disable", "reason": "fraud"}, "Auto top-up: switched off by Cloudflare (fraud)."),
    ],
)
def test_working_connection_shows_balance_and_auto_topup(
    sandbox: Sandbox, switches: dict[str, Any], said: str
):
    sandbox.configure(balance_cents=123_456.78)
    sandbox.auto_topup(**switches)

    assert CfBillingHook().test_connection() == (True, f"Connected. Balance: $1,234.57. {said}")


def test_auto_topup_error_is_shown_as_one_bounded_line(sandbox: Sandbox):
    config = {"amount": 1, "threshold": 1, "error": "no\r\n\x1b[31mfunds " + "x" * 10_000}
    balance = {"balance": 1, "has_default_payment_method": True, "topup_config": config}
    sandbox.fault("getCreditBalance", "garbage", body=json.dumps(ok(balance)))
    well, message = CfBillingHook().test_connection()
    assert well
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.parametrize(("balance_cents", "said"), [(640.19, "$6.40"), (0.0, "$0.00"), (-250.0, "-$2.50")])
def test_balance_is_shown_in_dollars(sandbox: Sandbox, balance_cents: float, said: str):
    sandbox.configure(balance_cents=balance_cents)
    assert f"Balance: {said}." in CfBillingHook().test_connection()[1]


def test_testing_a_connection_only_reads(sandbox: Sandbox):
    CfBillingHook().test_connection()
    assert [(request.method, request.operation) for request in sandbox.requests()] == [
        ("GET", "getCreditBalance")
    ]
    assert sandbox.charges() == []


def test_connection_with_a_global_api_key_works(sandbox: Sandbox, connect: Callable[[str], None]):
    connect(f"{sandbox.connection_uri(token=GLOBAL_API_KEY)}?email={quote(GLOBAL_EMAIL)}")
    assert CfBillingHook().test_connection()[0]


@pytest.mark.parametrize(
    ("account_id", "token", "said"),
    [
        ("0123", None, "account id must be 32 hex digits"),
        (None, "wrong-token", "Cloudflare refused the credentials: Invalid access token"),
        (OTHER_ACCOUNT_ID, None, "Unauthorized to access requested resource"),
    ],
)
def test_wrong_connection_learns_what_is_wrong(
    sandbox: Sandbox, connect: Callable[[str], None], account_id: str | None, token: str | None, said: str
):
    connect(sandbox.connection_uri(account_id, token))
    well, message = CfBillingHook().test_connection()
    assert not well
    assert said in message
    assert (token or sandbox.token) not in message


@pytest.mark.parametrize("code", [10403, 10000])
def test_missing_permission_is_named(sandbox: Sandbox, code: int):
    body = json.dumps(refused(code, "Forbidden"))
    sandbox.fault("getCreditBalance", "status", status=403, body=body)
    well, message = CfBillingHook().test_connection()
    assert not well
    assert '"AI Gateway Read"' in message
    assert f"HTTP 403, code {code}" in message


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "status", "status": 503, "html": True}, "Cloudflare could not respond"),
        ({"kind": "garbage", "body": "<html>"}, "Check the API base URL"),
        ({"kind": "redirect"}, "redirect"),
        ({"kind": "reset"}, "No response from"),
        ({"kind": "status", "status": 404}, "Cloudflare did not find this"),
    ],
)
def test_connection_is_tested_with_a_single_request(sandbox: Sandbox, fault: dict[str, Any], said: str):
    sandbox.fault("getCreditBalance", **fault, times=None)
    well, message = CfBillingHook().test_connection()
    assert not well
    assert said in message
    assert len(sandbox.requests()) == 1


def test_host_that_cannot_be_reached_is_named(connect: Callable[[str], None]):
    with refusing_port() as port:
        connect(f"cfbilling://{'0' * 32}:token@{quote(f'http://127.0.0.1:{port}/v4', safe='')}")
        well, message = CfBillingHook().test_connection()
    assert not well
    assert f"No response from http://127.0.0.1:{port}/v4" in message
    assert "Connection refused" in message


# what Airflow acts on

FAILS_FOR_GOOD = [
    errors.CfBillingInvalidRequestError,
    errors.CfBillingAuthenticationError,
    errors.CfBillingPermissionError,
    errors.CfBillingNotFoundError,
    errors.CfBillingOutcomeUnknownError,
    charging.ManualReviewRequiredError,
    charging.PaymentFailedError,
    errors.CfBillingError,
    errors.CfBillingPaymentDeclinedError,
]
MAY_BE_TRIED_AGAIN = [
    errors.CfBillingRateLimitError,
    errors.CfBillingUnavailableError,
    errors.CfBillingNotSentInTimeError,
    errors.CfBillingMalformedResponseError,
    charging.NotChargedError,
    charging.RecordError,
    charging.SupersededError,
    charging.StillPendingError,
]


@pytest.mark.parametrize("kind", [*FAILS_FOR_GOOD, *MAY_BE_TRIED_AGAIN])
def test_api_error_becomes_an_airflow_error(kind: type[errors.CfBillingError]):
    error = kind("It broke", status=400, codes=[7], request_id="8a-AMS")

    with pytest.raises(AirflowException) as caught, airflow_errors():
        raise error

    assert isinstance(caught.value, AirflowFailException) == (kind in FAILS_FOR_GOOD)
    assert str(caught.value).endswith("It broke (HTTP 400, code 7, cf-ray 8a-AMS)")
    assert caught.value.__cause__ is error


def test_balance_that_is_enough_skips_the_task():
    with pytest.raises(AirflowSkipException, match="it is enough"), airflow_errors():
        raise charging.TopupNotNeeded("it is enough")


def test_lost_topup_response_fails_without_a_second_charge(sandbox: Sandbox):
    sandbox.fault("createTopup", "reset", "after")
    with pytest.raises(AirflowFailException, match="is not known"), airflow_errors():
        CfBillingHook().create_topup(1000)
    assert len(sandbox.charges()) == len(sandbox.requests("createTopup")) == 1


def test_other_errors_pass_through():
    with pytest.raises(KeyError), airflow_errors():
        raise KeyError("mine")
