"""One request to the API and its response."""

from __future__ import annotations

import secrets
from contextlib import suppress
from email.utils import formatdate
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from airflow_provider_cfbilling.sandbox.auth import Credentials, authorize
from airflow_provider_cfbilling.sandbox.models import SeenRequest
from airflow_provider_cfbilling.sandbox.operations import Call, Operation, route
from airflow_provider_cfbilling.sandbox.responses import RefusalError, success
from airflow_provider_cfbilling.sandbox.state import SandboxState


class RequestHandler:
    """Handles a request that has arrived whole: it counts, it is on record, and a fault may await it.

    :ivar fault: what goes wrong with it; None: nothing.
    """

    def __init__(self, state: SandboxState, request: Request, body: bytes) -> None:
        self.request = request
        self._body = body
        self._path: str = request.scope["path"]
        self._query: str = request.scope["query_string"].decode("latin-1")
        self._state = state
        self._epoch = state.epoch
        address = request.client.host if request.client else "127.0.0.1"
        self._credentials = Credentials.of(request.headers, address)
        self._limit_headers, self._too_many = state.limiter.count(self._credentials.fingerprint)
        self._operation: Operation | None = None
        with suppress(RefusalError):
            _, self._operation = route(request.method, self._path)
        self.fault = state.faults.take(self._operation.id) if self._operation else None
        self._number = state.ledger.add_request(self._seen())

    def _seen(self) -> SeenRequest:
        return SeenRequest(
            at=self._state.now(),
            method=self.request.method,
            path=self._path,
            query=self._query,
            operation=self._operation.id if self._operation else None,
            status=None,
            token=self._credentials.fingerprint,
            fault=self.fault.kind if self.fault else None,
        )

    def perform(self) -> Response:
        """Perform the request, if it may: the response is ready to be sent."""
        if self._epoch != self._state.epoch:
            return self.with_headers(RefusalError(503, 10503, "The sandbox was reset").response())
        try:
            return self.with_headers(success(self._result()))
        except RefusalError as refusal:
            return self.with_headers(refusal.response())

    def _result(self) -> object:
        if self._too_many is not None:
            raise self._too_many
        account_id, operation = route(self.request.method, self._path)
        now = self._state.now()
        self._state.ledger.settle(now)
        accounts = self._state.ledger.accounts()
        call = Call(
            account_id=account_id,
            account=authorize(self._credentials, account_id, accounts, write=operation.write),
            query=parse_qs(self._query, keep_blank_values=True),
            content_type=self.request.headers.get("content-type", ""),
            body=self._body,
            now=now,
        )
        return operation.perform(self._state.operations, call)

    def with_headers(self, response: Response) -> Response:
        """Add the headers that every response of Cloudflare's carries, unless a fault has set them."""
        wrong_by = self.fault.seconds if self.fault and self.fault.kind == "clock" else 0.0
        headers = {
            "date": formatdate(self._state.now() + wrong_by, usegmt=True),
            "cf-ray": f"{secrets.token_hex(8)}-AMS",
            **self._limit_headers,
        }
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    async def respond(self, response: Response, send: Send) -> None:
        self.record_status(response)
        await response(self.request.scope, self.request.receive, send)

    def record_status(self, response: Response) -> None:
        """Put the response's status on record, before the client can know it."""
        if self._epoch == self._state.epoch:
            self._state.ledger.responded(self._number, response.status_code)
