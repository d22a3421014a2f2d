"""Serve a sandbox from a thread of this process."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from airflow_provider_cfbilling.sandbox.models import Account
from airflow_provider_cfbilling.sandbox.steering import SandboxClient

_START_TIMEOUT = 10.0  # seconds


class Sandbox(SandboxClient):
    """A sandbox that lives as long as its ``with`` block, and the client that steers it.

    :param host: to bind to. Whoever reaches it can change everything in it.
    :param port: 0: a free one.
    :param database: path of its ledger; by default a temporary file.
    :param settle_seconds: from a top-up's acceptance to its settlement.
    :param accounts: how many accounts there are to begin with.
    :param rate_quota: requests per window and token.
    :param rate_window_seconds: the window, and how long a token is blocked that sent too many requests.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        database: str | Path | None = None,
        settle_seconds: float = 2.0,
        accounts: int = 1,
        rate_quota: int = 1_200,
        rate_window_seconds: float = 300.0,
    ) -> None:
        # Only who serves a sandbox needs its web framework.
        from airflow_provider_cfbilling.sandbox.asgi import build_server
        from airflow_provider_cfbilling.sandbox.state import SandboxState, ServerSettings

        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        shown_host = f"[{host}]" if ":" in host else host
        super().__init__(f"http://{shown_host}:{self._socket.getsockname()[1]}")
        settings = ServerSettings(rate_quota, rate_window_seconds)
        self._state = SandboxState(database, accounts, Account(settle_seconds=settle_seconds), settings)
        self._server = build_server(self._state)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="sandbox", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the sandbox did not start")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._state.ledger.close()
