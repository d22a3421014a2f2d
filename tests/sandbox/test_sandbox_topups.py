from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox


def result(response):
    assert response.status_code == 200, response.text
    return response.json()["result"]


def status_of(call, invoice_id: str) -> str:
    return result(call("POST", "topup/status", json={"payment_intent_id": invoice_id}))["status"]


def until(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def only_invoice(call) -> dict[str, object]:
    (invoice,) = result(call("GET", "invoice-history"))["invoices"]
    return invoice


def test_topup_is_pending_then_completed_and_credited(sandbox: Sandbox, call, topup):
    sandbox.configure(settle_seconds=3600)
    accepted = result(topup(2500))
    invoice_id = accepted["payment_intent_id"]

    assert (accepted["brand"], accepted["last4"], accepted["onboarding"]) == ("visa", "4242", True)
    assert status_of(call, invoice_id) == "pending"
    assert only_invoice(call)["status"] == "open"
    assert sandbox.balance_cents() == 640.19

    sandbox.configure_server(clock_offset_seconds=3600)
    assert status_of(call, invoice_id) == "completed"
    paid = only_invoice(call)
    assert (paid["id"], paid["status"]) == (invoice_id, "paid")
    assert (paid["amount_due"], paid["amount_paid"], paid["amount_remaining"]) == (2625, 2625, 0)
    assert result(call("GET", "credit-balance"))["balance"] == 3140.19
    assert [(charge.amount_cents, charge.amount_due_cents) for charge in sandbox.charges()] == [(2500, 2625)]


def test_client_secret_is_unique_and_recognisable(topup):
    secrets = {result(topup())["client_secret"] for _ in range(3)}

    assert len(secrets) == 3
    assert all(re.fullmatch(r"seti_\w+_secret_\w+", secret) for secret in secrets)


def test_second_payment_method_is_charged_on_request(call):
    body = {"amount": 1000, "payment_method_id": "pm_sandbox_second"}

    assert result(call("POST", "topup", json=body))["last4"] == "4444"


def test_declined_card_charges_nothing(sandbox: Sandbox, call, topup):
    sandbox.configure(topup_outcome="declined")

    response = topup()

    assert response.status_code == 402
    assert response.json()["errors"] == [{"code": 7103, "message": "Your card was declined (card_declined)"}]
    assert sandbox.charges() == []
    assert result(call("GET", "invoice-history"))["invoices"] == []


@pytest.mark.parametrize("status", ["void", "open"])
def test_declined_card_can_leave_a_dead_invoice(sandbox: Sandbox, call, topup, status):
    sandbox.configure(topup_outcome="declined", declined_leaves=status, settle_seconds=0)

    assert topup(2500).status_code == 402

    dead = only_invoice(call)
    assert (dead["status"], dead["amount_due"], dead["amount_paid"]) == (status, 2625, 0)
    assert status_of(call, dead["id"]) == "pending"
    assert only_invoice(call) == dead
    assert sandbox.charges() == []
    assert sandbox.balance_cents() == 640.19


def test_next_outcome_holds_for_one_topup_only(sandbox: Sandbox, topup):
    sandbox.configure(next_topup_outcome="declined")

    assert [topup().status_code for _ in range(2)] == [402, 200]
    assert len(sandbox.charges()) == 1


def test_three_d_secure_stays_pending_for_ever(sandbox: Sandbox, call, topup):
    sandbox.configure(topup_outcome="requires_action", settle_seconds=0)

    invoice_id = result(topup())["payment_intent_id"]

    assert status_of(call, invoice_id) == "pending"
    assert only_invoice(call)["status"] == "open"
    assert sandbox.balance_cents() == 640.19


@pytest.mark.parametrize("outcome", ["void", "uncollectible"])
def test_late_payment_failure_shows_only_in_the_invoice(sandbox: Sandbox, call, topup, outcome):
    sandbox.configure(topup_outcome=outcome)
    invoice_id = result(topup())["payment_intent_id"]
    assert only_invoice(call)["status"] == "open"

    until(lambda: only_invoice(call)["status"] == outcome)

    assert status_of(call, invoice_id) == "pending"
    assert only_invoice(call)["amount_paid"] == 0
    assert sandbox.balance_cents() == 640.19


@pytest.mark.parametrize(
    ("switches", "due"),
    [
        ({}, 2625),
        ({"fee_percent": 0}, 2500),
        ({"fee_percent": 0, "tax_percent": 19}, 2975),
        ({"tax_percent": 20}, 3150),
        ({"fee_percent": 2.4}, 2560),
        ({"credit_cents": 625}, 2000),
        ({"credit_cents": 2625}, 0),
        ({"credit_cents": 9999, "tax_percent": 20}, 0),
        ({"credit_cents": 150, "tax_percent": 20}, 3000),
    ],
)
def test_fee_tax_and_credit_change_only_the_amount_due(sandbox: Sandbox, call, topup, switches, due):
    sandbox.configure(**switches, settle_seconds=0)

    topup(2500)

    invoice = only_invoice(call)
    assert (invoice["amount_due"], invoice["amount_paid"], invoice["status"]) == (due, due, "paid")
    assert [(charge.amount_cents, charge.amount_due_cents) for charge in sandbox.charges()] == [(2500, due)]
    assert sandbox.balance_cents() == 3140.19


def test_account_credit_is_not_used_up(sandbox: Sandbox, topup):
    sandbox.configure(credit_cents=2625)

    assert [topup(2500).status_code for _ in range(2)] == [200, 200]

    assert [charge.amount_due_cents for charge in sandbox.charges()] == [0, 0]


def test_status_can_lag_behind(sandbox: Sandbox, call, topup):
    sandbox.configure(status_lag_seconds=0.3, settle_seconds=0)
    invoice_id = result(topup())["payment_intent_id"]
    sandbox.configure(status_lag_seconds=0)

    unknown = call("POST", "topup/status", json={"payment_intent_id": invoice_id})

    assert (unknown.status_code, unknown.json()["errors"][0]["code"]) == (404, 7002)
    assert only_invoice(call)["id"] == invoice_id
    time.sleep(0.35)
    assert status_of(call, invoice_id) == "completed"


def test_payment_method_is_required_without_a_default(sandbox: Sandbox, call, topup):
    sandbox.configure(default_payment_method=None)

    balance = result(call("GET", "credit-balance"))
    assert (balance["has_default_payment_method"], balance["payment_method"]) == (False, None)
    assert topup().status_code == 400
    assert sandbox.charges() == []
    body = {"amount": 1000, "payment_method_id": "pm_sandbox_second"}
    assert call("POST", "topup", json=body).status_code == 200


def test_limits_of_the_account_hold(sandbox: Sandbox, call, topup):
    sandbox.configure(min_cents=2000, max_cents=3000)

    limits = {"min_cents": 2000, "max_cents": 3000, "currency": "usd"}
    assert result(call("GET", "topup/eligibility")) == {"manual_topup": {"limits": limits}}
    assert result(call("GET", "topup/limits")) == limits
    assert [topup(amount).status_code for amount in (1999, 2000, 3000, 3001)] == [400, 200, 200, 400]
    assert [charge.amount_cents for charge in sandbox.charges()] == [2000, 3000]


BAD_BODIES = {
    "too small": b'{"amount": 999}',
    "a float": b'{"amount": 1000.0}',
    "a boolean": b'{"amount": true}',
    "a string": b'{"amount": "1000"}',
    "null": b'{"amount": null}',
    "too much": b'{"amount": 100001}',
    "no amount": b"{}",
    "unknown property": b'{"amount": 1000, "idempotency_key": "k"}',
    "unknown payment method": b'{"amount": 1000, "payment_method_id": "pm_of_someone_else"}',
    "payment method of a wrong type": b'{"amount": 1000, "payment_method_id": null}',
    "repeated key": b'{"amount": 1000, "amount": 1000}',
    "not a number": b'{"amount": NaN}',
    "not an object": b"[1000]",
    "not JSON": b"amount=1000",
    "not text": b"\xff\xfe",
    "nested without end": b"[" * 100_000,
    "nothing": b"",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_bad_body_is_refused_and_charges_nothing(sandbox: Sandbox, call, body):
    headers = {"Authorization": f"Bearer {sandbox.token}", "Content-Type": "application/json"}

    response = call("POST", "topup", data=body, headers=headers)

    assert response.status_code == 400
    assert response.json()["success"] is False
    assert response.json()["errors"][0]["message"]
    assert sandbox.charges() == []


def test_other_content_type_is_refused(sandbox: Sandbox, call):
    assert call("POST", "topup", data=b'{"amount": 1000}').status_code == 400
    assert sandbox.charges() == []


def test_status_of_unknown_or_foreign_invoice_is_not_found(call, topup):
    second = f"{int('0123456789abcdef0123456789abcdef', 16) + 1:032x}"
    foreign = result(topup(account_id=second))["payment_intent_id"]

    for invoice_id in ("in_unknown", foreign):
        assert call("POST", "topup/status", json={"payment_intent_id": invoice_id}).status_code == 404
    assert call("POST", "topup/status", json={}).status_code == 400


def test_failing_auto_topup_is_reported_in_both_places(sandbox: Sandbox, call):
    sandbox.auto_topup("break", error="authentication_required", last_failed_at=1_750_000_000)

    config = result(call("GET", "topup/config"))
    assert (config["error"], config["lastFailedAt"]) == ("authentication_required", 1_750_000_000)
    assert result(call("GET", "credit-balance"))["topup_config"] == config

    sandbox.auto_topup("break", last_failed_at=1_750_000_000, milliseconds=True)
    assert result(call("GET", "topup/config"))["lastFailedAt"] == 1_750_000_000_000
    sandbox.auto_topup("disable", reason="too_many_failures")
    assert result(call("GET", "topup/config"))["disabledReason"] == "too_many_failures"
    sandbox.auto_topup("recover")
    recovered = result(call("GET", "topup/config"))
    assert (recovered["error"], recovered["disabledReason"], recovered["lastFailedAt"]) == (None, None, None)


def test_eligibility_that_is_sparse_gives_no_limits(sandbox: Sandbox, call):
    sandbox.configure(sparse=True)

    assert result(call("GET", "topup/eligibility")) == {}


@pytest.mark.parametrize("style", ["null", "zero", "absent"])
def test_unset_auto_topup(sandbox: Sandbox, call, style):
    sandbox.auto_topup("unset", style=style)

    config = result(call("GET", "topup/config"))

    assert not config["amount"]
    assert (config["amount"] is None) == (style != "zero")
    assert ("error" in config) == (style != "absent")


def test_automatic_topup_makes_invoice_and_charge(sandbox: Sandbox, call):
    invoice = sandbox.auto_topup("perform", amount_cents=3000)

    assert result(call("GET", "invoice-history?type=auto"))["invoices"][0]["id"] == invoice.id
    assert result(call("GET", "invoice-history?type=manual"))["invoices"] == []
    (charge,) = sandbox.charges()
    assert (charge.origin, charge.amount_cents, charge.amount_due_cents) == ("auto", 3000, 3150)
    until(lambda: sandbox.balance_cents() == 3640.19)


def test_declined_automatic_topup_breaks_the_configuration(sandbox: Sandbox, call):
    sandbox.configure(next_topup_outcome="declined")

    assert sandbox.auto_topup("perform") is None

    assert result(call("GET", "topup/config"))["error"] == "card_declined"
    assert sandbox.charges() == []
    assert sandbox.auto_topup("perform") is not None


def test_declined_automatic_topup_can_leave_a_dead_invoice(sandbox: Sandbox, call):
    sandbox.configure(next_topup_outcome="declined", declined_leaves="void")

    assert sandbox.auto_topup("perform") is None

    assert result(call("GET", "invoice-history?type=auto"))["invoices"][0]["status"] == "void"
    assert sandbox.charges() == []
