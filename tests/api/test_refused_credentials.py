"""Refused credentials say which of their faults it is; none of them charges.

The bodies are Cloudflare's, as others have published them.
"""

import json
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingPermissionError,
)
from airflow_provider_cfbilling.api.http.envelope import Reply, result_of
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.models import GLOBAL_API_KEY, GLOBAL_EMAIL, READ_TOKEN
from tests.raw_servers import RawServer, client_at, client_of, fresh_token, http, refused, responding

KEY = "0123456789abcdef0123456789abcdef01234"  # 37 hex digits, as a Global API Key had until 2026
NEW_KEY = "cfk_" + "a1B2c3D4e5" * 4 + "0123abcd"
TOKEN = "YQSn-xWAQiiEh9qM58wZNnyQS7FUdoqGIUAbrh7T"
NEW_TOKEN = "cfut_" + "a1B2c3D4e5" * 4 + "0123abcd"
EMAIL = {"email": "me@example.com"}
CALLS = {
    "read": lambda client: client.get_credit_balance(),
    "charge": lambda client: client.create_topup(1000),
}
AMBIGUOUS = "The API token must be valid and hold"


def chained(*links: tuple[int, str], code: int = 6003, message: str = "Invalid request headers") -> Any:
    """A refusal that holds its reason in its ``error_chain``."""
    envelope = refused(code, message)
    chain = [{"code": code, "message": message} for code, message in links]
    envelope["errors"][0]["error_chain"] = chain  # type: ignore[index]
    return envelope


BAD_TOKEN = chained((6111, "Invalid format for Authorization header"))
BAD_KEY = chained((6103, "Invalid format for X-Auth-Key header"))
BAD_EMAIL = chained((6102, "Invalid format for X-Auth-Email header"))
BAD_BOTH = chained(
    (6102, "Invalid format for X-Auth-Email header"), (6103, "Invalid format for X-Auth-Key header")
)
LOCATION = refused(9109, "Cannot use the access token from location: 203.0.113.7")


def refusal_of(call: Any, body: object, status: int, **settings: Any) -> CfBillingError:
    with (
        RawServer(responding(http(body, status))) as server,
        client_at(server.url, **settings) as client,
        pytest.raises(CfBillingError) as caught,
    ):
        call(client)
    return caught.value


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("status", "body", "settings", "reason", "said"),
    [
        (
            400,
            BAD_TOKEN,
            {},
            "malformed",
            "The API token is malformed: cut off, or pasted with something around",
        ),
        (400, refused(6111, "Invalid format"), {}, "malformed", "The API token is malformed"),
        (400, BAD_TOKEN, {"secret": KEY}, "other kind", "a Global API Key was sent as an API token"),
        (403, refused(10000, "Authentication error"), {"secret": NEW_KEY}, "other kind", "set email in the"),
        (400, BAD_KEY, EMAIL, "malformed", "The Global API Key is malformed"),
        (400, BAD_KEY, EMAIL, "malformed", "If it is an API token, remove email from the connection's extra"),
        (400, BAD_KEY, EMAIL | {"secret": TOKEN}, "other kind", "remove email from the connection's extra"),
        (
            400,
            BAD_KEY,
            EMAIL | {"secret": NEW_TOKEN},
            "other kind",
            "an API token was sent as a Global API Key",
        ),
        (400, BAD_EMAIL, EMAIL, "malformed", "email in the connection's extra is not an address"),
        (400, BAD_BOTH, EMAIL, "malformed", "email in the connection's extra is not an address"),
        (400, BAD_BOTH, EMAIL, "malformed", "The Global API Key is malformed"),
        (
            400,
            refused(9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers"),
            {},
            "missing",
            "removed",
        ),
        (400, refused(9107, "Missing X-Auth-Key header"), EMAIL, "missing", "between here and Cloudflare"),
        (403, refused(9109, "Invalid access token"), {}, "invalid", "wrong, expired or revoked"),
        (401, refused(1000, "Invalid API Token"), {}, "invalid", "wrong, expired or revoked"),
        (403, refused(1000, "Invalid API Token"), {}, "invalid", "wrong, expired or revoked"),
        (401, refused(10000, "Authentication error"), {}, "invalid", "wrong, expired or revoked"),
        (401, refused(10000, "Authentication error"), EMAIL, "invalid", "do not belong together"),
        (
            403,
            refused(9103, "Unknown X-Auth-Key or X-Auth-Email"),
            EMAIL,
            "invalid",
            "do not belong together",
        ),
        (403, LOCATION, {}, "address", "from location: 203.0.113.7"),
        (403, LOCATION, {}, "address", "the workers and of the triggerer"),
        (403, LOCATION, {}, "address", 'for "Test connection", of the API server'),
    ],
)
def test_credentials_fault_is_named_with_a_remedy(
    call: Any, status: int, body: object, settings: dict[str, Any], reason: str, said: str
):
    error = refusal_of(call, body, status, **settings)

    assert type(error) is CfBillingAuthenticationError
    assert error.reason == reason
    assert error.message.startswith("Cloudflare refused the credentials: ")
    assert said in error.message
    assert AMBIGUOUS not in error.message
    assert error.message.endswith("Nothing was charged") == (call is CALLS["charge"])
    assert not error.retryable
    assert len(str(error)) < 700


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, refused(10000, "Authentication error")),
        (403, refused(9109, "Unauthorized to access requested resource")),
        (400, refused(10000, "Authentication error")),
    ],
)
def test_refusal_without_a_reason_names_all_requirements(call: Any, status: int, body: object):
    error = refusal_of(call, body, status)
    assert type(error) is CfBillingAuthenticationError
    assert error.reason is None
    assert AMBIGUOUS in error.message


def test_missing_permission_is_reported():
    error = refusal_of(CALLS["read"], refused(10403, "Forbidden"), 403)
    assert type(error) is CfBillingPermissionError
    assert 'needs the permission "AI Gateway Read"' in error.message


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, refused(6003, "Invalid request headers"), CfBillingInvalidRequestError),
        (400, refused(1000, "invalid_amount"), CfBillingInvalidRequestError),
        (400, refused(10000, "Bad amount"), CfBillingInvalidRequestError),
        (403, refused(1000, "topup_forbidden"), CfBillingPermissionError),
        (422, BAD_TOKEN, CfBillingInvalidRequestError),
    ],
)
def test_other_refusals_are_not_taken_for_refused_credentials(
    status: int, body: object, kind: type[CfBillingError]
):
    assert type(refusal_of(CALLS["read"], body, status)) is kind


# the chain


def test_chain_is_kept_with_codes_and_messages():
    error = refusal_of(CALLS["read"], chained((6111, "Invalid format"), code=7003, message="Bad"), 404)
    assert error.codes == (7003, 6111)
    assert "Bad: Invalid format (HTTP 404, code 7003, code 6111)" in str(error)


def nested(depth: int) -> Any:
    envelope: Any = refused(6003, "Invalid request headers")
    inner = envelope["errors"][0]
    for number in range(depth):
        inner["error_chain"] = [{"code": 7000 + number, "message": f"below {number}"}]
        inner = inner["error_chain"][0]
    return envelope


@pytest.mark.parametrize(
    "chain",
    [
        None,
        "no",
        7,
        {},
        {"code": 6111, "message": "m"},
        [],
        [None, 1, "x", [], {}],
        [{"code": 1}, {"message": "m"}, {"code": None, "message": None}, {"code": "x", "message": []}],
        [{"code": 10**40, "message": "m"}, {"code": True, "message": "m" * 100_000}],
        [{"code": 1, "message": "m", "error_chain": 17}],
        [{"code": 1, "message": "m"}] * 10_000,
    ],
    ids=lambda chain: repr(chain)[:50],
)
def test_odd_chain_leaves_the_refusal_what_it_is(chain: Any):
    envelope = refused(7001, "No way")
    envelope["errors"][0]["error_chain"] = chain  # type: ignore[index]
    reply = Reply(400, json.dumps(envelope).encode())
    with pytest.raises(CfBillingInvalidRequestError, match="No way") as caught:
        result_of(reply)
    assert reply.proves_refusal
    assert caught.value.codes[0] == 7001
    assert len(caught.value.codes) <= 5
    assert len(str(caught.value)) < 600


def test_deep_chain_is_kept_in_part():
    reply = Reply(400, json.dumps(nested(50)).encode())
    with pytest.raises(CfBillingInvalidRequestError) as caught:
        result_of(reply)
    assert reply.proves_refusal
    assert caught.value.codes[:3] == (6003, 7000, 7001)
    assert len(caught.value.codes) <= 5


def test_chain_proves_nothing_by_itself():
    envelope = BAD_TOKEN | {"errors": [{"error_chain": [{"code": 6111, "message": "m"}]}]}
    assert not Reply(400, json.dumps(envelope).encode()).proves_refusal


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_credentials_in_a_chain_are_hidden(call: Any):
    secret = fresh_token()
    error = refusal_of(call, chained((6111, f"Invalid format: Bearer {secret}")), 400, secret=secret)
    assert "Invalid format: Bearer ***" in str(error)
    assert secret not in f"{error} {error!r} {vars(error)}"


# the sandbox, as the real API


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"secret": "sandbox-tok"}, "malformed"),
        ({"secret": '"sandbox-token"'}, "malformed"),
        ({"secret": "no-such-token"}, "invalid"),
        ({"secret": GLOBAL_API_KEY}, "malformed"),
        ({"secret": "sandbox-token", "email": GLOBAL_EMAIL}, "malformed"),
        ({"secret": GLOBAL_API_KEY[:-1], "email": GLOBAL_EMAIL}, "malformed"),
        ({"secret": GLOBAL_API_KEY, "email": "@"}, "malformed"),
        ({"secret": GLOBAL_API_KEY, "email": "someone@example.com"}, "invalid"),
        ({"secret": KEY}, "other kind"),
        ({"secret": TOKEN, "email": GLOBAL_EMAIL}, "other kind"),
    ],
)
def test_sandbox_refuses_each_kind_as_cloudflare_does(
    sandbox: Sandbox, call: Any, settings: dict[str, Any], reason: str
):
    with client_of(sandbox, **settings) as client, pytest.raises(CfBillingAuthenticationError) as caught:
        call(client)
    assert caught.value.reason == reason
    assert sandbox.charges() == []


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_sandbox_refuses_a_token_from_a_foreign_address(sandbox: Sandbox, call: Any):
    sandbox.configure(allowed_addresses=["203.0.113.0/24"])
    with client_of(sandbox, secret=sandbox.token) as client:
        with pytest.raises(CfBillingAuthenticationError, match=r"from location: 127\.0\.0\.1\. ") as caught:
            call(client)
        assert caught.value.reason == "address"
        assert sandbox.charges() == []
        sandbox.configure(allowed_addresses=["203.0.113.0/24", "127.0.0.1"])
        call(client)


def test_sandbox_reports_a_missing_permission(sandbox: Sandbox):
    with (
        client_of(sandbox, secret=READ_TOKEN) as client,
        pytest.raises(CfBillingPermissionError, match='"AI Gateway Write"'),
    ):
        CfBillingClient.create_topup(client, 1000)
