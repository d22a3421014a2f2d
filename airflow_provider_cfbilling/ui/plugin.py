"""Adds the credits page to Airflow's menu: Airflow 3.1 and later.

Every process of Airflow imports this module, workers too; only the api-server reads the properties, which
bring FastAPI. Whatever breaks there must not keep the api-server from starting.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowPlugin, conf

from airflow_provider_cfbilling import __version__

log = logging.getLogger(__name__)

NAME = "AI Gateway credits"
URL_PREFIX = "/cfbilling"

# A card, as Airflow draws its own icons: outlines in the color of the text, which a data: image cannot take
# over from the page.
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' "
    "stroke='%23{color}' stroke-width='2' stroke-linecap='round' stroke-linejoin='round'%3E"
    "%3Crect x='2' y='5' width='20' height='14' rx='2'/%3E%3Cpath d='M2 10h20M6 15h4'/%3E%3C/svg%3E"
)


def base_path() -> str:
    """Return the path below which this Airflow is served, such as ``/airflow``; empty at the root."""
    base_url: str = conf.get("api", "base_url", fallback="")
    return urlsplit(base_url).path.rstrip("/")


@cache
def _app() -> Any:
    """Return the page's app; None if there is to be no page, or if it cannot be loaded."""
    if not hasattr(AirflowPlugin, "react_apps"):  # before 3.1
        return None
    try:
        if not conf.getboolean("cfbilling", "credits_page", fallback=True):
            return None
        from airflow_provider_cfbilling.ui.app import app
    except Exception:  # whatever breaks in the page, Airflow starts without it
        log.exception("The page %r is not available", NAME)
        return None
    return app


class CreditsPlugin(AirflowPlugin):
    """The page's routes, and its entry in the menu "Browse"."""

    name = "cfbilling"

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Where the page gets what it shows."""
        app = _app()
        return [{"app": app, "url_prefix": URL_PREFIX, "name": NAME}] if app else []

    @property
    def react_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The entry in the menu. Without its routes it would lead to an error page."""
        if not _app():
            return []
        return [
            {
                "name": NAME,
                # Airflow 3.1 does not resolve what is relative.
                "bundle_url": f"{base_path()}{URL_PREFIX}/static/credits.js?v={__version__}",
                "destination": "nav",
                "category": "browse",
                "url_route": "ai-gateway-credits",
                "icon": _ICON.format(color="3f3f46"),
                "icon_dark_mode": _ICON.format(color="e4e4e7"),
            }
        ]
