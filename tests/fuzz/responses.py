"""Good responses to begin from, and what may come of any others."""

import json
from collections import Counter
from datetime import UTC
from typing import Any

from airflow_provider_cfbilling.api import models
from airflow_provider_cfbilling.api.errors import CfBillingError
from airflow_provider_cfbilling.api.http.envelope import Reply, result_of
from airflow_provider_cfbilling.api.http.rate_limiter import (
    MAX_PAUSE_SECONDS,
    RateLimiter,
    http_date,
    retry_after_seconds,
)
from airflow_provider_cfbilling.api.http.reader import read
from airflow_provider_cfbilling.api.http.text import Redactor, one_line

SECRET = "planted-secret-6b2e"
REDACTOR = Redactor(SECRET)
HEADERS = ("Retry-After", "Ratelimit", "Date", "cf-ray")

# What the inputs have come to, by the error's name.
tally: Counter[str] = Counter()

LINE = {
    "amount": 100,
    "currency": "usd",
    "description": "credits",
    "period": {"start": 1_700_000_000, "end": 1_700_086_400},
    "pricing": {"unit_amount_decimal": "0.5"},
    "quantity": 2,
}
CONFIG = {"amount": 2500, "threshold": 1000, "error": None, "disabledReason": None, "lastFailedAt": 0}
INVOICE = {
    "id": "in_1",
    "amount_due": 2500,
    "amount_paid": 2500,
    "amount_remaining": 0,
    "currency": "usd",
    "created": 1_700_000_000,
    "status": "paid",
    "attempted": True,
    "attempt_count": 1,
    "auto_advance": False,
    "description": None,
    "invoice_pdf": "https://example.com/in_1.pdf",
}
GOOD: dict[str, tuple[Any, Any]] = {
    "Topup": (
        models.Topup.read,
        {
            "payment_intent_id": "in_1",
            "onboarding": True,
            "brand": "visa",
            "last4": "4242",
            "client_secret": "x",
        },
    ),
    "TopupStatus": (models.TopupStatus, {"payment_intent_id": "in_1", "status": "pending"}),
    "TopupConfig": (models.TopupConfig, CONFIG),
    "TopupLimits": (models.TopupLimits, {"min_cents": 1000, "max_cents": 100_000, "currency": "usd"}),
    "CreditBalance": (
        models.CreditBalance,
        {
            "balance": 640.19,
            "has_default_payment_method": True,
            "payment_method": {"brand": "visa", "last4": "4242"},
            "topup_config": CONFIG,
        },
    ),
    "InvoiceHistory": (
        lambda value: read(models.InvoiceHistory, value, server_time=None),
        {
            "invoices": [INVOICE, {**INVOICE, "id": None}],
            "pagination": {"has_more": False, "page": 1, "per_page": 20, "total_count": 2},
        },
    ),
    "InvoicePreview": (
        models.InvoicePreview,
        {
            "id": "upcoming",
            "amount_due": 1,
            "amount_paid": 0,
            "amount_remaining": 1,
            "currency": "usd",
            "period_start": 1_700_000_000,
            "period_end": 1_700_086_400_000,
            "status": "draft",
            "invoice_lines": [LINE],
        },
    ),
    "UsageHistory": (
        lambda value: read(models.UsageHistory, value, server_time=None),
        {
            "history": [
                {"id": "1", "aggregated_value": 1.5, "start_time": 1_700_000_000, "end_time": 1_700_086_400}
            ]
        },
    ),
    "SpendingLimit": (
        models.SpendingLimit,
        {"enabled": True, "config": {"amount": 1, "duration": "day", "strategy": "sliding"}},
    ),
}


def print_tally(how: str, seconds: float) -> None:
    parts = ", ".join(f"{count:,} {name}" for name, count in tally.most_common())
    print(f"{how}: {tally.total():,} inputs in {seconds:.0f} s: {parts}", flush=True)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where something stands in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def body_of(result: Any) -> bytes:
    return json.dumps({"success": True, "errors": [], "messages": [], "result": result}).encode()


def check_response(name: str, status: int, body: bytes) -> None:
    """Read a response as a client does; let nothing out but what is documented, and no secret."""
    kind, _ = GOOD[name]
    reply = Reply(status, body, redactor=REDACTOR)
    try:
        result = result_of(reply)
        found = read(kind, result) if isinstance(kind, type) else kind(result)
    except CfBillingError as error:
        tally[type(error).__name__] += 1
        said = str(error)
        assert said.isprintable()
        assert len(said) < 2000
        if reply.proves_refusal:
            assert 400 <= status < 500
    else:
        tally["read"] += 1
        said = json.dumps({**found.to_dict(), "server_time": None}, allow_nan=False, ensure_ascii=False)
        assert said.isprintable()
        assert 200 <= status < 300
        assert not reply.proves_refusal
    assert SECRET not in said


def headers_taken(status: int, headers: dict[str, str]) -> None:
    """Take a response's headers as a client does; let out no exception and no pause of more than an hour."""
    limiter = RateLimiter()
    limiter.update_from_response(status, headers)
    for _ in range(5):
        assert 0 <= limiter.reserve() <= MAX_PAUSE_SECONDS + 60
    assert 0 <= limiter.cooldown_remaining() <= MAX_PAUSE_SECONDS
    seconds, date = retry_after_seconds(headers), http_date(headers.get("Date", ""))
    assert seconds is None or 0 <= seconds <= MAX_PAUSE_SECONDS
    assert date is None or date.astimezone(UTC).timestamp() > 0
    ray = one_line(REDACTOR.redacted(headers.get("cf-ray", "")), 64)
    assert ray.isprintable()
    assert SECRET not in ray
    tally["headers read" if seconds is not None or date else "headers passed over"] += 1
