"""The shapes of a response: Cloudflare's envelope, a refusal, the page of its edge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, Response

_EDGE_PAGE = """<!DOCTYPE html>
<html lang="en-US"><head><title>api.cloudflare.com | {status}</title></head>
<body><h1>Error {status}</h1><p>The web server reported an error.</p><footer>cloudflare</footer></body></html>
"""


class RefusalError(Exception):
    """A request that gets an error for a response, and has no effect.

    :param chain: what is below the error: codes and messages of its ``error_chain``.
    """

    def __init__(
        self,
        status: int,
        code: int,
        message: str,
        headers: dict[str, str] | None = None,
        chain: Sequence[tuple[int, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        self.chain = chain

    def response(self) -> Response:
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.chain:
            error["error_chain"] = [{"code": code, "message": message} for code, message in self.chain]
        envelope = {"success": False, "errors": [error], "messages": [], "result": None}
        return JSONResponse(envelope, status_code=self.status, headers=self.headers)


def success(result: object) -> Response:
    return JSONResponse({"success": True, "errors": [], "messages": [], "result": result})


def edge_page(status: int, headers: dict[str, str] | None = None) -> Response:
    """What Cloudflare's edge responds with when it does not reach the API: HTML."""
    return HTMLResponse(_EDGE_PAGE.format(status=status), status_code=status, headers=headers)


def json_object(content_type: str, body: bytes) -> dict[str, Any]:
    """Read a request's JSON object strictly: no other content type, no repeated keys, no NaN."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise ValueError("the content type must be application/json")
    try:
        value = json.loads(body, object_pairs_hook=_distinct, parse_constant=_no_nan)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("the body must be a JSON object")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is repeated")
    return result


def _no_nan(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
