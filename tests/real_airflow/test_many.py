"""Many top-ups that nothing befalls leave no Variable behind."""

import pytest
from airflow.models.variable import Variable
from airflow.utils.session import create_session

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder
from tests.real_airflow.deployment import HAS_API_SERVER, HAS_TASK_STATE_STORE

COUNT = 200
TOPUPS = f"""
CfBillingCreateTopupOperator.partial(task_id="topup", poll_interval=0.1).expand(
    amount_cents=[1000 + number for number in range({COUNT})]
)
"""


@pytest.mark.skipif(
    HAS_API_SERVER and not HAS_TASK_STATE_STORE,
    reason="this Airflow takes minutes for so many tasks in one process; make test-distributed does it too",
)
@pytest.mark.timeout(300)
def test_two_hundred_topups_leave_no_variable(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(settle_seconds=0)
    before = variables()
    run = dag_folder.run(TOPUPS)
    charged = sorted(charge.amount_cents for charge in sandbox.charges())
    assert charged == [1000 + number for number in range(COUNT)]
    assert set(run.tasks.values()) == {"success"}
    assert len(run.tasks) == COUNT
    assert variables() - before == set()


def variables() -> set[str]:
    with create_session() as session:
        return {key for (key,) in session.query(Variable.key) if key.startswith("cfbilling_topup_")}
