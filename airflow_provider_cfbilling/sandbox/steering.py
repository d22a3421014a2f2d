"""Steer a sandbox and read its books, over HTTP and with the standard library only."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

from airflow_provider_cfbilling.sandbox.faults import Kind, When
from airflow_provider_cfbilling.sandbox.models import (
    DEFAULT_ACCOUNT_ID,
    WRITE_TOKEN,
    AutoTopupAction,
    Charge,
    LedgerInvoice,
    SeenRequest,
)

_TIMEOUT = 10.0  # seconds
# A proxy of the environment has no business between a test and its sandbox.
_opener = build_opener(ProxyHandler({}))


class SandboxClient:
    """The sandbox at a URL, in this process or another.

    :param url: of the sandbox, as it prints it: ``http://127.0.0.1:8765``.
    """

    account_id = DEFAULT_ACCOUNT_ID
    token = WRITE_TOKEN

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @property
    def base_url(self) -> str:
        """What stands in for ``https://api.cloudflare.com/client/v4``."""
        return f"{self.url}/client/v4"

    def connection_uri(self, account_id: str | None = None, token: str | None = None) -> str:
        """An Airflow connection to this sandbox."""
        login, password = quote(account_id or self.account_id, safe=""), quote(token or self.token, safe="")
        return f"cfbilling://{login}:{password}@{quote(self.base_url, safe='')}"

    def configure(self, account_id: str | None = None, **switches: object) -> dict[str, Any]:
        """Create or change an account: the fields of ``Account``. Returns all of them."""
        return cast(dict[str, Any], self._post(f"accounts/{account_id or self.account_id}", switches))

    def configure_server(self, **settings: object) -> None:
        """Change ``rate_quota``, ``rate_window_seconds`` or ``clock_offset_seconds``."""
        self._post("server", settings)

    def auto_topup(
        self, action: AutoTopupAction, account_id: str | None = None, **details: object
    ) -> LedgerInvoice | None:
        """Let an automatic top-up break, recover, be disabled, be unset or happen: fields of ``AutoTopup``.

        Returns the invoice of one that was performed; None: the card was declined, or another action.
        """
        invoice = self._post(
            f"accounts/{account_id or self.account_id}/auto-topup", {"action": action, **details}
        )
        return LedgerInvoice(**invoice) if invoice else None

    def add_invoice(
        self, amount_cents: int, account_id: str | None = None, **details: object
    ) -> LedgerInvoice:
        """Put an invoice into the history, without a charge: the fields of ``PastInvoice``."""
        body = {"amount_cents": amount_cents, **details}
        return LedgerInvoice(**self._post(f"accounts/{account_id or self.account_id}/invoices", body))

    def fault(self, operation: str, kind: Kind, when: When = "before", **details: object) -> None:
        """Let the next request of an operation go wrong: the fields of ``Fault``."""
        self._post("faults", {"operation": operation, "kind": kind, "when": when, **details})

    def clear_faults(self) -> None:
        self._request("DELETE", "faults")

    def charges(self, account_id: str | None = None) -> list[Charge]:
        """Every charge that was performed, of one account or of all, oldest first."""
        return [Charge(**charge) for charge in self._get("charges", account_id=account_id)]

    def invoices(self, account_id: str | None = None) -> list[LedgerInvoice]:
        """Every invoice, of one account or of all, newest first, shown in the history or not yet."""
        return [LedgerInvoice(**invoice) for invoice in self._get("invoices", account_id=account_id)]

    def requests(self, operation: str | None = None) -> list[SeenRequest]:
        """Every request to the API, of one operation or of all, oldest first."""
        return [SeenRequest(**request) for request in self._get("requests", operation=operation)]

    def balance_cents(self, account_id: str | None = None) -> float:
        """An account's credit balance now."""
        return float(self.state()["accounts"][account_id or self.account_id]["balance_cents"])

    def state(self) -> dict[str, Any]:
        """Accounts with their switches and balances, charges, latest requests, and the faults to come."""
        return cast(dict[str, Any], self._get("state"))

    def reset(self) -> None:
        """Forget everything and start afresh; requests that hang have no effect any more."""
        self._post("reset", {})

    def _get(self, path: str, **query: str | None) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self._request("GET", f"{path}?{urlencode(given)}")

    def _post(self, path: str, body: object) -> Any:
        return self._request("POST", path, json.dumps(body).encode())

    def _request(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self.url}/sandbox/{path}", body, headers, method=method)  # noqa: S310 - ours
        try:
            with _opener.open(request, timeout=_TIMEOUT) as response:
                return json.load(response)
        except HTTPError as error:
            with error:
                raise ValueError(f"the sandbox refused: {error.read().decode(errors='replace')}") from None
