"""Two things that `requests` does not report: whether a request has begun to go out, and a true deadline.

A read timeout starts again with every byte, so a response that trickles has no end. And an exception alone
does not prove that nothing was sent. Both are known where the socket is: here.
"""

import functools
import heapq
import http.client
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool

from airflow_provider_cfbilling.api.errors import CfBillingNotSentInTimeError

# The lines of one response: its head, and what frames the chunks of its body.
_LINES_LIMIT_BYTES = 256 * 1024

_under_way: ContextVar["RequestAttempt"] = ContextVar("request_under_way")


@dataclass(frozen=True)
class SendDeadline:
    """The time by which a request must begin, on both clocks: a machine that sleeps stops one of them."""

    wall: float
    monotonic: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> "SendDeadline":
        return cls(time.time() + seconds, time.monotonic() + seconds, seconds)

    def is_past(self) -> bool:
        wall_left, monotonic_left = self.wall - time.time(), self.monotonic - time.monotonic()
        # A wall clock that was set back proves nothing.
        return wall_left < 0 or monotonic_left < 0 or wall_left > self.seconds + 1


class RequestAttempt:
    """One request and its response.

    :ivar instrumented: True once its connection, if it gets one, is one that reports when a request goes out.
    :ivar send_started: True once a byte of the request may have been handed to the socket.
    :ivar expired: True once the deadline has cut the connection.
    """

    def __init__(self, seconds: float, send_by: SendDeadline | None) -> None:
        self.instrumented = False
        self.send_started = False
        self.expired = False
        self._seconds = seconds
        self._send_by = send_by
        self._socket: Any = None
        self._lock = threading.Lock()

    @property
    def nothing_sent(self) -> bool:
        """Whether it is proven that nothing was requested of the server."""
        return self.instrumented and not self.send_started

    def begin(self, sock: Any) -> None:
        """Note that the request goes out now, through ``sock``; the deadline counts from here.

        :raises CfBillingNotSentInTimeError: it is too late to send it.
        """
        if self._send_by and self._send_by.is_past():
            raise CfBillingNotSentInTimeError(
                f"The request was not ready within {self._send_by.seconds:g} s. Nothing was sent"
            )
        self.send_started = True
        self._socket = sock
        _watchdog.watch(time.monotonic() + self._seconds, self)

    def end(self) -> None:
        """Note that the socket is free for another request."""
        with self._lock:
            self._socket = None

    def expire(self) -> None:
        """Cut the connection, unless the attempt is over."""
        with self._lock:
            if self._socket is None:
                return
            self.expired = True
            # A TLS connection through a TLS proxy wraps its socket once more. The base class's method
            # leaves the TLS state alone, which the reading thread is using.
            sock = getattr(self._socket, "socket", self._socket)
            with suppress(OSError):  # closed in the meantime: nothing is left to cut
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


@contextmanager
def request_attempt(seconds: float, send_by: SendDeadline | None = None) -> Iterator[RequestAttempt]:
    """Bound the request made in this block: ``seconds`` from its first byte to the response's last."""
    this = RequestAttempt(seconds, send_by)
    token = _under_way.set(this)
    try:
        yield this
    finally:
        this.end()
        _under_way.reset(token)


class _Watchdog:
    """One thread that expires the attempts of this process when they are due."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._due: list[tuple[float, int, RequestAttempt]] = []
        self._order = itertools.count()
        self._earlier = threading.Condition()
        self._thread: threading.Thread | None = None

    def watch(self, deadline: float, attempt: RequestAttempt) -> None:
        with self._earlier:
            heapq.heappush(self._due, (deadline, next(self._order), attempt))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cfbilling-deadlines", daemon=True)
                self._thread.start()
            elif self._due[0][2] is attempt:
                self._earlier.notify()

    def _run(self) -> None:
        while True:
            with self._earlier:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is None or wait > 0:
                    self._earlier.wait(wait)
                    continue
                _, _, attempt = heapq.heappop(self._due)
            attempt.expire()


_watchdog = _Watchdog()
os.register_at_fork(after_in_child=_watchdog.reset)  # threads do not survive a fork; Airflow forks


class SendTrackingAdapter(HTTPAdapter):
    """Tells the request attempt under way when its request goes out. Never sends anything twice."""

    def __init__(self) -> None:
        super().__init__(max_retries=0)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        # What fails in here, as a proxy's URL that cannot be read does, fails before there is a connection.
        _under_way.get().instrumented = True
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _tracking(pool.ConnectionCls)
        return pool  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close the connections now: urllib3 leaves it to the garbage collector, which a failure delays."""
        managers: list[Any] = [self.poolmanager, *self.proxy_manager.values()]
        for pools in [manager.pools for manager in managers]:
            for key in pools.keys():  # noqa: SIM118 - they cannot be iterated over otherwise
                # Another thread may have closed it. And what a charge has ended with must not be hidden.
                with suppress(KeyError, OSError):
                    pools[key].close()
        super().close()


class _Bounded:
    """What a socket receives of one response: pieces of the requested size, and lines up to a limit."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = _LINES_LIMIT_BYTES

    def read(self, size: int = -1) -> bytes:
        if size < 0:  # to the end, which may never come: so a chunk says whose size is -1
            raise http.client.HTTPException("a part of the response has a size below 0")
        data: bytes = self._file.read(size)
        return data

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._file.readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.HTTPException("the response has no end")
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _StrictResponse(http.client.HTTPResponse):
    """A response of bounded size and with a readable head.

    A head that is not is refused here: urllib3 would take a part of it, and log the rest.
    """

    fp: Any
    headers: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = _Bounded(self.fp)

    def begin(self) -> None:
        super().begin()
        if self.headers.defects or self.headers.get_payload():
            raise http.client.HTTPException("the response's headers cannot be read")


class _SendTracking:
    """A connection that sends a request whole or not at all.

    Head and body go out in one piece, right after the attempt was informed. A process that is frozen between
    two pieces would, when it is woken, complete a charge that is no longer expected.
    """

    response_class = _StrictResponse
    sock: Any
    connect: Callable[[], None]
    _held: list[bytes] | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        # Connecting first keeps its failures on this side of `begin`.
        if self.sock is None:
            self.connect()
        self._held = []
        super().request(*args, **kwargs)  # type: ignore[misc]
        whole, self._held = b"".join(self._held), None
        _under_way.get().begin(self.sock)
        self.send(whole)

    def send(self, data: bytes) -> None:
        if self._held is None:
            super().send(data)  # type: ignore[misc]
        else:
            self._held.append(data)


@functools.cache
def _tracking(connection_class: type) -> type:
    if issubclass(connection_class, _SendTracking):
        return connection_class
    return type(connection_class.__name__, (_SendTracking, connection_class), {})
