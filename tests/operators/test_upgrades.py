"""A top-up that was deferred by another release of this package goes on."""

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder
from tests.operators.self_resuming import self_resuming_topup

pytestmark = pytest.mark.usefixtures("short_windows")


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
    run = dag_folder.run(self_resuming_topup(change))
    (charge,) = sandbox.charges()
    assert run.state == "success"
    assert run.result()["payment_intent_id"] == charge.invoice_id
