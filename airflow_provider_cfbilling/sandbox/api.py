"""The stand-in for Cloudflare's API: an ASGI application, faults included."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from airflow_provider_cfbilling.sandbox.connection import ClientConnection
from airflow_provider_cfbilling.sandbox.faults import Fault
from airflow_provider_cfbilling.sandbox.request_handler import RequestHandler
from airflow_provider_cfbilling.sandbox.responses import RefusalError, edge_page
from airflow_provider_cfbilling.sandbox.state import SandboxState

_HALF_AN_ENVELOPE = '{"success": true, "errors": [], "messages": [], "result": {"pay'


class BillingApi:
    """Serves everything under ``/client/v4``; any other path is not found."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            handler = RequestHandler(self._state, request, await request.body())
        except ClientDisconnect:
            return
        if handler.fault is None or handler.fault.kind == "clock":
            await handler.respond(handler.perform(), send)
            return
        # A request that hangs is cancelled when the server stops.
        with suppress(asyncio.CancelledError):
            await _play(handler.fault, handler, send)


async def _play(fault: Fault, handler: RequestHandler, send: Send) -> None:
    performed = fault.when in ("after", "middle")
    response = handler.perform() if performed else handler.with_headers(edge_page(502))
    if fault.kind in ("status", "garbage", "redirect"):
        await handler.respond(handler.with_headers(_replacement(fault)), send)
    else:
        if fault.kind in ("slow", "truncate"):
            handler.record_status(response)
        await ClientConnection(handler.request).spoil(fault, response)
    if fault.when == "late":
        await asyncio.sleep(fault.seconds)
        handler.perform()


def _replacement(fault: Fault) -> Response:
    if fault.kind == "redirect":
        return RedirectResponse(fault.location, fault.status or 302, fault.headers)
    if fault.kind == "garbage":
        body = _HALF_AN_ENVELOPE if fault.body is None else fault.body
        body = body if fault.size is None else "x" * fault.size
        return Response(body, fault.status or 200, fault.headers, media_type="application/json")
    status = fault.status or 502
    if fault.body is not None:
        return Response(fault.body, status, fault.headers, media_type="application/json")
    if fault.html:
        return edge_page(status, fault.headers)
    return RefusalError(status, 10000 + status, f"Injected error {status}", fault.headers).response()
