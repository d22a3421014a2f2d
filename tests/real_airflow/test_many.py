"""Many top-ups that nothing befalls leave no Variable behind."""

import pytest
from airflow.models.variable import Variable
from airflow.utils.session import create_session

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder

COUNT = 200
TOPUPS = f"""
CfBillingCreateTopupOperator.partial(task_id="topup", poll_interval=0.1).expand(
    amount_cents=[1000 + number for number in range({COUNT})]
)
"""


@pytest.mark.timeout(300)
def test_two_hundred_top_ups_leave_no_variable(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(settle_seconds=0)
    run = dag_folder.run(TOPUPS)
    charged = sorted(charge.amount_cents for charge in sandbox.charges())
    assert charged == [1000 + number for number in range(COUNT)]
    assert set(run.tasks.values()) == {"success"}
    assert len(run.tasks) == COUNT
    with create_session() as session:
        assert session.query(Variable).filter(Variable.key.like("cfbilling_topup_%")).all() == []
