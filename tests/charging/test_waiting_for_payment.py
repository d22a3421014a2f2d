"""The wait for the payment, and how a top-up fails before its charge."""

import logging
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingNotFoundError,
    CfBillingPaymentDeclinedError,
    CfBillingRateLimitError,
)
from airflow_provider_cfbilling.charging.endings import (
    PaymentFailedError,
    StillPendingError,
)
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import (
    Task,
    is_accepted,
    lose,
)

# the wait


def test_wait_that_times_out_says_what_to_check_and_is_resumed(sandbox: Sandbox, any_task: Task):
    sandbox.configure(settle_seconds=500)
    with pytest.raises(StillPendingError) as caught:
        any_task.run(wait_seconds=100)
    assert f"Top-up {any_task.charged()} is pending after 100 s" in str(caught.value)
    assert "The card may need 3-D Secure, or was declined" in str(caught.value)
    assert "AI Gateway page of the Cloudflare dashboard" in str(caught.value)
    assert any_task.polls <= 6
    result = any_task.run(wait_seconds=1000)
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "resumed")
    assert any_task.posts() == 1


@pytest.mark.parametrize("lost", [False, True], ids=["received", "lost"])
@pytest.mark.parametrize("outcome", ["void", "uncollectible"])
def test_failed_payment_ends_every_try_and_is_not_charged_again(
    sandbox: Sandbox, any_task: Task, outcome: str, lost: bool
):
    sandbox.configure(topup_outcome=outcome)
    if lost:
        lose(sandbox, "after")
    for _ in range(2):
        with pytest.raises(PaymentFailedError, match=f"failed: its invoice is {outcome}"):
            any_task.run()
    assert any_task.posts() == 1


def test_recorded_topup_that_is_not_found_is_not_charged_again(sandbox: Sandbox, task: Task):
    task.run(until=is_accepted)
    topup = {"payment_intent_id": "in_gone", "onboarding": None, "brand": None, "last4": None}
    task.kept.write(replace(task.kept.record, topup=topup))
    with pytest.raises(CfBillingNotFoundError, match="Cloudflare accepted top-up in_gone of 2500"):
        task.run()
    assert task.posts() == 1


def test_wait_outlives_a_cloudflare_that_is_away(sandbox: Sandbox, task: Task):
    sandbox.configure(settle_seconds=60)
    sandbox.fault("checkTopupStatus", "status", status=503, times=4)
    sandbox.fault("checkTopupStatus", "garbage")
    assert task.run()["outcome"] == "charged"
    assert task.polls >= 5


def test_wait_ends_at_once_if_the_credentials_are_refused(sandbox: Sandbox, task: Task):
    sandbox.configure(settle_seconds=600)
    task.run(until=is_accepted)
    sandbox.configure(token="another")
    with pytest.raises(CfBillingAuthenticationError):
        task.run()
    assert task.kept.record.state == "accepted"


# how it fails before a charge


@pytest.mark.parametrize(
    ("arrange", "error"),
    [
        ({"account": {"topup_outcome": "declined"}}, CfBillingPaymentDeclinedError),
        ({"fault": {"kind": "status", "status": 429}}, CfBillingRateLimitError),
        ({"fault": {"kind": "status", "status": 403}}, CfBillingError),
    ],
    ids=["declined", "rate limit", "forbidden"],
)
def test_refused_charge_is_proven_not_made_and_a_later_try_may_charge(
    sandbox: Sandbox, task: Task, arrange: dict[str, Any], error: type[CfBillingError]
):
    sandbox.configure(**arrange.get("account", {}))
    if "fault" in arrange:
        sandbox.fault("createTopup", **arrange["fault"])
    with pytest.raises(error, match="Nothing was charged"):
        task.run()
    assert task.kept.states == ["started", "intent", "not_charged"]
    assert (task.posts(), task.polls) == (1, 0)
    sandbox.configure(topup_outcome="paid")
    assert task.run()["payment_intent_id"] == task.charged()


def test_log_says_what_was_done_and_whether_money_moved(
    sandbox: Sandbox, task: Task, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    lose(sandbox, "after")
    task.run()
    said = [record.getMessage() for record in caplog.records if record.name == task.log.name]
    assert said[0] == "All checks passed. Charging 2500 cents ($25.00)."
    assert said[1].startswith("The charge was sent and its response was lost: ")
    assert said[2] == f"Top-up {task.charged()} is the charge whose response was lost: its invoice is open."
    assert said[-1] == f"Top-up {task.charged()} is completed: the credits are there."
