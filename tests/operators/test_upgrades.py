"""A top-up that was deferred by another release of this package goes on."""

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder

pytestmark = pytest.mark.usefixtures("short_windows")

RESUMED = """\
class Task(CfBillingCreateTopupOperator):
    def execute(self, context):
        from airflow.providers.common.compat.sdk import TaskDeferred
        try:
            return super().execute(context)
        except TaskDeferred as deferred:
            progress = deferred.trigger.progress
            {change}
            event = {{"status": "resume", "progress": progress, "trigger_error": None}}
            return self.execute_complete(context, event)

Task(task_id='task', amount_cents=2500, deferrable=True, poll_interval=0.2)
"""


@pytest.mark.parametrize("lost", [False, True], ids=["accepted", "lost"])
@pytest.mark.parametrize(
    "change",
    [
        "del progress['should_wait']",
        "progress['record']['unheard_of'] = 1",
        "progress['record']['state'] = 'refunded'",
        "progress['record'] = 'in another place'",
    ],
)
def test_progress_that_cannot_be_read_is_taken_from_the_record(
    sandbox: Sandbox, dag_folder: DagFolder, lost: bool, change: str
) -> None:
    sandbox.configure(settle_seconds=0.5, history_lag_seconds=0.5)
    if lost:
        sandbox.fault("createTopup", "reset", "after")
    run = dag_folder.run(RESUMED.format(change=change))
    (charge,) = sandbox.charges()
    assert run.state == "success"
    assert run.result()["payment_intent_id"] == charge.invoice_id
