"""The one call that charges a card, without a whole response, or with nothing sent."""

import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingInvalidRequestError,
    CfBillingNotSentInTimeError,
    CfBillingOutcomeUnknownError,
    CfBillingRateLimitError,
)
from airflow_provider_cfbilling.api.http.send_tracking import SendDeadline
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.api.charges import TOPUP, assert_nothing_sent, assert_unknown, error_of
from tests.raw_servers import (
    Peer,
    RawServer,
    client_at,
    client_of,
    eventually,
    http,
    ok,
    refused,
    refusing_port,
    responding,
    silent_port,
)

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
def test_incomplete_response_proves_nothing(sandbox: Sandbox, fault: dict, charged: int):
    sandbox.fault("createTopup", **fault)

    with client_of(sandbox, read_timeout=0.25, max_attempts=5) as client:
        assert_unknown(sandbox, client, charged)


def test_charge_can_land_after_the_timeout(sandbox: Sandbox, client: CfBillingClient):
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


def respond_in_another_protocol(peer: Peer) -> None:
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
def test_break_after_the_first_byte_proves_nothing(serve: Any, tls: bool, trusted_certificate: Path):
    with (
        RawServer(serve, trusted_certificate if tls else None) as server,
        client_at(server.url, max_attempts=5) as client,
    ):
        error = error_of(client)

    assert type(error) is CfBillingOutcomeUnknownError
    assert server.connections == 1
    assert len(server.heads) <= 1


def test_refusal_before_the_request_was_sent_is_believed():
    def refuse_early(peer: Peer) -> None:
        peer.head()
        peer.send(http(refused(), 413))
        peer.hang()

    with RawServer(refuse_early) as server, client_at(server.url) as client:
        assert type(error_of(client)) is CfBillingInvalidRequestError


# nothing was sent


def test_unresolved_name_proves_nothing_was_sent():
    with client_at("https://nowhere.invalid/client/v4") as client:
        assert_nothing_sent(error_of(client))


def test_refused_connection_proves_that_nothing_was_sent():
    with refusing_port() as port, client_at(f"http://127.0.0.1:{port}", max_attempts=5) as client:
        error = error_of(client)

    assert_nothing_sent(error)
    assert "Connection refused" in str(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_connect_timeout_proves_nothing_was_sent(scheme: str):
    with silent_port() as port, client_at(f"{scheme}://127.0.0.1:{port}", connect_timeout=0.2) as client:
        error = error_of(client)

    assert_nothing_sent(error)
    assert "timed out" in str(error)


def test_untrusted_certificate_proves_nothing_was_sent(certificate: Path):
    with RawServer(responding(http(ok(TOPUP))), certificate) as server, client_at(server.url) as client:
        error = error_of(client)

    assert_nothing_sent(error)
    assert "certificate verify failed" in str(error)
    assert server.heads == []


@pytest.mark.parametrize(
    "serve", [close_at_once, reset_at_the_first_byte, respond_in_another_protocol, Peer.hang]
)
def test_failed_tls_handshake_proves_nothing_was_sent(serve: Any):
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


def test_refusing_proxy_proves_nothing_was_sent(proxied: Any):
    with refusing_port() as port:
        proxied(port)
        with client_at("https://api.example.invalid") as client:
            error = error_of(client)

    assert_nothing_sent(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("status", [403, 407, 502])
def test_failed_tunnel_proves_nothing_was_sent(proxied: Any, status: int):
    with RawServer(responding(http(b"", status))) as proxy:
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
def test_topup_is_not_sent_after_its_deadline(
    sandbox: Sandbox, client: CfBillingClient, wall: float, monotonic: float
):
    send_by = SendDeadline(time.time() + wall, time.monotonic() + monotonic, 5)
    with pytest.raises(CfBillingNotSentInTimeError, match="Nothing was sent"):
        client.create_topup(1000, send_by=send_by)
    assert sandbox.requests() == []


def test_time_that_connecting_takes_counts(trusted_certificate: Path):
    send_by = SendDeadline.after(0.2)

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(http(ok(TOPUP)))

    with RawServer(serve, trusted_certificate, delay=0.4) as server, client_at(server.url) as client:
        with pytest.raises(CfBillingNotSentInTimeError):
            client.create_topup(1000, send_by=send_by)
        assert client.create_topup(1000).payment_intent_id == "in_1"
    assert len(server.heads) == 1


def test_topup_that_comes_in_time_is_sent(sandbox: Sandbox, client: CfBillingClient):
    assert client.create_topup(1000, send_by=SendDeadline.after(60)).payment_intent_id
    assert len(sandbox.charges()) == 1
