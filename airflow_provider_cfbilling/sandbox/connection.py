"""The client's connection below HTTP, where a response can be broken."""

from __future__ import annotations

import asyncio
import socket
import struct
from http.client import responses

from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_cfbilling.sandbox.faults import Fault

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, on, for no time at all
_READING_TIME = 0.05  # seconds a client gets to read half a response before the reset


class TransportProtocol(H11Protocol):
    """Hands the connection's transport to the application, which ASGI alone does not."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
        # Headers and body are two small writes: the second must not wait for the first one's receipt.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class ClientConnection:
    """One request's connection. Once used, it is closed for good."""

    def __init__(self, request: Request) -> None:
        self._transport: asyncio.Transport = request.state.transport
        self._receive = request.receive

    async def spoil(self, fault: Fault, response: Response) -> None:
        """Send what the fault leaves of a response, and return when the client has gone."""
        head, body = head_of(response), bytes(response.body)
        if fault.when == "middle":
            self._transport.write(head + body[: len(body) // 2])
        if fault.kind == "slow":
            await self._trickle(head, body, fault)
        elif fault.kind == "truncate":
            self._transport.write(head_of(response, missing=100) + body)
        elif fault.kind == "reset":
            await self._reset()
        if fault.kind != "hang":
            self._transport.close()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _reset(self) -> None:
        await asyncio.sleep(_READING_TIME)
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    async def _trickle(self, head: bytes, body: bytes, fault: Fault) -> None:
        at_once, slowly, at_last = (b"", head, body) if fault.part == "head" else (head, body, b"")
        self._transport.write(at_once)
        for byte in slowly:
            if self._transport.is_closing():
                return
            self._transport.write(bytes([byte]))
            await asyncio.sleep(fault.seconds)
        self._transport.write(at_last)


def head_of(response: Response, missing: int = 0) -> bytes:
    """Status line and headers, promising some more bytes than there are."""
    phrase = responses.get(response.status_code, "")
    headers = {**response.headers, "content-length": str(len(response.body) + missing), "connection": "close"}
    lines = [f"HTTP/1.1 {response.status_code} {phrase}", *(f"{name}: {headers[name]}" for name in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
