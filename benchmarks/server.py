"""A server that responds at once and counts: so that what is measured is the client.

``python -m benchmarks.server``: prints its port. ``/count`` returns how many requests there were, by path.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter

_BALANCE = {
    "balance": 5000,
    "has_default_payment_method": True,
    "payment_method": {"brand": "visa", "last4": "4242"},
    "topup_config": {"amount": 2500, "threshold": 1000},
    "first_topup_success": True,
}


def _response(status: str, body: object, *headers: str) -> bytes:
    text = json.dumps(body).encode()
    head = (f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(text)}", *headers)
    return "\r\n".join(head).encode() + b"\r\n\r\n" + text


_OK = _response("200 OK", {"success": True, "errors": [], "messages": [], "result": _BALANCE})
_NOT_YET = _response("404 Not Found", {})
_TOO_MANY = _response(
    "429 Too Many Requests", {"success": False, "errors": [], "messages": []}, "Retry-After: 2"
)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: Counter[str]) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ", 2)[1].decode()
            if path == "/count":
                writer.write(_response("200 OK", counted))
            else:
                counted[path] += 1
                writer.write(_TOO_MANY if "limited" in path else _OK if path.startswith("/ok/") else _NOT_YET)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    counted: Counter[str] = Counter()
    server = await asyncio.start_server(lambda r, w: _serve(r, w, counted), "127.0.0.1", 0, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
