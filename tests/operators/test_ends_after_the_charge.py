"""However a task ends after its charge, it says whether money moved, and its next try goes on."""

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder
from tests.operators.self_resuming import TOPUP, self_resuming, self_resuming_topup

pytestmark = pytest.mark.usefixtures("short_windows")

TIMED_OUT = self_resuming(
    TOPUP, "return self.resume_execution('__fail__', {'error': 'Trigger/execution timeout'}, context)"
)


@pytest.mark.parametrize("lost", [False, True], ids=["accepted", "lost"])
def test_execution_timeout_in_the_triggerer_says_whether_money_moved(
    sandbox: Sandbox, dag_folder: DagFolder, lost: bool
) -> None:
    """Airflow 2 lets the task fail by itself."""
    sandbox.configure(settle_seconds=3600, history_lag_seconds=3600)
    if lost:
        sandbox.fault("createTopup", "reset", "after")
    run = dag_folder.run(TIMED_OUT)
    (charge,) = sandbox.charges()
    assert run.state == "failed"
    assert "execution_timeout passed while it waited" in run.ends
    assert ("may have been sent" if lost else charge.invoice_id) in run.ends


def test_connection_that_is_gone_after_the_charge_is_said_with_it(
    sandbox: Sandbox, dag_folder: DagFolder
) -> None:
    sandbox.configure(settle_seconds=3600)
    gone = "del os.environ['AIRFLOW_CONN_CFBILLING_DEFAULT'], self.hook"
    run = dag_folder.run(self_resuming_topup(gone))
    (charge,) = sandbox.charges()
    assert run.state == "failed"
    assert "isn't defined" in run.ends
    assert f"Cloudflare accepted top-up {charge.invoice_id} of 2500 cents ($25.00)" in run.ends


def test_template_that_fails_before_the_charge_fails_the_task(
    sandbox: Sandbox, dag_folder: DagFolder
) -> None:
    run = dag_folder.run("CfBillingCreateTopupOperator(task_id='task', amount_cents=\"{{ 1 // 0 }}\")")
    assert run.state == "failed"
    assert "division" in run.ends
    assert sandbox.requests() == []


@pytest.mark.parametrize(
    "templates",
    ["amount_cents='{{ task.once(2500) }}'", "amount_cents=2500, account_id='{{ task.once(\"\") }}'"],
    ids=["amount", "account"],
)
def test_template_that_fails_after_the_charge_is_not_needed(
    sandbox: Sandbox, dag_folder: DagFolder, templates: str
) -> None:
    sandbox.configure(settle_seconds=1)
    run = dag_folder.run(f"""\
import os
os.environ["TIMES"] = ""

class Task(CfBillingCreateTopupOperator):
    def once(self, value):
        os.environ["TIMES"] += "1"
        if os.environ["TIMES"] != "1":
            raise KeyError("the XCom is gone")
        return value

Task(task_id='task', {templates}, deferrable=True, poll_interval=0.2)
""")
    (charge,) = sandbox.charges()
    assert run.state == "success"
    assert run.result()["payment_intent_id"] == charge.invoice_id
