"""Cloudflare's own SDK, strict about every field, talks to the sandbox."""

from __future__ import annotations

import cloudflare
import pytest

from airflow_provider_cfbilling.sandbox import Sandbox


@pytest.fixture
def billing(sandbox: Sandbox):
    with cloudflare.Cloudflare(
        api_token=sandbox.token,
        base_url=sandbox.base_url,
        max_retries=0,
        timeout=5,
        _strict_response_validation=True,
    ) as client:
        yield client.ai_gateway.billing


@pytest.fixture(params=[False, True], ids=["all fields", "required fields only"])
def account_id(request, sandbox: Sandbox) -> str:
    sandbox.configure(sparse=request.param, settle_seconds=0)
    return sandbox.account_id


def test_topup_and_its_status(sandbox: Sandbox, billing, account_id):
    sandbox.configure(settle_seconds=60)
    topup = billing.topup.create(account_id=account_id, amount=1000)
    named = billing.topup.create(account_id=account_id, amount=1500, payment_method_id="pm_sandbox_second")

    status = billing.topup.status(account_id=account_id, payment_intent_id=topup.payment_intent_id)

    assert (status.payment_intent_id, status.status) == (topup.payment_intent_id, "pending")
    assert topup.onboarding is True
    assert named.last4 in ("4444", None)
    assert [charge.amount_cents for charge in sandbox.charges()] == [1000, 1500]


def test_invoice_history(billing, account_id):
    topup = billing.topup.create(account_id=account_id, amount=1000)

    for kind, ids in {"all": [topup.payment_intent_id], "auto": []}.items():
        history = billing.invoice_history(account_id=account_id, type=kind)
        assert [invoice.id for invoice in history.invoices] == ids
        assert history.pagination.total_count == len(ids)
        assert [invoice.amount_due for invoice in history.invoices] == [1050] * len(ids)


def test_credit_balance(sandbox: Sandbox, billing, account_id):
    balance = billing.credit_balance(account_id=account_id)
    assert (balance.balance, balance.payment_method.last4) == (640.19, "4242")

    sandbox.configure(default_payment_method=None)
    assert billing.credit_balance(account_id=account_id).payment_method is None


def test_invoice_preview_and_usage_history(billing, account_id):
    assert billing.invoice_preview(account_id=account_id).status == "draft"
    usage = billing.usage_history(
        account_id=account_id, value_grouping_window="day", start_time=0, end_time=1e9
    )
    assert len(usage.history) == 12


def test_declined_card_is_status_402(sandbox: Sandbox, billing, account_id):
    sandbox.configure(topup_outcome="declined")

    with pytest.raises(cloudflare.APIStatusError, match="card_declined") as declined:
        billing.topup.create(account_id=account_id, amount=1000)

    assert declined.value.status_code == 402


def test_topup_config_in_every_state(sandbox: Sandbox, billing, account_id):
    def config():
        return billing.topup.config.get(account_id=account_id)

    assert (config().amount, config().threshold, config().error) == (2000, 500, None)
    sandbox.auto_topup("break", milliseconds=True)
    assert config().error == "card_declined"
    assert config().last_failed_at > 1e11
    sandbox.auto_topup("disable")
    assert config().disabled_reason
    for style, amount in {"null": None, "zero": 0, "absent": None}.items():
        sandbox.auto_topup("unset", style=style)
        assert (config().amount, config().error) == (amount, None)


def test_topup_config_is_not_for_tokens(billing, account_id):
    with pytest.raises(cloudflare.PermissionDeniedError):
        billing.topup.config.create(account_id=account_id, amount=2000, threshold=500)
    with pytest.raises(cloudflare.PermissionDeniedError):
        billing.topup.config.delete(account_id=account_id)


def test_spending_limit(billing, account_id):
    assert billing.spending_limit.get(account_id=account_id).enabled is False
    billing.spending_limit.delete(account_id=account_id)
    with pytest.deprecated_call(), pytest.raises(cloudflare.PermissionDeniedError):
        billing.spending_limit.create(account_id=account_id, amount=500, duration="daily", strategy="fixed")


def test_sdk_charges_twice_when_a_response_is_lost(sandbox: Sandbox):
    """Why this provider does not use it."""
    sandbox.fault("createTopup", "reset", when="after")
    with cloudflare.Cloudflare(api_token=sandbox.token, base_url=sandbox.base_url, timeout=5) as client:
        client.ai_gateway.billing.topup.create(account_id=sandbox.account_id, amount=1000)

    assert len(sandbox.charges()) == 2
