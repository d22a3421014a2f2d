"""Each response is read field by field: what is missing or mistyped is named, what is unknown is ignored."""

import copy
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingMalformedResponseError
from airflow_provider_cfbilling.api.http.reader import Model
from airflow_provider_cfbilling.api.models import TopupConfig
from airflow_provider_cfbilling.sandbox import Sandbox

CONFIG = {"amount": 2000, "threshold": 500, "error": "card_declined", "lastFailedAt": 1_772_366_400}
INVOICE = {
    "id": "in_1",
    "amount_due": 1000,
    "amount_paid": 0,
    "amount_remaining": 1000,
    "currency": "usd",
    "created": 1_772_366_400,
    "status": "open",
}
LINE = {
    "amount": 125,
    "currency": "usd",
    "description": None,
    "period": {"start": 1_772_366_400, "end": 1_772_452_800},
    "pricing": {"unit_amount_decimal": "0.5"},
    "quantity": 250,
}
READS: dict[str, tuple[Callable[[CfBillingClient], Model], Any]] = {
    "checkTopupStatus": (
        lambda client: client.get_topup_status("in_1"),
        {"payment_intent_id": "in_1", "status": "pending"},
    ),
    "getTopupConfig": (lambda client: client.get_topup_config(), CONFIG),
    "getTopupLimits": (
        lambda client: client.get_topup_limits(),
        {"min_cents": 1000, "max_cents": 5000, "currency": "usd"},
    ),
    "getCreditBalance": (
        lambda client: client.get_credit_balance(),
        {
            "balance": 640.19,
            "has_default_payment_method": True,
            "payment_method": {"brand": "visa", "last4": "4242"},
            "topup_config": CONFIG,
        },
    ),
    "getInvoiceHistory": (
        lambda client: client.get_invoice_history(),
        {
            "invoices": [INVOICE],
            "pagination": {"has_more": False, "page": 1, "per_page": 20, "total_count": 1},
        },
    ),
    "getInvoicePreview": (
        lambda client: client.get_invoice_preview(),
        {
            "id": "upcoming",
            "amount_due": 125,
            "amount_paid": 0,
            "amount_remaining": 125,
            "currency": "usd",
            "period_start": 1_772_366_400,
            "period_end": 1_772_452_800,
            "status": "draft",
            "invoice_lines": [LINE],
        },
    ),
    "getUsageHistory": (
        lambda client: client.get_usage_history("day"),
        {
            "history": [
                {
                    "id": "day_1",
                    "aggregated_value": 0.25,
                    "start_time": 1_772_366_400_000,
                    "end_time": 1_772_452_800_000,
                }
            ]
        },
    ),
    "getSpendingLimit": (
        lambda client: client.get_spending_limit(),
        {"enabled": False, "config": {"amount": None, "duration": None, "strategy": None}},
    ),
}
REQUIRED = {
    "checkTopupStatus": ["payment_intent_id", "status"],
    "getTopupLimits": ["min_cents", "max_cents", "currency"],
    "getCreditBalance": ["balance", "has_default_payment_method", "topup_config"],
    "getInvoiceHistory": [
        "invoices",
        "invoices[0].amount_due",
        "pagination",
        "pagination.has_more",
    ],
    "getInvoicePreview": [
        "id",
        "amount_due",
        "amount_paid",
        "amount_remaining",
        "currency",
        "period_start",
        "period_end",
        "status",
        "invoice_lines",
        "invoice_lines[0].amount",
        "invoice_lines[0].currency",
        "invoice_lines[0].period",
        "invoice_lines[0].period.start",
        "invoice_lines[0].period.end",
        "invoice_lines[0].pricing",
        "invoice_lines[0].quantity",
    ],
    "getUsageHistory": [
        "history",
        "history[0].id",
        "history[0].aggregated_value",
        "history[0].start_time",
        "history[0].end_time",
    ],
    "getSpendingLimit": ["enabled", "config"],
}
OPTIONAL = {
    "getTopupConfig": ["amount", "threshold", "error", "disabledReason", "lastFailedAt"],
    "getCreditBalance": ["payment_method", "payment_method.brand", "first_topup_success"],
    "getInvoiceHistory": [
        *(f"pagination.{name}" for name in ("page", "per_page", "total_count")),
        *(
            f"invoices[0].{name}"
            for name in (
                "amount_paid",
                "amount_remaining",
                "currency",
                "id",
                "created",
                "created_by",
                "status",
                "attempted",
                "attempt_count",
                "auto_advance",
                "description",
                "invoice_origin",
                "invoice_pdf",
            )
        ),
    ],
    "getInvoicePreview": ["invoice_lines[0].description", "invoice_lines[0].pricing.unit_amount_decimal"],
    "getSpendingLimit": ["config.amount", "config.duration", "config.strategy"],
}
ABSENT = object()


def each(paths: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(operation, path) for operation in paths for path in paths[operation]]


def changed(result: Any, path: str, value: object) -> Any:
    """A copy of a result in which the field at ``path`` is another, or absent."""
    copied = inner = copy.deepcopy(result)
    *parents, last = path.replace("[0]", ".0").split(".")
    for parent in parents:
        inner = inner[int(parent)] if isinstance(inner, list) else inner[parent]
    if value is ABSENT:
        inner.pop(last, None)
    else:
        inner[last] = value
    return copied


def model_of(sandbox: Sandbox, client: CfBillingClient, operation: str, result: object) -> Model:
    envelope = {"success": True, "errors": [], "messages": [], "result": result}
    if operation == "getTopupLimits":  # called only if its successor is missing
        sandbox.fault("getTopupEligibility", "status", status=404)
    sandbox.fault(operation, "garbage", body=json.dumps(envelope))
    return READS[operation][0](client)


def said(model: Model) -> dict[str, Any]:
    """What the body said, without the time at which the response came."""
    return {name: value for name, value in model.to_dict().items() if name != "server_time"}


def error_message(sandbox: Sandbox, client: CfBillingClient, operation: str, result: object) -> str:
    with pytest.raises(CfBillingMalformedResponseError) as caught:
        model_of(sandbox, client, operation, result)
    return str(caught.value)


@pytest.mark.parametrize(("operation", "path"), each(REQUIRED))
def test_bad_required_field_is_named(sandbox: Sandbox, client: CfBillingClient, operation: str, path: str):
    good = READS[operation][1]
    for value in (ABSENT, None, ["seti_hidden"]):
        message = error_message(sandbox, client, operation, changed(good, path, value))
        assert f"result.{path}" in message
        assert "hidden" not in message


@pytest.mark.parametrize(("operation", "path"), each(OPTIONAL))
def test_optional_field_may_be_absent_but_not_mistyped(
    sandbox: Sandbox, client: CfBillingClient, operation: str, path: str
):
    good = READS[operation][1]
    missing = model_of(sandbox, client, operation, changed(good, path, ABSENT))
    null = model_of(sandbox, client, operation, changed(good, path, None))
    assert said(missing) == said(null)
    assert f"result.{path}" in error_message(sandbox, client, operation, changed(good, path, ["mistyped"]))


@pytest.mark.parametrize("operation", READS)
@pytest.mark.parametrize("result", [None, [], "text", 7, True])
def test_result_that_is_no_object_is_reported(
    sandbox: Sandbox, client: CfBillingClient, operation: str, result: object
):
    assert "result is not an object" in error_message(sandbox, client, operation, result)


@pytest.mark.parametrize("operation", READS)
def test_unknown_fields_are_ignored(sandbox: Sandbox, client: CfBillingClient, operation: str):
    good = READS[operation][1]
    more = {**good, "client_secret": "seti_hidden", "new_in_2027": {"amount": [1, 2]}}

    model = model_of(sandbox, client, operation, more)

    assert said(model) == said(model_of(sandbox, client, operation, good))
    assert "hidden" not in repr(model) + json.dumps(model.to_dict())


@pytest.mark.parametrize("operation", READS)
def test_model_is_frozen_and_its_dictionary_plain_json(
    sandbox: Sandbox, client: CfBillingClient, operation: str
):
    model = model_of(sandbox, client, operation, READS[operation][1])

    for field in fields(model):
        with pytest.raises(FrozenInstanceError):
            setattr(model, field.name, None)
    assert hash(model) == hash(copy.deepcopy(model))
    plain = model.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert {field.name for field in fields(model)} <= plain.keys()


@pytest.mark.parametrize(
    ("operation", "path", "value"),
    [
        ("getCreditBalance", "balance", True),
        ("getCreditBalance", "balance", "640.19"),
        ("getCreditBalance", "balance", 10**18),
        ("getCreditBalance", "balance", -(10**400)),
        ("getCreditBalance", "has_default_payment_method", 1),
        ("getCreditBalance", "has_default_payment_method", "true"),
        ("getTopupLimits", "min_cents", 1000.5),
        ("getTopupLimits", "min_cents", False),
        ("getTopupLimits", "currency", 840),
        ("getInvoiceHistory", "invoices", {}),
        ("getInvoiceHistory", "invoices[0].created", 1e17),
        ("getInvoiceHistory", "invoices[0].created", "2026-03-01"),
        ("getInvoicePreview", "status", "settled"),
        ("checkTopupStatus", "status", "failed"),
    ],
)
def test_value_that_is_nearly_right_is_refused(
    sandbox: Sandbox, client: CfBillingClient, operation: str, path: str, value: object
):
    message = error_message(sandbox, client, operation, changed(READS[operation][1], path, value))
    assert f"The response's result.{path} is" in message


def test_unknown_choice_is_refused_with_the_known_ones(sandbox: Sandbox, client: CfBillingClient):
    result = {"payment_intent_id": "in_1", "status": "failed"}
    message = error_message(sandbox, client, "checkTopupStatus", result)
    assert message == "The response's result.status is none of completed, pending"


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ({}, "unset"),
        ({"amount": None, "threshold": None}, "unset"),
        ({"amount": 0, "threshold": 0, "error": "", "disabledReason": "", "lastFailedAt": 0}, "unset"),
        ({"amount": 2000, "threshold": 500}, "active"),
        ({"amount": 2000, "threshold": 500, "error": None, "disabledReason": None}, "active"),
        ({"amount": 2000, "threshold": 500, "error": "card_declined"}, "failing"),
        ({"amount": 2000, "threshold": 500, "disabledReason": "too_many_failures"}, "disabled"),
        ({"amount": 2000, "threshold": 500, "error": "card_declined", "disabledReason": "x"}, "disabled"),
        ({"amount": None, "threshold": None, "error": "card_declined"}, "failing"),
    ],
)
def test_topup_config_has_one_of_four_states(
    sandbox: Sandbox, client: CfBillingClient, result: dict[str, Any], state: str
):
    config = model_of(sandbox, client, "getTopupConfig", result)
    assert isinstance(config, TopupConfig)
    assert config.state == state
    assert config.to_dict()["state"] == state
    assert config.is_broken() == (state in ("failing", "disabled"))


@pytest.mark.parametrize("unix_time", [1_772_366_400, 1_772_366_400.0, 1_772_366_400_000])
def test_last_failure_may_be_in_seconds_or_milliseconds(
    sandbox: Sandbox, client: CfBillingClient, unix_time: float
):
    config = model_of(sandbox, client, "getTopupConfig", CONFIG | {"lastFailedAt": unix_time})
    assert isinstance(config, TopupConfig)
    assert config.last_failed_at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert config.to_dict()["last_failed_at"] == "2026-03-01T12:00:00+00:00"


@pytest.mark.parametrize(
    ("last_failed_at", "since", "broken"),
    [
        (2, None, True),
        (2, 1, True),
        (2, 2, True),
        (2, 3, False),
        (None, 3, True),
    ],
)
def test_failure_from_before_since_does_not_count(last_failed_at: Any, since: Any, broken: bool):
    def day(number: int | None) -> datetime | None:
        return datetime(2026, 3, number, tzinfo=UTC) if number else None

    config = TopupConfig(2000, 500, "card_declined", None, day(last_failed_at))
    assert config.is_broken(day(since)) == broken
