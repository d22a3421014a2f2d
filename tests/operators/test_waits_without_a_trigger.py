"""A task whose trigger cannot wait for it waits itself: nothing is charged again, and it finishes."""

from collections.abc import Iterator
from typing import Any

import pytest
from airflow.models.connection import Connection
from airflow.utils.session import create_session

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sensors.cfbilling import CfBillingTopupConfigErrorSensor
from tests.airflow_runs import DagFolder
from tests.operators.self_resuming import TOPUP, self_resuming
from tests.sensors.test_waits import after_polls

pytestmark = pytest.mark.usefixtures("short_windows")

# As Airflow resumes a task whose trigger has raised.
FAILED = """\
error = {"error": "Trigger failure", "traceback": ["RuntimeError: it cannot be loaded\\n"]}
return self.resume_execution("__fail__", error, context)"""
SENSOR = "CfBillingTopupConfigErrorSensor(task_id='task', deferrable=True, poke_interval=0.2, timeout=20)"


@pytest.fixture
def stored_connection(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The connection is in Airflow's database, and nowhere else."""
    monkeypatch.delenv("AIRFLOW_CONN_CFBILLING_DEFAULT")
    stored: Any = Connection(conn_id="cfbilling_default", uri=sandbox.connection_uri())
    with create_session() as session:
        session.add(stored)
    yield
    with create_session() as session:
        session.query(Connection).filter_by(conn_id="cfbilling_default").delete()


@pytest.mark.usefixtures("stored_connection")
@pytest.mark.parametrize("lost", [False, True], ids=["received", "lost"])
def test_deferred_topup_with_stored_connection_charges_once(
    sandbox: Sandbox, dag_folder: DagFolder, lost: bool
) -> None:
    sandbox.configure(settle_seconds=0.5, history_lag_seconds=0.5)
    if lost:
        sandbox.fault("createTopup", "reset", "after")
    run = dag_folder.run(TOPUP)
    (charge,) = sandbox.charges()
    assert run.state == "success"
    assert run.result()["payment_intent_id"] == charge.invoice_id
    assert run.result()["status"] == "completed"


@pytest.mark.usefixtures("stored_connection")
def test_deferred_sensor_with_a_stored_connection_finishes(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    after_polls(sandbox, "getCreditBalance", lambda: sandbox.auto_topup("break"))
    run = dag_folder.run(SENSOR)
    assert run.state == "success"
    assert run.result()["state"] == "failing"


@pytest.mark.parametrize("lost", [False, True], ids=["received", "lost"])
def test_failed_trigger_leaves_the_wait_to_the_task(
    sandbox: Sandbox, dag_folder: DagFolder, lost: bool
) -> None:
    """As one does that a triggerer with another release of this package cannot load."""
    sandbox.configure(settle_seconds=0.5, history_lag_seconds=0.5)
    if lost:
        sandbox.fault("createTopup", "reset", "after")
    run = dag_folder.run(self_resuming(TOPUP, FAILED))
    (charge,) = sandbox.charges()
    assert run.state == "success"
    assert run.result()["payment_intent_id"] == charge.invoice_id


def test_sensor_goes_on_when_its_trigger_fails(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    after_polls(sandbox, "getCreditBalance", lambda: sandbox.auto_topup("break"))
    task = self_resuming(SENSOR, FAILED)
    assert dag_folder.run(task).result()["state"] == "failing"


@pytest.mark.parametrize("name", ["dry_run", "wait_for_completion", "deferrable"])
@pytest.mark.parametrize("value", ["false", "False", "{{ params.dry }}", 0, 1, None])
def test_non_boolean_is_refused_at_parse_time(name: str, value: object) -> None:
    """A text is true in Python: `dry_run="false"` would never charge, and be green."""
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} must be True or False"):
        CfBillingCreateTopupOperator(task_id="task", amount_cents=2500, **arguments)


@pytest.mark.parametrize("name", ["deferrable", "start_from_trigger"])
def test_sensors_refuse_a_non_boolean_too(name: str) -> None:
    arguments: dict[str, Any] = {name: "false"}
    with pytest.raises(ValueError, match=f"{name} must be True or False"):
        CfBillingTopupConfigErrorSensor(task_id="task", **arguments)
