"""Reads are tried again, patiently but not for ever; nothing goes where it was not meant to go."""

import gc
import json
import threading
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingMalformedResponseError,
    CfBillingNotFoundError,
    CfBillingPermissionError,
    CfBillingRateLimitError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.api.http import transport
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.models import GLOBAL_API_KEY, GLOBAL_EMAIL
from tests.raw_servers import (
    PATIENCE,
    Peer,
    RawServer,
    client_at,
    client_of,
    http,
    ok,
    refused,
    refusing_port,
    responding,
)

CONFIG = {"amount": 1000, "threshold": 50_000, "currency": "usd"}


def seen(sandbox: Sandbox) -> list[int | None]:
    return [request.status for request in sandbox.requests()]


def failure_of(client: CfBillingClient) -> CfBillingError:
    with pytest.raises(CfBillingError) as caught:
        client.get_topup_config()
    return caught.value


# what is tried again


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset"},
        {"kind": "reset", "when": "middle"},
        {"kind": "drop"},
        {"kind": "drop", "when": "middle"},
        {"kind": "truncate", "when": "after"},
        {"kind": "hang"},
        {"kind": "hang", "when": "middle"},
        {"kind": "slow", "when": "after", "seconds": 0.02},
        {"kind": "slow", "when": "after", "seconds": 0.02, "part": "head"},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 502, "html": True},
        {"kind": "status", "status": 524, "html": True},
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 429, "html": True},
    ],
    ids=str,
)
def test_read_that_fails_for_now_is_tried_again(sandbox: Sandbox, fault: dict[str, Any]):
    sandbox.fault("getTopupConfig", **fault)

    with client_of(sandbox, read_timeout=1.0, max_attempts=2) as client:
        assert client.get_topup_config().threshold_cents == 500
    assert len(sandbox.requests("getTopupConfig")) == 2


def test_topup_status_is_retried_although_a_post(sandbox: Sandbox):
    sandbox.fault("checkTopupStatus", "reset")
    sandbox.fault("checkTopupStatus", "status", status=503)

    with client_of(sandbox, max_attempts=3) as client:
        topup = client.create_topup(1000)
        assert client.get_topup_status(topup.payment_intent_id).status in ("pending", "completed")
    assert len(sandbox.requests("checkTopupStatus")) == 3


def test_read_fails_after_max_attempts_and_counts_them(sandbox: Sandbox):
    sandbox.fault("*", "status", status=503, times=None)

    with client_of(sandbox, max_attempts=3) as client:
        error = failure_of(client)

    assert type(error) is CfBillingUnavailableError
    assert "Tried 3 times" in str(error)
    assert error.status == 503
    assert seen(sandbox) == [503] * 3


def test_unreachable_server_is_retried_and_named():
    with refusing_port() as port, client_at(f"http://127.0.0.1:{port}/v4", max_attempts=2) as client:
        error = failure_of(client)

    assert type(error) is CfBillingUnavailableError
    assert f"http://127.0.0.1:{port}/v4" in str(error)
    assert "Connection refused" in str(error)
    assert "Tried 2 times" in str(error)


def test_read_is_given_up_after_its_total_time(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "READ_TOTAL_SECONDS", 0.3)
    sandbox.fault("*", "hang", times=None)

    with client_of(sandbox, read_timeout=0.2, max_attempts=20) as client:
        assert type(failure_of(client)) is CfBillingUnavailableError
    assert len(sandbox.requests()) < 20


@pytest.mark.parametrize("status", [408, 409, 423, 425, 499])
def test_read_that_timed_out_is_retried(sandbox: Sandbox, status: int):
    sandbox.fault("*", "status", status=status)
    with client_of(sandbox, max_attempts=2) as client:
        assert client.get_topup_config().state == "active"
    assert seen(sandbox) == [status, 200]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, 7001, CfBillingInvalidRequestError),
        (401, 10000, CfBillingAuthenticationError),
        (403, 9109, CfBillingAuthenticationError),
        (403, 10000, CfBillingAuthenticationError),
        (403, 10403, CfBillingPermissionError),
        (404, 7003, CfBillingNotFoundError),
        (410, 1, CfBillingInvalidRequestError),
    ],
)
def test_refused_read_is_not_tried_again(
    sandbox: Sandbox, status: int, code: int, kind: type[CfBillingError]
):
    sandbox.fault("*", "status", status=status, body=json.dumps(refused(code, "No way")), times=None)

    with client_of(sandbox, max_attempts=5) as client:
        error = failure_of(client)

    assert type(error) is kind
    assert (error.status, error.codes) == (status, (code,))
    assert seen(sandbox) == [status]
    if status == 403:
        assert '"AI Gateway Read"' in str(error)


@pytest.mark.parametrize("fault", [{"kind": "garbage"}, {"kind": "status", "status": 403, "html": True}])
def test_unreadable_response_is_not_retried(sandbox: Sandbox, fault: dict[str, Any]):
    sandbox.fault("*", **fault, times=None)

    with client_of(sandbox, max_attempts=5) as client:
        error = failure_of(client)

    assert type(error) is CfBillingMalformedResponseError
    assert "Check the API base URL" in str(error)
    assert len(sandbox.requests()) == 1


# when it is tried again


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
def test_retry_after_is_obeyed_in_full(sandbox: Sandbox, as_date: bool):
    hour = 3600  # Cloudflare's clock is not ours
    sandbox.configure_server(clock_offset_seconds=hour)
    # A date has whole seconds, and so has the response's own: one more makes sure of one second.
    retry_after = formatdate(sandbox.state()["now"] + 2, usegmt=True) if as_date else "1"
    sandbox.fault("getTopupConfig", "status", status=429, headers={"retry-after": retry_after})

    with client_of(sandbox, max_attempts=2) as client:
        client.get_topup_config()

    first, second = sandbox.requests()
    assert (first.status, second.status) == (429, 200)
    if as_date:
        assert second.at >= int(first.at) + 1
    else:
        assert second.at >= first.at + 1


@pytest.mark.parametrize("max_attempts", [2, 5])
def test_retry_after_beyond_the_time_left_fails_at_once_and_says_so(sandbox: Sandbox, max_attempts: int):
    sandbox.fault("*", "status", status=429, headers={"retry-after": "300"}, times=None)

    with client_of(sandbox, max_attempts=max_attempts) as client:
        error = failure_of(client)

    assert type(error) is CfBillingRateLimitError
    assert error.retry_after_seconds == 300
    assert "To wait 300 s more, as Cloudflare requests, would exceed the 120 s" in str(error)
    assert seen(sandbox) == [429]


def test_next_call_waits_out_an_exhausted_ratelimit(sandbox: Sandbox):
    with client_of(sandbox, max_attempts=2) as client:
        sandbox.configure_server(rate_quota=1, rate_window_seconds=1)
        client.get_topup_config()
        client.get_credit_balance()

    first, second = sandbox.requests()
    assert seen(sandbox) == [200, 200]
    assert second.at >= first.at + 0.9


# where it goes


@pytest.mark.parametrize("credentials", [{}, {"email": "me@example.com"}], ids=["token", "global key"])
@pytest.mark.parametrize("same_host", [False, True], ids=["other host", "same host"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_never_followed(
    sandbox: Sandbox, status: int, same_host: bool, credentials: dict[str, str]
):
    with (
        RawServer(responding(http(ok(CONFIG)))) as elsewhere,
        client_of(sandbox, max_attempts=5, **credentials) as client,
    ):
        location = f"{sandbox.base_url}/elsewhere" if same_host else elsewhere.url
        sandbox.fault("*", "redirect", status=status, location=location, times=None)
        error = failure_of(client)

    assert type(error) is CfBillingMalformedResponseError
    assert "redirect" in str(error)
    assert len(sandbox.requests()) == 1
    assert (elsewhere.connections, elsewhere.heads) == (0, [])


def test_netrc_does_not_replace_the_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with RawServer(responding(http(ok(CONFIG)))) as server:
        with client_at(server.url, secret="mine") as client:
            client.get_topup_config()
        with client_at(server.url, secret="mine", email="me@example.com") as client:
            client.get_topup_config()

    with_token, with_key = server.heads
    assert "Authorization: Bearer mine\r\n" in with_token
    assert "X-Auth-" not in with_token
    assert "X-Auth-Email: me@example.com\r\n" in with_key
    assert "X-Auth-Key: mine\r\n" in with_key
    assert "Authorization" not in with_key


def test_global_api_key_opens_the_sandbox(sandbox: Sandbox):
    with client_of(sandbox, secret=GLOBAL_API_KEY, email=GLOBAL_EMAIL) as client:
        assert client.get_topup_config().threshold_cents == 500


def test_headers_name_us_and_forbid_compression_and_caches():
    with RawServer(responding(http(ok(CONFIG)))) as server, client_at(f"{server.url}/v4/") as client:
        client.get_topup_config()

    (head,) = server.heads
    path = f"/v4/accounts/{client.account_id}/ai-gateway/billing/topup/config"
    assert head.startswith(f"GET {path} HTTP/1.1\r\n")
    assert "User-Agent: airflow-provider-cfbilling/" in head
    assert "Accept-Encoding: identity\r\n" in head
    assert "Cache-Control: no-cache\r\n" in head


# how much is taken in


def test_reads_share_a_connection():
    with RawServer(responding(*[http(ok(CONFIG))] * 5)) as server, client_at(server.url) as client:
        for _ in range(5):
            client.get_topup_config()
    assert server.connections == 1


def test_closed_client_holds_no_connection_though_a_request_failed():
    closed = threading.Event()

    def serve(peer: Peer) -> None:
        peer.request()
        if server.connections == 1:
            peer.reset()
        else:
            peer.send(http(ok(CONFIG)))
            if not peer.first_byte():
                closed.set()

    gc.disable()  # it would close in the end what was forgotten
    try:
        with RawServer(serve) as server:
            with client_at(server.url) as client:
                failure_of(client)
                client.get_topup_config()
            assert closed.wait(PATIENCE)
    finally:
        gc.enable()


def test_connection_closed_by_the_server_is_replaced():
    with (
        RawServer(responding(http(ok(CONFIG)))) as server,
        client_at(server.url, max_attempts=2) as client,
    ):
        for _ in range(3):
            client.get_topup_config()
    assert len(server.heads) == 3


@pytest.mark.parametrize("too_much", [0, 1])
def test_body_is_read_up_to_a_limit(too_much: int, monkeypatch: pytest.MonkeyPatch):
    envelope = ok(CONFIG)
    monkeypatch.setattr(transport, "BODY_LIMIT_BYTES", len(json.dumps(envelope)) - too_much)
    with RawServer(responding(http(envelope))) as server, client_at(server.url, max_attempts=5) as client:
        if too_much:
            assert "The response is larger than" in str(failure_of(client))
        else:
            client.get_topup_config()
    assert server.connections == 1
