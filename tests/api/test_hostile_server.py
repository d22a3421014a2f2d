"""A server that means harm: whatever it sends, one request is made, and ends soon in a documented error.

JSON that is not Cloudflare's is in ``test_envelope.py``, responses that trickle in ``test_send_tracking.py``,
secrets that are sent back in ``test_echoed_secrets.py``.
"""

import gzip
import json
import logging
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingError,
    CfBillingMalformedResponseError,
    CfBillingOutcomeUnknownError,
    CfBillingUnavailableError,
)
from tests.raw_servers import Peer, RawServer, client_at, fresh_token, http, ok, refused

CREDENTIALS = {"token": {}, "global key": {"email": "me@example.com"}}
MAX_SECONDS = 30.0  # no hang: the deadline is 10, and counting the memory makes all of it slower
MAX_BYTES = 100 * 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOPUP = {"payment_intent_id": "in_1", "min_cents": 1000, "max_cents": 5000, "currency": "usd"}
ACCEPTED = json.dumps(ok(TOPUP)).encode()
BOMB = gzip.compress(b" " * 50_000_000)


def sends(*parts: bytes, endlessly: bytes = b"") -> Callable[[Peer], None]:
    """Respond to a request with what is given, and its last part for ever."""

    def serve(peer: Peer) -> None:
        peer.request()
        for part in parts:
            peer.send(part)
        while endlessly:
            peer.send(endlessly * max(1, 65536 // len(endlessly)))

    return serve


# name: what is sent, and part of what a read says of it
NO_HTTP = {
    "nothing": (sends(b""), "No response from"),
    "another protocol": (sends(b"SSH-2.0-OpenSSH_9.6\r\n"), "BadStatusLine"),
    "HTTP/0.9": (sends(ACCEPTED), "BadStatusLine: {"),
    "HTTP/9.9": (sends(b"HTTP/9.9 200 OK\r\n\r\n"), "UnknownProtocol"),
    "no status": (sends(b"HTTP/1.1 \r\n\r\n"), "BadStatusLine"),
    "status of four digits": (sends(b"HTTP/1.1 4000 X\r\n\r\n"), "BadStatusLine"),
    "status line with controls": (sends(b"HTTP/1.1 \x1b[31m\x07\x00\x9b2J\r\n\r\n"), "BadStatusLine: HTTP"),
    "status line without end": (sends(b"HTTP/1.1 200 ", endlessly=b"O"), "LineTooLong"),
    "1xx without end": (sends(endlessly=b"HTTP/1.1 100 Continue\r\n\r\n"), "the response has no end"),
    "1xx that is long": (sends(b"HTTP/1.1 100 C\r\n", endlessly=b"a: b\r\n"), "more than 100 headers"),
    "headers without end": (sends(b"HTTP/1.1 200 OK\r\n", endlessly=b"a: b\r\n"), "more than 100 headers"),
    "header without end": (sends(b"HTTP/1.1 200 OK\r\na: ", endlessly=b"a"), "LineTooLong"),
    "header name without end": (sends(b"HTTP/1.1 200 OK\r\n", endlessly=b"a"), "LineTooLong"),
    "header without colon": (sends(b"HTTP/1.1 200 OK\r\nno\r\n\r\n" + ACCEPTED), "headers cannot be read"),
    "header that goes on from nowhere": (
        sends(b"HTTP/1.1 200 OK\r\n on\r\n\r\n" + ACCEPTED),
        "headers cannot be read",
    ),
    "body of many parts": (
        sends(http(ACCEPTED, Content_Type="multipart/mixed; boundary=x")),
        "headers cannot be read",
    ),
    "two lengths": (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n{}"), "InvalidHeader"),
    "two headers with a length": (sends(http(ACCEPTED, content_length=7)), "InvalidHeader"),
    "length beyond the response": (
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"),
        "IncompleteRead",
    ),
    "length beyond numbers": (
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n{}" % 10**30),
        "IncompleteRead",
    ),
    "chunk without a size": (sends(CHUNKED + b"not a size\r\n"), "IncompleteRead"),
    "chunk of 2**63 bytes": (sends(CHUNKED + b"8000000000000000\r\n" + ACCEPTED), "IncompleteRead"),
    "chunk of -1 bytes": (sends(CHUNKED + b"-1\r\n", endlessly=b" "), "has a size below 0"),
    "chunk of -5 bytes": (sends(CHUNKED + b"-5\r\n", ACCEPTED), "has a size below 0"),
    "chunk extension without end": (sends(CHUNKED + b"1;", endlessly=b"a"), "LineTooLong"),
    "chunks of one byte": (sends(CHUNKED, endlessly=b"1\r\n \r\n"), "the response has no end"),
    "trailer without end": (sends(CHUNKED + b"0\r\n", endlessly=b"a: b\r\n"), "the response has no end"),
}
NOT_CLOUDFLARE = {
    "body without end": (sends(b"HTTP/1.1 200 OK\r\n\r\n", endlessly=b" "), "larger than"),
    "refusal without end": (sends(b"HTTP/1.1 400 No\r\n\r\n", endlessly=b" "), "larger than"),
    "body beyond its length": (
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", endlessly=b" "),
        "larger than",
    ),
    "compressed": (sends(http(BOMB, Content_Encoding="gzip")), "compressed"),
    "compressed with br": (sends(http(b"\x0b", Content_Encoding="br")), "compressed"),
    "compressed with zstd": (sends(http(b"\x28", Content_Encoding="zstd")), "compressed"),
    "compressed twice": (sends(http(BOMB, Content_Encoding="identity, gzip")), "compressed"),
    "compressed to travel": (sends(http(BOMB, Transfer_Encoding="gzip")), "not what the API documents"),
    "redirect without end": (sends(b"HTTP/1.1 302 F\r\nLocation: /a\r\n\r\n", endlessly=b" "), "larger than"),
    "redirect with a bomb": (sends(http(BOMB, 302, Location="/a", Content_Encoding="gzip")), "compressed"),
    "redirect to no address": (sends(http(b"", 302, Location="http://[::1")), "redirect"),
    "redirect to bytes": (sends(http(b"", 307, Location="\xff\xfe")), "redirect"),
    "redirect to a long address": (sends(http(b"", 308, Location="/" + "a" * 60_000)), "redirect"),
    "interim response alone": (sends(b"HTTP/1.1 103 Early\r\n\r\n"), "not what the API documents"),
    "a megabyte of small lists": (sends(http(b"[" + b"[]," * 300_000 + b"[]]")), "not Cloudflare's envelope"),
    "4 MB of depth": (sends(http(b'{"a":' * 800_000)), "nested too deeply"),
    "code of 4000 digits": (
        sends(http(json.dumps(refused(1)).replace('"code": 1', f'"code": {"9" * 4000}').encode(), 400)),
        "its errors are not Cloudflare's",
    ),
    "date beyond time": (sends(http(b"", Date="Mon, 01 Jan 99999999999999999999 00:00:00 GMT")), "documents"),
}
HOSTILE = [
    *((serve, CfBillingUnavailableError, said) for serve, said in NO_HTTP.values()),
    *((serve, CfBillingMalformedResponseError, said) for serve, said in NOT_CLOUDFLARE.values()),
]


@contextmanager
def bounded(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail where it takes long, takes much memory or logs much."""
    caplog.set_level(logging.DEBUG)
    tracemalloc.start()
    began = time.monotonic()
    try:
        yield
    finally:
        took, (_, most) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert took < MAX_SECONDS
    assert most < MAX_BYTES
    assert len(caplog.text) < 2000


def failure_of(client: CfBillingClient, call: Callable[[CfBillingClient], object]) -> CfBillingError:
    with pytest.raises(CfBillingError) as caught:
        call(client)
    said = str(caught.value)
    assert len(said) < 500
    assert said.isprintable()
    return caught.value


@pytest.mark.parametrize(("serve", "kind", "said"), HOSTILE, ids=[*NO_HTTP, *NOT_CLOUDFLARE])
def test_read_ends_soon_in_one_documented_error(
    serve: Callable[[Peer], None], kind: type[CfBillingError], said: str, caplog: pytest.LogCaptureFixture
):
    with RawServer(serve) as server, client_at(server.url) as client, bounded(caplog):
        error = failure_of(client, CfBillingClient.get_topup_config)
    assert type(error) is kind
    assert said in str(error)
    assert (server.connections, len(server.heads)) == (1, 1)


@pytest.mark.parametrize(("serve", "kind", "said"), HOSTILE, ids=[*NO_HTTP, *NOT_CLOUDFLARE])
def test_charge_is_sent_once_and_soon_unknown(
    serve: Callable[[Peer], None], kind: type[CfBillingError], said: str, caplog: pytest.LogCaptureFixture
):
    with RawServer(serve) as server, client_at(server.url, max_attempts=5) as client, bounded(caplog):
        error = failure_of(client, lambda client: client.create_topup(1000))
    assert type(error) is CfBillingOutcomeUnknownError
    assert said in str(error)
    assert (server.connections, len(server.heads)) == (1, 1)


@pytest.mark.parametrize("credentials", CREDENTIALS.values(), ids=CREDENTIALS)
def test_credentials_go_to_no_other_server(credentials: dict[str, str]):
    secret = fresh_token()
    pointing: dict[str, object] = {}

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(http(b"", 307, **pointing))

    with RawServer(sends(http(ok(TOPUP)))) as elsewhere, RawServer(serve) as server:
        for name in ("Location", "Refresh", "Link", "Content-Location", "Alt-Svc", "Set-Cookie"):
            pointing[name] = f"{elsewhere.url}/ , h2=':{elsewhere.port}', 0; url={elsewhere.url}"
        with client_at(server.url, secret=secret, max_attempts=5, **credentials) as client:
            failure_of(client, CfBillingClient.get_topup_config)
            failure_of(client, lambda client: client.create_topup(1000))
    assert elsewhere.connections == 0
    assert len(server.heads) == 2
    assert all(head.count(secret) == 1 and "Cookie" not in head for head in server.heads)


def test_cookies_are_neither_kept_nor_sent_back():
    responses = [http(ok(TOPUP), Set_Cookie=f"name{number}={'v' * 60_000}") for number in range(20)]

    def serve(peer: Peer) -> None:
        for response in responses:
            peer.request()
            peer.send(response)

    with RawServer(serve) as server, client_at(server.url) as client:
        client.get_topup_limits()
        tracemalloc.start()
        for _ in responses[1:]:
            client.get_topup_limits()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < 600_000
    assert not any("Cookie" in head for head in server.heads)
