from __future__ import annotations

import json
import socket
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_cfbilling.sandbox import Sandbox, SandboxClient
from airflow_provider_cfbilling.sandbox.connection import head_of
from airflow_provider_cfbilling.sandbox.responses import RefusalError

PERFORMED = [("before", 0), ("after", 1)]


def raw_topup(sandbox: Sandbox, timeout: float = 3.0) -> tuple[bytes, BaseException | None]:
    """Top up over a bare socket: what arrived, and how it ended (None: the server closed properly)."""
    address = urlsplit(sandbox.url)
    body = b'{"amount": 1000}'
    head = (
        f"POST /client/v4/accounts/{sandbox.account_id}/ai-gateway/billing/topup HTTP/1.1\r\n"
        f"Host: sandbox\r\nAuthorization: Bearer {sandbox.token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    received = b""
    with socket.create_connection((address.hostname, address.port), timeout) as connection:
        connection.sendall(head.encode() + body)
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except OSError as error:
            return received, error
    return received, None


def eventually_charged(sandbox: SandboxClient, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while not sandbox.charges() and time.monotonic() < deadline:
        time.sleep(0.02)
    return len(sandbox.charges())


@pytest.mark.parametrize(("when", "charged"), PERFORMED)
def test_reset_resets_the_connection(sandbox: Sandbox, when, charged):
    sandbox.fault("createTopup", "reset", when=when)

    received, error = raw_topup(sandbox)

    assert received == b""
    assert isinstance(error, ConnectionResetError)
    assert len(sandbox.charges()) == charged
    assert [(request.fault, request.status) for request in sandbox.requests()] == [("reset", None)]


@pytest.mark.parametrize(("when", "charged"), PERFORMED)
def test_drop_closes_without_a_response(sandbox: Sandbox, when, charged):
    sandbox.fault("createTopup", "drop", when=when)

    assert raw_topup(sandbox) == (b"", None)
    assert len(sandbox.charges()) == charged


@pytest.mark.parametrize(("when", "charged"), PERFORMED)
def test_hang_never_responds(sandbox: Sandbox, when, charged):
    sandbox.fault("createTopup", "hang", when=when)

    received, error = raw_topup(sandbox, timeout=0.3)

    assert received == b""
    assert isinstance(error, TimeoutError)
    assert len(sandbox.charges()) == charged


@pytest.mark.parametrize("kind", ["reset", "drop", "hang"])
def test_response_breaks_off_inside_its_body(sandbox: Sandbox, kind):
    sandbox.fault("createTopup", kind, when="middle")

    received, error = raw_topup(sandbox, timeout=1.0)

    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body.startswith(b'{"success":true')
    assert not body.endswith(b"}")
    assert type(error) is {"reset": ConnectionResetError, "drop": type(None), "hang": TimeoutError}[kind]
    assert len(sandbox.charges()) == 1


@pytest.mark.parametrize("kind", ["hang", "reset", "drop", "status"])
def test_charge_can_land_after_the_connection_is_gone(sandbox: Sandbox, kind):
    sandbox.fault("createTopup", kind, when="late", seconds=1.5)

    raw_topup(sandbox, timeout=0.1)
    gone = time.time()

    assert eventually_charged(sandbox, 10) == 1
    assert sandbox.charges()[0].at > gone


def test_reset_drops_a_late_charge(sandbox: Sandbox, topup):
    sandbox.fault("createTopup", "drop", when="late", seconds=0.2)
    raw_topup(sandbox)

    sandbox.reset()

    assert eventually_charged(sandbox, 0.4) == 0
    assert sandbox.requests() == []


@pytest.mark.parametrize(("when", "charged"), PERFORMED)
def test_status_returns_an_error(sandbox: Sandbox, topup, when, charged):
    sandbox.fault("createTopup", "status", when=when, status=429, headers={"retry-after": "7"})

    response = topup()

    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")
    assert response.json()["success"] is False
    assert response.headers["cf-ray"]
    assert len(sandbox.charges()) == charged
    assert sandbox.requests()[0].status == 429


@pytest.mark.parametrize(("when", "charged"), [("before", 0), ("after", 100)])
def test_status_can_be_any_refusal_in_an_envelope(sandbox: Sandbox, topup, when, charged):
    for status in range(400, 500):
        sandbox.fault("createTopup", "status", when=when, status=status)

    for status in range(400, 500):
        response = topup()
        assert response.status_code == status
        assert response.json()["errors"] == [{"code": 10000 + status, "message": f"Injected error {status}"}]

    assert len(sandbox.charges()) == charged
    assert [request.status for request in sandbox.requests()] == list(range(400, 500))


def test_status_line_needs_no_name_of_its_status():
    assert head_of(RefusalError(499, 10499, "Client closed request").response()).startswith(
        b"HTTP/1.1 499 \r\n"
    )
    assert head_of(RefusalError(402, 7103, "declined").response()).startswith(
        b"HTTP/1.1 402 Payment Required\r\n"
    )


@pytest.mark.parametrize("seconds", [-3600, 86_400])
@pytest.mark.parametrize("when", ["before", "after", "middle", "late"])
def test_clock_sets_only_the_date_wrong(sandbox: Sandbox, topup, when, seconds):
    sandbox.configure_server(clock_offset_seconds=600)
    sandbox.fault("createTopup", "clock", when=when, seconds=seconds)

    wrong, right = topup(), topup()

    off = [
        parsedate_to_datetime(each.headers["Date"]).timestamp() - time.time() - 600 for each in (wrong, right)
    ]
    assert off == [pytest.approx(seconds, abs=5), pytest.approx(0, abs=5)]
    charges, requests_seen = sandbox.charges(), sandbox.requests()
    assert [charge.invoice_id for charge in charges] == [
        each.json()["result"]["payment_intent_id"] for each in (wrong, right)
    ]
    assert abs(charges[0].at - time.time() - 600) < 5
    assert [(request.fault, request.status) for request in requests_seen] == [("clock", 200), (None, 200)]


def test_clock_is_wrong_on_a_refusal_too(sandbox: Sandbox, topup):
    sandbox.fault("createTopup", "clock", seconds=-3600)

    refused = topup(999)

    assert refused.status_code == 400
    assert parsedate_to_datetime(refused.headers["Date"]).timestamp() < time.time() - 3500


def test_fault_may_set_the_headers_of_cloudflare(sandbox: Sandbox, call):
    headers = {"Ratelimit": '"default";r=0;t=5', "Date": "Thu, 01 Jan 1970 00:00:00 GMT"}
    sandbox.fault("getTopupLimits", "garbage", headers=headers)

    response = call("GET", "topup/limits")
    assert {name: response.headers[name] for name in headers} == headers


def test_status_can_be_the_page_of_the_edge(sandbox: Sandbox, topup):
    sandbox.fault("createTopup", "status", status=524, html=True)

    response = topup()

    assert response.status_code == 524
    assert response.headers["Content-Type"].startswith("text/html")
    assert "cloudflare" in response.text


@pytest.mark.parametrize(
    "body", ["", "{", "null", '{"success": true, "result": NaN}', '{"success": true, "success": false}']
)
def test_garbage_returns_200_with_any_body(sandbox: Sandbox, topup, body):
    sandbox.fault("createTopup", "garbage", when="after", body=body)

    response = topup()

    assert (response.status_code, response.text) == (200, body)
    assert len(sandbox.charges()) == 1


def test_garbage_is_half_an_envelope_or_huge(sandbox: Sandbox, topup):
    sandbox.fault("createTopup", "garbage", when="after")
    with pytest.raises(json.JSONDecodeError):
        json.loads(topup().content)

    sandbox.fault("createTopup", "garbage", when="after", size=5_000_000)
    assert len(topup().content) == 5_000_000


@pytest.mark.parametrize("part", ["head", "body"])
def test_slow_response_trickles_in(sandbox: Sandbox, topup, part):
    sandbox.fault("createTopup", "slow", when="after", seconds=0.001, part=part)

    started = time.monotonic()
    response = topup()

    assert response.json()["success"] is True
    assert time.monotonic() - started > 0.15
    assert len(sandbox.charges()) == 1


def test_slow_response_defeats_a_read_timeout(sandbox: Sandbox, topup):
    sandbox.fault("createTopup", "slow", when="before", seconds=0.05, part="head")

    with pytest.raises(requests.ReadTimeout):
        topup(timeout=0.01)
    assert sandbox.charges() == []


@pytest.mark.parametrize(("when", "charged"), PERFORMED)
def test_redirect_says_where_to(sandbox: Sandbox, topup, when, charged):
    sandbox.fault("createTopup", "redirect", when=when, status=307, location="https://elsewhere.invalid/x")

    response = topup()

    assert (response.status_code, response.headers["Location"]) == (307, "https://elsewhere.invalid/x")
    assert len(sandbox.charges()) == charged


@pytest.mark.parametrize(("when", "charged"), PERFORMED)
def test_truncate_promises_more_than_it_sends(sandbox: Sandbox, topup, when, charged):
    sandbox.fault("createTopup", "truncate", when=when)

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        topup()
    assert len(sandbox.charges()) == charged


def test_fault_honors_operation_skip_and_times(sandbox: Sandbox, call, topup):
    sandbox.fault("getCreditBalance", "status", status=503, skip=1, times=2)

    statuses = [call("GET", "credit-balance").status_code for _ in range(5)]

    assert statuses == [200, 503, 503, 200, 200]
    assert topup().status_code == 200
    assert sandbox.state()["faults"] == []


def test_faults_of_one_operation_take_turns(sandbox: Sandbox, call):
    sandbox.fault("*", "status", status=500)
    sandbox.fault("getCreditBalance", "status", status=503, skip=1)

    assert [call("GET", "credit-balance").status_code for _ in range(4)] == [500, 200, 503, 200]


def test_fault_can_stay_until_it_is_removed(sandbox: Sandbox, call):
    sandbox.fault("*", "status", status=503, times=None)

    assert {call("GET", "topup/limits").status_code for _ in range(5)} == {503}
    sandbox.clear_faults()
    assert call("GET", "topup/limits").status_code == 200


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ({"operation": "chargeCard", "kind": "reset"}, "unknown operation 'chargeCard'"),
        ({"operation": "createTopup", "kind": "explode"}, "kind: 'explode'"),
        ({"operation": "createTopup", "kind": "reset", "often": 2}, "unknown key 'often'"),
        ({"operation": "createTopup", "kind": "reset", "times": 0}, "times"),
        ({"operation": "createTopup", "kind": "status", "when": "middle"}, "middle"),
        ({"operation": "createTopup", "kind": "slow", "when": "late"}, "late"),
        ({"operation": "createTopup", "kind": "status", "status": 42}, "status"),
        ({"operation": "createTopup", "kind": "status", "status": True}, "status"),
        ({"operation": "createTopup", "kind": "clock"}, "seconds"),
        ({"operation": "createTopup", "kind": "clock", "seconds": 1e12}, "seconds"),
        ({"operation": "createTopup", "kind": "reset", "when": "late", "seconds": -1}, "seconds"),
    ],
)
def test_invalid_fault_is_refused_by_name(sandbox: Sandbox, fault, complaint):
    with pytest.raises(ValueError, match=complaint):
        sandbox.fault(**fault)
    assert sandbox.state()["faults"] == []


def test_hung_request_does_not_block_stopping():
    with Sandbox() as sandbox:
        sandbox.fault("createTopup", "hang", when="after")
        address = urlsplit(sandbox.url)
        connection = socket.create_connection((address.hostname, address.port), 3)
        path = f"/client/v4/accounts/{sandbox.account_id}/ai-gateway/billing/topup"
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: sandbox\r\n\r\n".encode())
        deadline = time.monotonic() + 20
        while not sandbox.requests() and time.monotonic() < deadline:
            time.sleep(0.01)
        started = time.monotonic()
    with connection:
        assert time.monotonic() - started < 20  # a hung request hangs for minutes
