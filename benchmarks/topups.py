"""The requests that one top-up sends to Cloudflare if all goes well."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.settings import Settings
from airflow_provider_cfbilling.charging.journal import Record
from airflow_provider_cfbilling.charging.order import TopupOrder
from airflow_provider_cfbilling.charging.protocol import TopupProtocol
from airflow_provider_cfbilling.sandbox import Sandbox
from benchmarks.tables import markdown

ENDPOINTS = {
    "getTopupEligibility": "limits",
    "getCreditBalance": "balance",
    "getInvoiceHistory": "history",
    "createTopup": "top-up",
    "checkTopupStatus": "status",
}
ORDERS: dict[str, dict[str, Any]] = {
    "a payment method of its own: limits is the one check": {"payment_method_id": "pm_sandbox_default"},
    "default payment method: that it exists is checked": {},
    "and a balance guard": {"only_if_balance_below_cents": 100_000},
    "and a budget": {"budget_cents": 1_000_000, "budget_period": "month"},
    "and both": {
        "only_if_balance_below_cents": 100_000,
        "budget_cents": 1_000_000,
        "budget_period": "month",
    },
}


class Kept:
    """A journal as Airflow 3.3 keeps one: it costs Cloudflare nothing."""

    is_fenced = True

    def begin(self, started: Record, takeover_seconds: float) -> Record:
        return started

    def forget(self) -> None:
        pass

    def write(self, record: Record) -> None:
        pass


def table() -> str:
    rows = []
    with Sandbox(settle_seconds=0) as sandbox:
        for name, conditions in ORDERS.items():
            counts = _topup(sandbox, conditions)
            rows.append((name, sum(counts.values()), *(counts[endpoint] for endpoint in ENDPOINTS)))
    return markdown("Requests for one top-up", ("with", "all", *ENDPOINTS.values()), rows)


def _topup(sandbox: Sandbox, conditions: dict[str, Any]) -> Counter[str]:
    sandbox.reset()
    sandbox.configure(settle_seconds=0)
    client = CfBillingClient(Settings(sandbox.account_id, sandbox.token, base_url=sandbox.base_url))
    protocol = TopupProtocol(
        lambda _: client,
        sandbox.account_id,
        lambda: TopupOrder(2500, **conditions),
        Kept(),
        window_seconds=600,
        wait_seconds=60,
        log=logging.Logger("none", logging.CRITICAL),
    )
    progress = protocol.begin(cleared=False, began_at=0)
    while not protocol.is_done(progress):
        progress = protocol.advance(progress)
    client.close()
    return Counter(request.operation for request in sandbox.requests())
