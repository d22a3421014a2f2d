"""The sandbox's own surface under ``/sandbox/``: JSON, without credentials, never a part of the real API.

===========================================  ==========================================================
``GET  /sandbox/state``                      accounts, charges, the latest requests, faults to come
``GET  /sandbox/charges?account_id=``        every charge, oldest first
``GET  /sandbox/invoices?account_id=``       every invoice, newest first, also those not yet in a history
``GET  /sandbox/requests?operation=``        every request to the API, oldest first
``POST /sandbox/accounts/{id}``              create or change an account: fields of ``Account``
``POST /sandbox/accounts/{id}/auto-topup``   fields of ``AutoTopup``
``POST /sandbox/accounts/{id}/invoices``     fields of ``PastInvoice``
``POST /sandbox/server``                     fields of ``ServerSettings``
``POST /sandbox/faults``                     fields of ``Fault``
``DELETE /sandbox/faults``                   no more faults
``POST /sandbox/reset``                      forget everything and start afresh
===========================================  ==========================================================

What does not fit is refused by name: 400 and ``{"error": ...}``. Bodies need the JSON content type, which
keeps other web pages from posting here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_cfbilling.sandbox.faults import Fault
from airflow_provider_cfbilling.sandbox.ledger import Ledger
from airflow_provider_cfbilling.sandbox.models import AutoTopup, PastInvoice, checked
from airflow_provider_cfbilling.sandbox.operations import OPERATION_IDS
from airflow_provider_cfbilling.sandbox.responses import json_object
from airflow_provider_cfbilling.sandbox.state import SandboxState

_LATEST_REQUESTS = 100
_ACCOUNT_ID = re.compile(r"[0-9a-f]{32}")


def admin_routes(state: SandboxState) -> list[Route]:
    """The admin API of one state."""
    admin = _AdminApi(state)
    return [
        Route("/sandbox/state", _responding(admin.state), methods=["GET"]),
        Route("/sandbox/charges", _responding(admin.charges), methods=["GET"]),
        Route("/sandbox/invoices", _responding(admin.invoices), methods=["GET"]),
        Route("/sandbox/requests", _responding(admin.requests), methods=["GET"]),
        Route("/sandbox/accounts/{account_id}", _responding(admin.configure_account), methods=["POST"]),
        Route("/sandbox/accounts/{account_id}/auto-topup", _responding(admin.auto_topup), methods=["POST"]),
        Route("/sandbox/accounts/{account_id}/invoices", _responding(admin.add_invoice), methods=["POST"]),
        Route("/sandbox/server", _responding(admin.configure_server), methods=["POST"]),
        Route("/sandbox/faults", _responding(admin.add_fault), methods=["POST"]),
        Route("/sandbox/faults", _responding(admin.clear_faults), methods=["DELETE"]),
        Route("/sandbox/reset", _responding(admin.reset), methods=["POST"]),
    ]


def _responding(command: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await command(request))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    return endpoint


class _AdminApi:
    def __init__(self, state: SandboxState) -> None:
        self._state = state

    async def state(self, request: Request) -> object:
        ledger = self._settled()
        return {
            "now": self._state.now(),
            "accounts": {name: asdict(account) for name, account in ledger.accounts().items()},
            "charges": _dicts(ledger.charges()),
            "requests": _dicts(ledger.requests(latest=_LATEST_REQUESTS)),
            "faults": _dicts(self._state.faults.pending()),
            "server": asdict(self._state.settings),
        }

    async def charges(self, request: Request) -> object:
        return _dicts(self._settled().charges(request.query_params.get("account_id")))

    async def invoices(self, request: Request) -> object:
        return _dicts(self._settled().invoices(request.query_params.get("account_id")))

    async def requests(self, request: Request) -> object:
        operation = request.query_params.get("operation")
        return _dicts(self._state.ledger.requests(_known_operation(operation) if operation else None))

    async def configure_account(self, request: Request) -> object:
        account_id = request.path_params["account_id"]
        if not _ACCOUNT_ID.fullmatch(account_id):
            raise ValueError("an account id is 32 hexadecimal digits in lower case")
        switches = await _body(request)
        self._settled()
        return asdict(self._state.configure_account(account_id, switches))

    async def auto_topup(self, request: Request) -> object:
        change = checked(AutoTopup, await _body(request))
        self._settled()
        invoice = self._state.billing.change_auto_topup(request.path_params["account_id"], change)
        return asdict(invoice) if invoice else None

    async def add_invoice(self, request: Request) -> object:
        past = checked(PastInvoice, await _body(request))
        return asdict(self._state.billing.add_past_invoice(request.path_params["account_id"], past))

    async def configure_server(self, request: Request) -> object:
        return asdict(self._state.configure_server(await _body(request)))

    async def add_fault(self, request: Request) -> object:
        fault = checked(Fault, await _body(request))
        if fault.operation != "*":
            _known_operation(fault.operation)
        self._state.faults.add(fault)
        return asdict(fault)

    async def clear_faults(self, request: Request) -> object:
        self._state.faults.clear()
        return None

    async def reset(self, request: Request) -> object:
        self._state.reset()
        return None

    def _settled(self) -> Ledger:
        self._state.ledger.settle(self._state.now())
        return self._state.ledger


async def _body(request: Request) -> dict[str, Any]:
    return json_object(request.headers.get("content-type", ""), await request.body())


def _known_operation(operation: str) -> str:
    if operation not in OPERATION_IDS:
        raise ValueError(f"unknown operation {operation!r}; known: {', '.join(OPERATION_IDS)}")
    return operation


def _dicts(records: Iterable[Any]) -> list[dict[str, Any]]:
    return [asdict(record) for record in records]
