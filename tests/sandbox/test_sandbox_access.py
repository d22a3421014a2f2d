from __future__ import annotations

import time

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox

READING = [
    "topup/config",
    "topup/eligibility",
    "topup/limits",
    "credit-balance",
    "invoice-history",
    "invoice-preview",
    "spending-limit",
]
GLOBAL_KEY = {"X-Auth-Email": "sandbox@example.com", "X-Auth-Key": "sandbox-global-api-key"}


def refusal(response) -> tuple[int, int]:
    envelope = response.json()
    assert (envelope["success"], envelope["result"]) == (False, None)
    return response.status_code, envelope["errors"][0]["code"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic c2FuZGJveA=="},
        {"X-Auth-Email": "sandbox@example.com"},
        {"X-Auth-Key": "sandbox-global-api-key"},
        {"X-Auth-Email": "someone@example.com", "X-Auth-Key": "sandbox-global-api-key"},
    ],
    ids=["nothing", "empty token", "other scheme", "e-mail only", "key only", "other e-mail"],
)
def test_missing_or_wrong_key_is_refused(sandbox: Sandbox, top_up, headers):
    assert refusal(top_up(headers=headers)) == (401, 10000)
    assert sandbox.charges() == []


def test_unknown_token_is_refused(top_up):
    assert refusal(top_up(token="no-such-token")) == (403, 9109)


def test_global_api_key_may_do_everything(sandbox: Sandbox, call, top_up):
    assert top_up(headers=GLOBAL_KEY).status_code == 200
    assert call("GET", "credit-balance", headers=GLOBAL_KEY).status_code == 200


@pytest.mark.parametrize("path", [*READING, "usage-history?value_grouping_window=day"])
def test_read_token_reads(call, path):
    assert call("GET", path, token="sandbox-read-token").status_code == 200


def test_read_token_neither_charges_nor_asks_for_the_status(sandbox: Sandbox, call, top_up):
    invoice_id = top_up().json()["result"]["payment_intent_id"]
    status = {"payment_intent_id": invoice_id}

    assert refusal(top_up(token="sandbox-read-token")) == (403, 10403)
    assert refusal(call("POST", "topup/status", json=status, token="sandbox-read-token")) == (403, 10403)
    assert refusal(call("DELETE", "spending-limit", token="sandbox-read-token")) == (403, 10403)
    assert len(sandbox.charges()) == 1


def test_token_opens_only_its_accounts(sandbox: Sandbox, call):
    other = "f" * 32
    sandbox.configure(other, token="other-token", read_token="other-read-token")

    assert refusal(call("GET", "credit-balance", account_id=other)) == (403, 9109)
    assert refusal(call("GET", "credit-balance", token="other-token")) == (403, 9109)
    assert refusal(call("GET", "credit-balance", account_id="e" * 32)) == (403, 9109)
    assert call("GET", "credit-balance", account_id=other, token="other-token").status_code == 200


def test_quota_exceeded_blocks_the_token_for_a_whole_window(sandbox: Sandbox, call, top_up):
    sandbox.configure_server(rate_quota=2, rate_window_seconds=1)

    allowed = [call("GET", "credit-balance") for _ in range(2)]
    time.sleep(0.5)
    blocked = top_up()
    time.sleep(0.6)
    still_blocked = call("GET", "credit-balance")

    assert [response.status_code for response in allowed] == [200, 200]
    assert allowed[1].headers["Ratelimit"] == '"default";r=0;t=1'
    assert refusal(blocked)[0] == refusal(still_blocked)[0] == 429
    assert blocked.headers["Retry-After"] == "1"
    assert sandbox.charges() == []
    assert call("GET", "credit-balance", token="sandbox-read-token").status_code == 200

    time.sleep(0.5)
    assert call("GET", "credit-balance").status_code == 200


def test_requests_are_on_record_without_the_token(sandbox: Sandbox, call):
    call("GET", "invoice-history?type=auto")
    call("GET", "credit-balance", token="sandbox-read-token")

    first, second = sandbox.requests()

    assert (first.operation, first.query, first.status) == ("getInvoiceHistory", "type=auto", 200)
    assert first.token != second.token
    assert "sandbox-token" not in repr(sandbox.state()["requests"])
    assert sandbox.requests("getCreditBalance") == [second]
