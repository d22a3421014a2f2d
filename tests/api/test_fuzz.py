"""Whatever a server answers, what comes out is what was documented or a documented error.

Each run tries the same; to try more::

    CFBILLING_FUZZ_EXAMPLES=20000 pytest --timeout 0 tests/api/test_fuzz.py
"""

import copy
import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_cfbilling.api import models
from airflow_provider_cfbilling.api.envelope import Reply, result_of
from airflow_provider_cfbilling.api.errors import CfBillingError
from airflow_provider_cfbilling.api.reader import read

LONGER = int(os.environ.get("CFBILLING_FUZZ_EXAMPLES", "0"))
exploring = settings(
    max_examples=LONGER or 400,
    derandomize=not LONGER,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

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
        lambda value: read(models.InvoiceHistory, value, answered_at=None),
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
        models.UsageHistory,
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

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([0, -1, 1e11, 1e18, 1e300, "", "\r\nX-Evil: 1", "\x1b[31m", "in_1/../x", "9" * 400])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where something stands in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn, good: Any) -> Any:
    """A good value, of which a few parts are missing, changed or too many."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(value)[1:] or [("new",)]))
        parent = value
        for key in way:
            parent = parent[key]
        match draw(st.sampled_from(["change", "change", "remove", "add"])):
            case "change":
                parent[last] = draw(anything)
            case "remove" if parent:
                parent.pop(last, None) if isinstance(parent, dict) else parent.pop(last)
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=10))] = draw(anything)
        if not isinstance(value, dict) or not value:
            return value
    return value


def answered(name: str, status: int, body: bytes) -> None:
    """Read an answer as a client does; let nothing out but what is documented."""
    kind, _ = GOOD[name]
    try:
        result = result_of(Reply(status, body))
        found = read(kind, result) if isinstance(kind, type) else kind(result)
    except CfBillingError as error:
        text = str(error)
        assert len(text) < 3000
        assert text.isprintable()
    else:
        json.dumps({**found.to_dict(), "answered_at": None}, allow_nan=False)


@pytest.mark.parametrize("name", GOOD)
def test_good_answer_is_read(name: str):
    kind, good = GOOD[name]
    result = result_of(Reply(200, json.dumps({"success": True, "result": good}).encode()))
    assert (read(kind, result) if isinstance(kind, type) else kind(result)).to_dict()


@pytest.mark.parametrize("name", GOOD)
@exploring
@given(data=st.data(), status=st.sampled_from([200, 200, 200, 201, 302, 400, 403, 404, 429, 500, 524]))
def test_damaged_answer_is_read_or_refused(name: str, data: st.DataObject, status: int):
    result = data.draw(damaged(GOOD[name][1]))
    answered(name, status, json.dumps({"success": True, "errors": [], "result": result}).encode())


@exploring
@given(
    name=st.sampled_from(list(GOOD)),
    status=st.integers(200, 599),
    envelope=damaged(
        {
            "success": False,
            "errors": [{"code": 7003, "message": "no"}],
            "messages": [],
            "result": None,
        }
    ),
)
def test_damaged_envelope_is_refused(name: str, status: int, envelope: Any):
    answered(name, status, json.dumps(envelope).encode())


@exploring
@given(data=st.data(), name=st.sampled_from(list(GOOD)), status=st.integers(200, 599))
def test_damaged_bytes_are_read_or_refused(data: st.DataObject, name: str, status: int):
    body = bytearray(json.dumps({"success": True, "result": GOOD[name][1]}).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 8))] = data.draw(
            st.binary(max_size=8)
            | st.sampled_from([b'{"', b"[" * 5000, b"NaN", b"1e999", b'"success":true,'])
        )
    answered(
        name,
        status,
        bytes(body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body),
    )


@exploring
@given(
    name=st.sampled_from(list(GOOD)),
    status=st.integers(200, 599),
    begin=st.sampled_from(
        [b"", b'{"success":', b'{"success":true,"result":', b'{"success":true,"result":{"balance":']
    ),
    nested=st.sampled_from([b"", b"[" * 5000, b'{"a":' * 5000]),
    noise=st.binary(max_size=200) | st.sampled_from([b"1e999}}", b"NaN}", b"9" * 5000 + b"}"]),
)
def test_noise_is_refused(name: str, status: int, begin: bytes, nested: bytes, noise: bytes):
    answered(name, status, begin + nested + noise)
