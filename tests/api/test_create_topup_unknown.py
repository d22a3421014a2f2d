"""The one call that charges a card, with a response that proves nothing."""

import json
import logging
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingOutcomeUnknownError,
)
from airflow_provider_cfbilling.api.http import transport
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.api.charges import (
    REDIRECTS,
    SERVER_ERRORS,
    TOPUP,
    assert_unknown,
    error_of,
)
from tests.raw_servers import (
    RawServer,
    client_of,
    http,
    ok,
    refused,
    responding,
)

# responses that prove nothing


@pytest.mark.parametrize(
    ("html", "when", "charged"),
    [(False, "before", 0), (True, "after", 1)],
    ids=["json, not charged", "html, charged"],
)
@pytest.mark.parametrize("status", SERVER_ERRORS)
def test_server_error_proves_nothing(
    sandbox: Sandbox, client: CfBillingClient, status: int, html: bool, when: Any, charged: int
):
    sandbox.fault("createTopup", "status", when, status=status, html=html)

    assert_unknown(sandbox, client, charged)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429])
def test_refusal_in_html_proves_nothing(sandbox: Sandbox, client: CfBillingClient, status: int):
    sandbox.fault("createTopup", "status", "after", status=status, html=True)

    assert_unknown(sandbox, client, 1)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        json.dumps(ok(TOPUP)),
        json.dumps(refused() | {"errors": []}),
        json.dumps(refused() | {"errors": "none"}),
        json.dumps(refused() | {"result": TOPUP}),
        json.dumps(refused())[:-1] + ', "success": true}',
        json.dumps(refused(message=[1])),  # type: ignore[arg-type]
        json.dumps({"error": "not the envelope"}),
    ],
)
def test_undocumented_refusal_proves_nothing(sandbox: Sandbox, client: CfBillingClient, body: str):
    sandbox.fault("createTopup", "status", "after", status=400, body=body)

    assert_unknown(sandbox, client, 1)


@pytest.mark.parametrize(
    "body",
    [
        None,
        "",
        "null",
        "[]",
        "<html></html>",
        json.dumps(refused()),
        json.dumps({"success": True}),
        json.dumps(ok(None)),
        json.dumps(ok("in_1")),
        json.dumps(ok({})),
        json.dumps(ok(TOPUP | {"payment_intent_id": None})),
        json.dumps(ok(TOPUP | {"payment_intent_id": 1})),
        json.dumps(ok(TOPUP | {"payment_intent_id": ""})),
        json.dumps(ok(TOPUP | {"payment_intent_id": "in_1 or in_2"})),
        json.dumps(ok(TOPUP | {"payment_intent_id": "i" * 256})),
        json.dumps(ok(TOPUP)).replace("in_1", 'in_1", "payment_intent_id": "in_2'),
        json.dumps(ok(TOPUP)).replace('"in_1"', "NaN"),
        json.dumps(ok(TOPUP))[:-1] + ', "success": true}',
        json.dumps(ok(TOPUP))[:-1],
        json.dumps(ok(TOPUP)) + "{}",
        "[" * 100_000,
    ],
)
def test_acceptance_that_cannot_be_read_proves_nothing(
    sandbox: Sandbox, client: CfBillingClient, body: str | None
):
    sandbox.fault("createTopup", "garbage", "after", body=body)

    assert_unknown(sandbox, client, 1)


def test_huge_response_proves_nothing_and_is_reported(
    sandbox: Sandbox, client: CfBillingClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transport, "BODY_LIMIT_BYTES", 100_000)
    sandbox.fault("createTopup", "garbage", "after", size=1_000_000)

    error = error_of(client)

    assert type(error) is CfBillingOutcomeUnknownError
    assert str(error).startswith("The response is larger than 100000 bytes")
    assert len(sandbox.charges()) == 1


@pytest.mark.parametrize("credentials", [{}, {"email": "me@example.com"}], ids=["token", "global key"])
@pytest.mark.parametrize("same_host", [False, True], ids=["other host", "same host"])
@pytest.mark.parametrize("status", REDIRECTS)
def test_redirect_proves_nothing_and_is_not_followed(
    sandbox: Sandbox, status: int, same_host: bool, credentials: dict[str, str]
):
    with (
        RawServer(responding(http(ok(TOPUP)))) as elsewhere,
        client_of(sandbox, **credentials) as client,
    ):
        location = f"{sandbox.base_url}/elsewhere" if same_host else elsewhere.url
        sandbox.fault("createTopup", "redirect", "after", status=status, location=location)
        error = error_of(client)

    assert type(error) is CfBillingOutcomeUnknownError
    assert "redirect" in str(error)
    assert elsewhere.connections == 0
    assert len(sandbox.requests()) == 1


def test_lost_secrets_reach_no_error_or_log(
    sandbox: Sandbox, client: CfBillingClient, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    hidden = {"payment_intent_id": TOPUP, "onboarding": "seti_hidden_secret"}
    sandbox.fault("createTopup", "garbage", "after", body=json.dumps(ok(hidden)))

    error = error_of(client)

    said = f"{error} {error!r} {error.__cause__!r} {caplog.text}"
    assert "seti_hidden_secret" not in said
    assert sandbox.state()["accounts"][sandbox.account_id]["token"] not in said
