"""The one call that charges a card: how it ends tells what is known, and it is never sent twice."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingNotFoundError,
    CfBillingNotSentInTimeError,
    CfBillingOutcomeUnknownError,
    CfBillingPaymentDeclinedError,
    CfBillingPermissionError,
    CfBillingRateLimitError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.api.http import transport
from airflow_provider_cfbilling.api.http.send_tracking import SendDeadline
from airflow_provider_cfbilling.api.models import Topup
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.models import READ_TOKEN
from tests.raw_servers import (
    Peer,
    RawServer,
    answering,
    client_at,
    client_of,
    eventually,
    http,
    ok,
    refused,
    refusing_port,
    silent_port,
)

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


# accepted


def test_accepted_top_up_is_returned_without_its_client_secret(sandbox: Sandbox, client: CfBillingClient):
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
def test_accepted_top_up_needs_nothing_but_its_id(sandbox: Sandbox, client: CfBillingClient, details: dict):
    sandbox.fault("createTopup", "garbage", when="after", body=json.dumps(ok(TOPUP | details)))

    topup = client.create_topup(1000)

    assert topup.payment_intent_id == "in_1"
    assert (topup.brand, topup.last4) == (None, None)
    assert topup.onboarding in (True, None)


# refused here, before any request


@pytest.mark.parametrize("amount", [999, 0, -1000, True, 1000.5, "999", "1000 cents", None, 1e999])
def test_amount_that_cannot_be_charged_is_refused_before_any_request(
    sandbox: Sandbox, client: CfBillingClient, amount: Any
):
    with pytest.raises(CfBillingInvalidRequestError, match="amount_cents must be"):
        client.create_topup(amount)
    assert sandbox.requests() == []


@pytest.mark.parametrize("payment_method_id", ["pm card", "pm\n1", "pm/1", "pm_ä", 7, b"pm_1"])
def test_payment_method_that_is_no_id_is_refused_before_any_request(
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


def test_token_that_may_only_read_is_told_which_permission_it_needs(sandbox: Sandbox):
    with client_of(sandbox, secret=READ_TOKEN) as client:
        error = error_of(client)

    assert type(error) is CfBillingPermissionError
    assert '"AI Gateway Write"' in str(error)
    assert sandbox.charges() == []


# answered, but proving nothing


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
def test_refusal_that_is_not_the_documented_envelope_proves_nothing(
    sandbox: Sandbox, client: CfBillingClient, body: str
):
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


def test_huge_answer_proves_nothing_and_is_called_that(
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
        RawServer(answering(http(ok(TOPUP)))) as elsewhere,
        client_of(sandbox, **credentials) as client,
    ):
        location = f"{sandbox.base_url}/elsewhere" if same_host else elsewhere.url
        sandbox.fault("createTopup", "redirect", "after", status=status, location=location)
        error = error_of(client)

    assert type(error) is CfBillingOutcomeUnknownError
    assert "redirect" in str(error)
    assert elsewhere.connections == 0
    assert len(sandbox.requests()) == 1


def test_lost_secrets_do_not_turn_up_in_errors_or_logs(
    sandbox: Sandbox, client: CfBillingClient, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    hidden = {"payment_intent_id": TOPUP, "onboarding": "seti_hidden_secret"}
    sandbox.fault("createTopup", "garbage", "after", body=json.dumps(ok(hidden)))

    error = error_of(client)

    said = f"{error} {error!r} {error.__cause__!r} {caplog.text}"
    assert "seti_hidden_secret" not in said
    assert sandbox.state()["accounts"][sandbox.account_id]["token"] not in said


# no whole response


@pytest.mark.parametrize(
    ("fault", "charged"),
    [
        *[({"kind": kind, "when": "before"}, 0) for kind in ("reset", "drop", "hang", "truncate")],
        *[({"kind": kind, "when": "after"}, 1) for kind in ("reset", "drop", "hang", "truncate")],
        *[({"kind": kind, "when": "middle"}, 1) for kind in ("reset", "drop", "hang")],
        ({"kind": "slow", "when": "before", "seconds": 0.02}, 0),
        ({"kind": "slow", "when": "after", "seconds": 0.02}, 1),
        ({"kind": "slow", "when": "after", "seconds": 0.02, "part": "head"}, 1),
    ],
    ids=str,
)
def test_answer_that_does_not_come_whole_proves_nothing(sandbox: Sandbox, fault: dict, charged: int):
    sandbox.fault("createTopup", **fault)

    with client_of(sandbox, read_timeout=0.25, max_attempts=5) as client:
        assert_unknown(sandbox, client, charged)


def test_charge_can_land_after_its_answer_was_given_up(sandbox: Sandbox, client: CfBillingClient):
    sandbox.fault("createTopup", "drop", "late", seconds=0.1)

    assert type(error_of(client)) is CfBillingOutcomeUnknownError
    eventually(sandbox.charges)
    assert len(sandbox.charges()) == 1


def close_at_once(peer: Peer) -> None:
    pass


def reset_at_the_first_byte(peer: Peer) -> None:
    peer.first_byte()
    peer.reset()


def reset_before_the_body(peer: Peer) -> None:
    peer.head()
    peer.reset()


def reset_after_the_body(peer: Peer) -> None:
    peer.request()
    peer.reset()


def close_after_the_body(peer: Peer) -> None:
    peer.request()


def close_in_the_status_line(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 40")


def close_in_the_headers(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Le")


def answer_no_http(peer: Peer) -> None:
    peer.request()
    peer.send(b"SSH-2.0-OpenSSH_9.6\r\n")


@pytest.mark.parametrize(
    "serve",
    [
        close_at_once,
        reset_at_the_first_byte,
        reset_before_the_body,
        reset_after_the_body,
        close_after_the_body,
        close_in_the_status_line,
        close_in_the_headers,
    ],
)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_connection_that_breaks_after_the_first_byte_proves_nothing(
    serve: Any, tls: bool, trusted_certificate: Path
):
    with (
        RawServer(serve, trusted_certificate if tls else None) as server,
        client_at(server.url, max_attempts=5) as client,
    ):
        error = error_of(client)

    assert type(error) is CfBillingOutcomeUnknownError
    assert server.connections == 1
    assert len(server.heads) <= 1


def test_refusal_that_comes_before_the_whole_request_was_sent_is_believed():
    def refuse_early(peer: Peer) -> None:
        peer.head()
        peer.send(http(refused(), 413))
        peer.hang()

    with RawServer(refuse_early) as server, client_at(server.url) as client:
        assert type(error_of(client)) is CfBillingInvalidRequestError


# nothing was sent


def test_name_that_does_not_resolve_proves_that_nothing_was_sent():
    with client_at("https://nowhere.invalid/client/v4") as client:
        assert_nothing_sent(error_of(client))


def test_refused_connection_proves_that_nothing_was_sent():
    with refusing_port() as port, client_at(f"http://127.0.0.1:{port}", max_attempts=5) as client:
        error = error_of(client)

    assert_nothing_sent(error)
    assert "Connection refused" in str(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_connection_that_times_out_proves_that_nothing_was_sent(scheme: str):
    with silent_port() as port, client_at(f"{scheme}://127.0.0.1:{port}", connect_timeout=0.2) as client:
        error = error_of(client)

    assert_nothing_sent(error)
    assert "timed out" in str(error)


def test_certificate_that_is_not_trusted_proves_that_nothing_was_sent(certificate: Path):
    with RawServer(answering(http(ok(TOPUP))), certificate) as server, client_at(server.url) as client:
        error = error_of(client)

    assert_nothing_sent(error)
    assert "certificate verify failed" in str(error)
    assert server.heads == []


@pytest.mark.parametrize("serve", [close_at_once, reset_at_the_first_byte, answer_no_http, Peer.hang])
def test_tls_handshake_that_fails_proves_that_nothing_was_sent(serve: Any):
    with (
        RawServer(serve) as server,
        client_at(server.url.replace("http", "https"), connect_timeout=0.3) as client,
    ):
        assert_nothing_sent(error_of(client))
    assert server.connections == 1


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Any:
    def proxied(port: int) -> None:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://user:hunter2@127.0.0.1:{port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)

    return proxied


def test_proxy_that_refuses_connections_proves_that_nothing_was_sent(proxied: Any):
    with refusing_port() as port:
        proxied(port)
        with client_at("https://api.example.invalid") as client:
            error = error_of(client)

    assert_nothing_sent(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("status", [403, 407, 502])
def test_proxy_that_opens_no_tunnel_proves_that_nothing_was_sent(proxied: Any, status: int):
    with RawServer(answering(http(b"", status))) as proxy:
        proxied(proxy.port)
        with client_at("https://api.example.invalid") as client:
            error = error_of(client)

    assert_nothing_sent(error)
    (head,) = proxy.heads
    assert head.startswith("CONNECT api.example.invalid:443 ")
    assert "Bearer" not in head


def test_pause_that_is_being_kept_sends_nothing(sandbox: Sandbox, client: CfBillingClient):
    sandbox.fault("getCreditBalance", "status", status=429, headers={"retry-after": "600"})
    with pytest.raises(CfBillingRateLimitError):
        client.get_credit_balance()

    error = error_of(client)

    assert type(error) is CfBillingRateLimitError
    assert "Not sent" in str(error)
    assert sandbox.requests("createTopup") == []


@pytest.mark.parametrize(
    ("wall", "monotonic"),
    [(-0.1, 5), (5, -0.1), (-3600, -3600), (3600, 5)],
    ids=["wall", "monotonic", "both", "set back"],
)
def test_top_up_that_comes_too_late_to_be_sent_is_not_sent(
    sandbox: Sandbox, client: CfBillingClient, wall: float, monotonic: float
):
    send_by = SendDeadline(time.time() + wall, time.monotonic() + monotonic, 5)
    with pytest.raises(CfBillingNotSentInTimeError, match="Nothing was sent"):
        client.create_topup(1000, send_by=send_by)
    assert sandbox.requests() == []


def test_time_that_connecting_takes_counts(trusted_certificate: Path):
    send_by = SendDeadline.after(0.2)

    def answer(peer: Peer) -> None:
        peer.request()
        peer.send(http(ok(TOPUP)))

    with RawServer(answer, trusted_certificate, delay=0.4) as server, client_at(server.url) as client:
        with pytest.raises(CfBillingNotSentInTimeError):
            client.create_topup(1000, send_by=send_by)
        assert client.create_topup(1000).payment_intent_id == "in_1"
    assert len(server.heads) == 1


def test_top_up_that_comes_in_time_is_sent(sandbox: Sandbox, client: CfBillingClient):
    assert client.create_topup(1000, send_by=SendDeadline.after(60)).payment_intent_id
    assert len(sandbox.charges()) == 1


# how it travels


def test_top_up_goes_over_a_connection_of_its_own_while_reads_share_one():
    def serve(peer: Peer) -> None:
        while True:
            peer.request()
            peer.send(http(ok(BALANCE | TOPUP)))

    with RawServer(serve) as server, client_at(server.url) as client:
        client.get_credit_balance()
        client.get_credit_balance()
        assert server.connections == 1
        client.create_topup(1000)
        assert server.connections == 2
        client.create_topup(1000)
        assert server.connections == 3
        client.get_credit_balance()
        assert server.connections == 3


def test_request_holds_the_amount_the_payment_method_and_nothing_else():
    with RawServer(answering(http(ok(TOPUP)))) as server, client_at(server.url) as client:
        client.create_topup(1000)
        client.create_topup(1234, "pm_1")

    assert [json.loads(body) for body in server.bodies] == [
        {"amount": 1000},
        {"amount": 1234, "payment_method_id": "pm_1"},
    ]
