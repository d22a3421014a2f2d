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


def reasons(response) -> list[int]:
    """The codes of a refusal's chain."""
    (error,) = response.json()["errors"]
    return [link["code"] for link in error.get("error_chain", [])]


@pytest.mark.parametrize(
    ("headers", "refused", "chain"),
    [
        ({}, (400, 9106), []),
        ({"Authorization": "Bearer "}, (400, 6003), [6111]),
        ({"Authorization": "Basic c2FuZGJveA=="}, (400, 6003), [6111]),
        ({"X-Auth-Email": "sandbox@example.com"}, (400, 9107), []),
        ({"X-Auth-Key": "sandbox-global-api-key"}, (400, 9106), []),
        ({"X-Auth-Email": "someone@example.com", "X-Auth-Key": "sandbox-global-api-key"}, (403, 9103), []),
        ({"X-Auth-Email": "sandbox@example.com", "X-Auth-Key": "another-key"}, (403, 9103), []),
        ({"X-Auth-Email": "sandbox@example.com", "X-Auth-Key": "sandbox-token"}, (400, 6003), [6103]),
        ({"X-Auth-Email": "sandbox@example.com", "X-Auth-Key": "t0ken_" * 6 + "0000"}, (400, 6003), [6103]),
        ({"X-Auth-Email": "sandbox", "X-Auth-Key": "sandbox-global-api-key"}, (400, 6003), [6102]),
        ({"X-Auth-Email": "sandbox", "X-Auth-Key": "sandbox-global"}, (400, 6003), [6102, 6103]),
    ],
    ids=lambda value: str(value)[:80] if isinstance(value, dict) else "",
)
def test_bad_key_is_refused_as_by_cloudflare(sandbox: Sandbox, topup, headers, refused, chain):
    response = topup(headers=headers)
    assert (refusal(response), reasons(response)) == (refused, chain)
    assert sandbox.charges() == []


@pytest.mark.parametrize("token", ["no-such-token", "t0ken_" * 6 + "0000"])
def test_unknown_token_is_refused(topup, token):
    assert refusal(topup(token=token)) == (403, 9109)


@pytest.mark.parametrize(
    "token",
    [
        "sandbox-tok",
        "sandbox-token'",
        "Bearer sandbox-token",
        "sandbox-tokensandbox-token",
        "sandbox-global-api-key",
        "0123456789abcdef0123456789abcdef01234",
        "cfk_" + "a1B2c3D4e5" * 5,
    ],
)
def test_token_that_cannot_be_one_is_malformed(sandbox: Sandbox, topup, token):
    response = topup(token=token)
    assert (refusal(response), reasons(response)) == ((400, 6003), [6111])
    assert sandbox.charges() == []


def test_token_may_be_bound_to_addresses(sandbox: Sandbox, call):
    sandbox.configure(allowed_addresses=["203.0.113.7", "2001:db8::/32"])
    response = call("GET", "credit-balance")
    assert refusal(response) == (403, 9109)
    assert response.json()["errors"][0]["message"] == "Cannot use the access token from location: 127.0.0.1"
    assert call("GET", "credit-balance", headers=GLOBAL_KEY).status_code == 200

    sandbox.configure(allowed_addresses=["127.0.0.0/8"])
    assert call("GET", "credit-balance").status_code == 200


def test_address_that_is_none_is_refused(sandbox: Sandbox):
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 network"):
        sandbox.configure(allowed_addresses=["home"])


def test_global_api_key_may_do_everything(sandbox: Sandbox, call, topup):
    assert topup(headers=GLOBAL_KEY).status_code == 200
    assert call("GET", "credit-balance", headers=GLOBAL_KEY).status_code == 200


@pytest.mark.parametrize("path", [*READING, "usage-history?value_grouping_window=day"])
def test_read_token_reads(call, path):
    assert call("GET", path, token="sandbox-read-token").status_code == 200


def test_read_token_neither_charges_nor_reads_status(sandbox: Sandbox, call, topup):
    invoice_id = topup().json()["result"]["payment_intent_id"]
    status = {"payment_intent_id": invoice_id}

    assert refusal(topup(token="sandbox-read-token")) == (403, 10403)
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


def test_exceeded_quota_blocks_for_a_whole_window(sandbox: Sandbox, call, topup):
    sandbox.configure_server(rate_quota=2, rate_window_seconds=1)

    allowed = [call("GET", "credit-balance") for _ in range(2)]
    time.sleep(0.5)
    blocked = topup()
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
