"""One read over a connection that is kept alive: ours, a bare ``requests.Session``, Cloudflare's SDK."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import cloudflare
import requests

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.settings import Settings
from benchmarks.serving import counting_server
from benchmarks.tables import markdown

ACCOUNT_ID = "0" * 32
ROUNDS = 60
READS = 25


def table() -> str:
    with counting_server() as server, requests.Session() as session:
        base_url = f"{server.url}/ok"
        url = f"{base_url}/accounts/{ACCOUNT_ID}/ai-gateway/billing/credit-balance"
        session.headers["Authorization"] = "Bearer token"
        ours = CfBillingClient(Settings(ACCOUNT_ID, "token", base_url=base_url))
        sdk = cloudflare.Cloudflare(api_token="token", base_url=base_url)
        readers: dict[str, Callable[[], object]] = {
            "bare requests.Session (the baseline)": lambda: session.get(url, timeout=(10, 60)).json(),
            "this provider": ours.get_credit_balance,
            "Cloudflare's SDK": lambda: sdk.ai_gateway.billing.credit_balance(account_id=ACCOUNT_ID),
        }
        measured: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(ROUNDS):  # in turns, so that a busy time hits all alike
            for name, read in readers.items():
                measured[name].append(_microseconds(read))
    limit = measured["bare requests.Session (the baseline)"]
    return markdown(
        "One read",
        ("who", "times the baseline", "microseconds (median)"),
        [
            (
                name,
                f"{statistics.median(a / b for a, b in zip(times, limit, strict=True)):.2f}",
                f"{statistics.median(times):.0f}",
            )
            for name, times in measured.items()
        ],
    )


def _microseconds(read: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(READS):
        read()
    return (time.perf_counter() - began) / READS * 1e6
