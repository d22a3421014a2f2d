"""Each reading endpoint, against the sandbox."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingInvalidRequestError,
    CfBillingNotFoundError,
    CfBillingPermissionError,
)
from airflow_provider_cfbilling.api.models import (
    CreditBalance,
    PaymentMethod,
    SpendingLimit,
    SpendingLimitConfig,
    TopupConfig,
    TopupLimits,
    TopupStatus,
)
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.models import READ_TOKEN
from tests.raw_servers import client_of, eventually

READS: list[Callable[[CfBillingClient], Any]] = [
    lambda client: client.get_topup_config(),
    lambda client: client.get_topup_limits(),
    lambda client: client.get_credit_balance(),
    lambda client: client.get_invoice_history(),
    lambda client: client.get_invoice_preview(),
    lambda client: client.get_usage_history("day"),
    lambda client: client.get_spending_limit(),
]
ACTIVE = TopupConfig(2000, 500, None, None, None)


def test_topup_status_goes_from_pending_to_completed(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(settle_seconds=60)
    pending = client.create_topup(1000).payment_intent_id
    sandbox.configure(settle_seconds=0)
    settled = client.create_topup(1000).payment_intent_id

    assert client.get_topup_status(pending) == TopupStatus(pending, "pending")
    eventually(lambda: client.get_topup_status(settled) == TopupStatus(settled, "completed"))


def test_status_of_unknown_topup_is_not_found(sandbox: Sandbox, client: CfBillingClient):
    with pytest.raises(CfBillingNotFoundError, match="Invoice not found"):
        client.get_topup_status("in_unknown")


@pytest.mark.parametrize("payment_intent_id", ["in 1", "../config", "in_1\nin_2", 1])
def test_invalid_id_is_refused_before_any_request(
    sandbox: Sandbox, client: CfBillingClient, payment_intent_id: Any
):
    with pytest.raises(CfBillingInvalidRequestError, match="payment_intent_id must be an id"):
        client.get_topup_status(payment_intent_id)
    assert sandbox.requests() == []


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("action", "config"),
    [
        ({"action": "recover"}, ACTIVE),
        ({"action": "unset", "style": "null"}, TopupConfig(None, None, None, None, None)),
        ({"action": "unset", "style": "zero"}, TopupConfig(0, 0, None, None, None)),
        ({"action": "unset", "style": "absent"}, TopupConfig(None, None, None, None, None)),
        (
            {"action": "break", "error": "expired_card", "last_failed_at": 86_400},
            TopupConfig(2000, 500, "expired_card", None, datetime(1970, 1, 2, tzinfo=UTC)),
        ),
        (
            {"action": "break", "last_failed_at": 1_772_366_400, "milliseconds": True},
            TopupConfig(2000, 500, "card_declined", None, datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ),
        ({"action": "disable", "reason": "fraud"}, TopupConfig(2000, 500, None, "fraud", None)),
    ],
    ids=str,
)
def test_configuration_is_read_in_every_form(
    sandbox: Sandbox, client: CfBillingClient, action: dict[str, Any], config: TopupConfig, sparse: bool
):
    sandbox.configure(sparse=sparse)
    sandbox.auto_topup(**action)

    assert client.get_topup_config() == config
    assert client.get_credit_balance().topup_config == config


def test_limits_are_those_of_the_account(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(min_cents=2000, max_cents=7500, currency="eur")
    assert client.get_topup_limits() == TopupLimits(2000, 7500, "eur")


@pytest.mark.parametrize("balance_cents", [640.19, 0.0, -12.5, 100_000_000.0])
def test_balance_is_in_cents_with_fractions(sandbox: Sandbox, client: CfBillingClient, balance_cents: float):
    sandbox.configure(balance_cents=balance_cents)
    assert client.get_credit_balance() == CreditBalance(
        balance_cents=balance_cents,
        has_default_payment_method=True,
        payment_method=PaymentMethod("visa", "4242"),
        topup_config=ACTIVE,
        first_topup_success=False,
    )


def test_balance_of_an_account_without_a_card(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(default_payment_method=None, sparse=True)
    balance = client.get_credit_balance()
    assert (balance.has_default_payment_method, balance.payment_method) == (False, None)
    assert balance.first_topup_success is None


def test_invoice_history_is_filtered_and_newest_first(sandbox: Sandbox, client: CfBillingClient):
    manual = sandbox.add_invoice(1000, created=86_400, amount_due_cents=1190)
    auto = sandbox.add_invoice(2000, created=2 * 86_400, origin="auto", status="void")

    newest, oldest = client.get_invoice_history().invoices

    assert (newest.id, newest.status, newest.invoice_origin) == (auto.id, "void", "auto")
    assert (oldest.id, oldest.amount_due_cents, oldest.amount_paid_cents) == (manual.id, 1190, 1190)
    assert oldest.created_at == datetime(1970, 1, 2, tzinfo=UTC)
    for origin, invoice in (("manual", manual), ("auto", auto)):
        assert [i.id for i in client.get_invoice_history(origin).invoices] == [invoice.id]  # type: ignore[arg-type]


def test_invoice_history_is_read_page_by_page(sandbox: Sandbox, client: CfBillingClient):
    sandbox.configure(per_page=2, page_parameter="honored")
    ids = [sandbox.add_invoice(1000, created=86_400 * day).id for day in (3, 2, 1)]

    first, second = client.get_invoice_history(), client.get_invoice_history(page=2)

    assert [invoice.id for invoice in (*first.invoices, *second.invoices)] == ids
    assert (first.pagination.has_more, second.pagination.has_more) == (True, False)
    assert (second.pagination.page, second.pagination.per_page, second.pagination.total_count) == (2, 2, 3)
    assert [request.query for request in sandbox.requests()] == ["type=all", "type=all&page=2"]


@pytest.mark.parametrize("without", ["id", "created", "status", "id,created,status"])
def test_invoice_may_lack_what_the_contract_calls_optional(
    sandbox: Sandbox, client: CfBillingClient, without: str
):
    sandbox.configure(sparse=True)
    sandbox.add_invoice(1000, without=without)

    (invoice,) = client.get_invoice_history().invoices

    assert (invoice.id is None) == ("id" in without)
    assert (invoice.created_at is None) == ("created" in without)
    assert (invoice.status is None) == ("status" in without)


def test_invoice_preview_is_read_with_its_lines(sandbox: Sandbox, client: CfBillingClient):
    preview = client.get_invoice_preview()

    (line,) = preview.invoice_lines
    assert (preview.amount_due_cents, preview.status, preview.currency) == (125, "draft", "usd")
    assert preview.period_end_at - preview.period_start_at == timedelta(days=1)
    assert (line.amount_cents, line.quantity, line.pricing.unit_amount_cents) == (125, 250, "0.5")
    assert line.period.start_at == preview.period_start_at


def test_usage_history_is_requested_in_utc_milliseconds(sandbox: Sandbox, client: CfBillingClient):
    start = datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=1)))

    usage = client.get_usage_history("hour", start, start + timedelta(hours=2))

    (request,) = sandbox.requests()
    assert request.query == ("value_grouping_window=hour&start_time=1772323200000&end_time=1772330400000")
    assert [window.start_at for window in usage.history] == [start + timedelta(hours=n) for n in range(3)]
    assert usage.history[0].end_at == usage.history[1].start_at
    assert all(window.spent_cents >= 0 for window in usage.history)


def test_usage_history_may_be_open_at_both_ends(sandbox: Sandbox, client: CfBillingClient):
    assert client.get_usage_history("day").history
    (request,) = sandbox.requests()
    assert request.query == "value_grouping_window=day"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ({"enabled": False, "config": {}}, SpendingLimit(False, SpendingLimitConfig(None, None, None))),
        (
            {"enabled": True, "config": {"amount": 5000, "duration": "monthly", "strategy": "fixed"}},
            SpendingLimit(True, SpendingLimitConfig(5000, "monthly", "fixed")),
        ),
    ],
)
def test_spending_limit_is_read(
    sandbox: Sandbox, client: CfBillingClient, limit: dict[str, Any], expected: SpendingLimit
):
    sandbox.configure(spending_limit=limit)
    assert client.get_spending_limit() == expected


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (
            lambda client: client.get_invoice_history("open"),
            "type must be one of auto, manual, all; got 'open'",
        ),
        (lambda client: client.get_usage_history("week"), "window must be one of day, hour; got 'week'"),
        (
            lambda client: client.get_usage_history("day", datetime(2026, 3, 1)),  # noqa: DTZ001
            "start must be a datetime with a time zone",
        ),
        (
            lambda client: client.get_usage_history("day", None, "2026-03-01"),
            "end must be a datetime with a time zone",
        ),
    ],
)
def test_invalid_argument_is_refused_before_any_request(
    sandbox: Sandbox, client: CfBillingClient, call: Callable[[CfBillingClient], Any], named: str
):
    with pytest.raises(CfBillingInvalidRequestError, match=named):
        call(client)
    assert sandbox.requests() == []


def test_read_permission_suffices_for_every_get(sandbox: Sandbox):
    with client_of(sandbox, secret=READ_TOKEN) as client:
        for read in READS:
            read(client)
        with pytest.raises(CfBillingPermissionError, match='"AI Gateway Write"'):
            client.get_topup_status("in_1")
    assert sandbox.charges() == []


@pytest.mark.parametrize("read", READS)
def test_refused_credentials_are_reported(sandbox: Sandbox, read: Callable[[CfBillingClient], Any]):
    with (
        client_of(sandbox, secret="of-no-one") as client,
        pytest.raises(CfBillingAuthenticationError, match="refused the credentials") as caught,
    ):
        read(client)
    assert "of-no-one" not in str(caught.value)


def test_account_of_another_user_is_refused(sandbox: Sandbox):
    sandbox.configure("f" * 32, token="theirs", read_token="theirs too")
    with (
        client_of(sandbox, account_id="f" * 32) as client,
        pytest.raises(CfBillingAuthenticationError, match="on this account"),
    ):
        client.get_credit_balance()


@pytest.mark.parametrize(("dollars", "cents"), [(0, 0), (0.07, 7), (12.345678, 1234.5678), (1e6, 1e8)])
def test_dollars_spent_are_returned_in_cents(
    sandbox: Sandbox, client: CfBillingClient, dollars: float, cents: float
):
    window = {"id": "1", "aggregated_value": dollars, "start_time": 1_700_000_000, "end_time": 1_700_086_400}
    result = {"success": True, "errors": [], "messages": [], "result": {"history": [window]}}
    sandbox.fault("getUsageHistory", "garbage", body=json.dumps(result))
    assert client.get_usage_history("day").history[0].spent_cents == cents
