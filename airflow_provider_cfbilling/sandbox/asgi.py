"""The sandbox's API, admin API and page, put together and ready to serve."""

from __future__ import annotations

import socket
from importlib.resources import files

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from airflow_provider_cfbilling.sandbox.admin_api import admin_routes
from airflow_provider_cfbilling.sandbox.api import BillingApi
from airflow_provider_cfbilling.sandbox.connection import TransportProtocol
from airflow_provider_cfbilling.sandbox.state import SandboxState

_ONLY_ITSELF = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def build_server(state: SandboxState) -> uvicorn.Server:
    """A server of one state, to be run on a socket."""
    api = BillingApi(state)
    app = Starlette(
        routes=[
            _file("/", "page.html", "text/html"),
            _file("/openapi.yaml", "openapi.yaml", "application/yaml"),
            *admin_routes(state),
            Mount("", api),
        ]
    )
    app.router.default = api  # for paths with a line break, which no route matches
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=TransportProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,  # each response carries the sandbox's own time
        timeout_graceful_shutdown=1,
    )
    return _Server(config)


def _file(path: str, name: str, media_type: str) -> Route:
    content = files(__package__).joinpath(name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(content, headers={"content-security-policy": _ONLY_ITSELF}, media_type=media_type)

    return Route(path, endpoint)


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Requests that hang on purpose would hold up the end.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)
