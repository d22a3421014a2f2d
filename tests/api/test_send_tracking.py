"""Every exchange ends by its deadline, however the response dawdles, and its end harms no other exchange."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cfbilling.api.errors import CfBillingOutcomeUnknownError, CfBillingUnavailableError
from airflow_provider_cfbilling.api.http.send_tracking import request_attempt
from tests.raw_servers import (
    PATIENCE,
    Peer,
    RawServer,
    client_at,
    eventually,
    http,
    ok,
)

LIMITS = {"min_cents": 1000, "max_cents": 50_000, "currency": "usd"}


def trickle_the_status_line(peer: Peer) -> None:
    peer.request()
    peer.trickle(b"HTTP/1.1 200 O")


def trickle_a_header(peer: Peer) -> None:
    peer.request()
    peer.trickle(b"HTTP/1.1 200 OK\r\nX-Long: a")


def trickle_a_body(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    peer.trickle(b"{ ")


def trickle_a_body_without_length(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    peer.trickle(b"{ ")


def trickle_behind_a_whole_envelope(peer: Peer) -> None:
    peer.request()
    peer.send(http(ok(LIMITS | {"payment_intent_id": "in_1"})).replace(b"Content-Length", b"X-Length"))
    peer.trickle(b" ")


def trickle_a_chunk(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n")
    peer.trickle(b"{ ")


def trickle_chunks(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    peer.trickle(b"1\r\n \r\n" * 10_000)


def trickle_a_server_error(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>")
    peer.trickle(b" ")


def say_nothing(peer: Peer) -> None:
    peer.request()
    peer.hang()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(
    "serve",
    [
        trickle_the_status_line,
        trickle_a_header,
        trickle_a_body,
        trickle_a_body_without_length,
        trickle_behind_a_whole_envelope,
        trickle_a_chunk,
        trickle_chunks,
        trickle_a_server_error,
        say_nothing,
    ],
)
def test_endless_response_is_cut_at_the_deadline(serve: Any, tls: bool, trusted_certificate: Path):
    certificate = trusted_certificate if tls else None
    with RawServer(serve, certificate) as server, client_at(server.url, read_timeout=0.1) as client:
        with pytest.raises(CfBillingUnavailableError, match=r"within 0\.1 s|Read timed out"):
            client.get_topup_config()
        with pytest.raises(CfBillingOutcomeUnknownError, match=r"within 0\.1 s|Read timed out"):
            client.create_topup(1000)
    assert len(server.heads) == 2


def test_each_exchange_of_a_connection_has_its_deadline():
    def serve(peer: Peer) -> None:
        for _ in range(5):
            peer.request()
            time.sleep(0.3)  # five responses take longer than one may
            peer.send(http(ok(LIMITS)))

    with RawServer(serve) as server, client_at(server.url, read_timeout=1.2) as client:
        for _ in range(5):
            client.get_topup_config()
    assert server.connections == 1


def reading(url: str, read_timeout: float, ended: list[str]) -> threading.Thread:
    """A thread that reads what never ends, and notes that it was cut."""

    def read() -> None:
        with client_at(url, read_timeout=read_timeout) as client:
            try:
                client.get_topup_config()
            except CfBillingUnavailableError as error:
                ended.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def test_nearer_deadline_overtakes_a_farther_one():
    ended: list[str] = []
    with RawServer(trickle_a_header) as server:
        patient = reading(server.url, 3 * PATIENCE, ended)
        eventually(lambda: server.heads)
        reading(server.url, 0.2, ended).join(PATIENCE)
        assert len(ended) == 1
        assert patient.is_alive()


def test_many_deadlines_at_a_time_are_all_kept():
    ended: list[str] = []
    with RawServer(trickle_a_header) as server:
        for thread in [reading(server.url, 0.2, ended) for _ in range(20)]:
            thread.join(PATIENCE)
        assert len(ended) == 20


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_deadline_is_kept_in_a_forked_process_too():
    with RawServer(trickle_a_header) as server, client_at(server.url, read_timeout=0.2) as client:
        with pytest.raises(CfBillingUnavailableError):
            client.get_topup_config()  # the watching thread is running from here on
        child = os.fork()
        if child == 0:
            try:
                client.get_topup_config()
            except CfBillingUnavailableError:
                os._exit(42)
            finally:
                os._exit(1)
        status: list[int] = []
        eventually(lambda: status.append(os.waitpid(child, os.WNOHANG)[1]) or status[-1])
        assert os.waitstatus_to_exitcode(status[-1]) == 42


def test_uninstrumented_connection_proves_nothing() -> None:
    with request_attempt(1.0) as unwatched:
        assert not unwatched.nothing_sent
