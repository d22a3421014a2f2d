"""What the credits page is made of, over HTTP. Only who is logged in gets anything but the script."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse

from airflow_provider_cfbilling.ui.accounts import may_read_connections, read_accounts, readable_connections
from airflow_provider_cfbilling.ui.charges import dag_runs_of
from airflow_provider_cfbilling.ui.page import page
from airflow_provider_cfbilling.ui.plugin import base_path

log = logging.getLogger(__name__)

_SCRIPT = Path(__file__).parent / "static" / "credits.js"

# No OpenAPI document and no pages of it: they would be open to everybody.
app = FastAPI(title="AI Gateway credits", openapi_url=None)


@app.middleware("http")
async def _protect(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    try:
        response = await call_next(request)
    except Exception:  # else Starlette would respond, without these headers
        log.exception("The credits page failed")
        response = PlainTextResponse("Internal Server Error", status_code=500)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@app.get("/static/credits.js")
async def script() -> FileResponse:
    """Return the script that shows the page. It holds no data."""
    return FileResponse(_SCRIPT, media_type="text/javascript")


@app.get("/fragment")
async def fragment(user: GetUserDep) -> HTMLResponse:
    """Return the accounts of the connections that the user may read, as HTML."""
    connections = await readable_connections(user)
    if not connections and not await run_in_threadpool(may_read_connections, user):
        raise HTTPException(403, "You may not read connections.")
    accounts = await read_accounts(connections)
    invoices = {invoice.id for account in accounts for invoice in account.invoices if invoice.id}
    try:
        dag_runs = await run_in_threadpool(dag_runs_of, invoices, user)
    except Exception:  # an Airflow that keeps its XComs in another way: all but the links is still true
        log.exception("The Dag runs of the invoices cannot be read")
        dag_runs = {}
    return HTMLResponse(page(accounts, dag_runs, base_path()))
