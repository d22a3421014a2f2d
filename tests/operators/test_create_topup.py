"""CfBillingCreateTopupOperator in a real Dag run, against a real HTTP server."""

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder

FAST = "poll_interval=0.1, timeout=10"


def test_top_up_is_charged_once_and_waited_for(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    run = dag_folder.run(f"CfBillingCreateTopupOperator(task_id='task', amount_cents=2500, {FAST})")
    (charge,) = sandbox.charges()
    assert run.state == "success"
    assert run.result() == {
        "payment_intent_id": charge.invoice_id,
        "status": "completed",
        "amount_cents": 2500,
        "account_id": sandbox.account_id,
        "brand": "visa",
        "last4": "4242",
        "onboarding": True,
        "outcome": "charged",
    }
    assert (charge.amount_cents, charge.status) == (2500, "paid")
    print(run)


def test_x(sandbox: Sandbox, dag_folder: DagFolder, capfd) -> None:
    run = dag_folder.run(
        f"CfBillingCreateTopupOperator(task_id='task', amount_cents='{{{{ 250 }}}}', {FAST})"
    )
    out = capfd.readouterr()
    assert run.state == "failed"
    assert "amount_cents must be at least 1000 ($10.00); got 250" in out.out + out.err
    assert sandbox.requests() == []
