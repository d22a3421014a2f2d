"""The record of a top-up in Airflow's own places: Variables below 3.3, and the task state store."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models.variable import Variable
from airflow.utils.session import create_session

from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.task_journal import Variables, after_success
from tests.airflow_runs import DagFolder

TOPUP = "CfBillingCreateTopupOperator(task_id='task', amount_cents=2500, poll_interval=0.1{more})"


def variables() -> dict[str, tuple[str, str | None]]:
    """The text and the description of each Variable that a top-up has left."""
    with create_session() as session:
        kept = session.query(Variable).filter(Variable.key.like("cfbilling_topup_%"))
        return {each.key: (each.get_val(), each.description) for each in kept}


@pytest.fixture(autouse=True)
def _nothing_is_kept(dag_folder: DagFolder) -> Iterator[None]:
    """Other tests of this process leave the records of top-ups that failed."""
    _forget_all()
    yield
    _forget_all()


def _forget_all() -> None:
    with create_session() as session:
        session.query(Variable).filter(Variable.key.like("cfbilling_topup_%")).delete(False)


@pytest.mark.parametrize("deferrable", [False, True])
def test_topup_that_has_completed_leaves_no_variable(
    sandbox: Sandbox, dag_folder: DagFolder, deferrable: bool
):
    sandbox.configure(settle_seconds=0.3)
    run = dag_folder.run(TOPUP.format(more=f", deferrable={deferrable}"))
    assert (run.state, len(sandbox.charges())) == ("success", 1)
    assert variables() == {}


def test_record_stays_if_airflow_does_not_say_that_the_try_counts():
    done: list[str] = []
    ti = SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=-1, try_number=1)
    after_success({"ti": ti}, lambda: done.append("removed"))  # type: ignore[typeddict-item]
    assert done == []


def test_topup_that_is_skipped_leaves_no_variable(sandbox: Sandbox, dag_folder: DagFolder):
    run = dag_folder.run(TOPUP.format(more=", only_if_balance_below_cents=1"))
    assert run.tasks == {"task": "skipped"}
    assert variables() == {}


def test_user_callbacks_are_still_called(
    sandbox: Sandbox, dag_folder: DagFolder, capfd: pytest.CaptureFixture[str]
):
    for callbacks in ("lambda context: print('called once')", "[lambda context: print('called once')] * 2"):
        dag_folder.run(TOPUP.format(more=f", on_success_callback={callbacks}"))
    assert capfd.readouterr().out.count("called once") >= 3
    assert variables() == {}


def test_failed_topup_leaves_a_described_record(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch
):
    """Also on Airflow 3.3 and later, if the task state store is kept where Airflow cannot refuse a write."""
    monkeypatch.setenv("AIRFLOW__WORKERS__STATE_STORE_BACKEND", "of.another.Company")
    sandbox.configure(topup_outcome="void")
    dag_folder.run(TOPUP.format(more=""))
    ((key, (text, description)),) = variables().items()
    (charge,) = sandbox.charges()
    assert len(key) == len("cfbilling_topup_") + 32 + len("_1")
    record = json.loads(text)
    assert (record["state"], record["topup"]["payment_intent_id"]) == ("accepted", charge.invoice_id)
    assert "task task of Dag dag_" in str(description)
    assert "the task may charge the card again" in str(description)
    assert sandbox.token not in text + str(description)


@pytest.mark.parametrize(
    "other", [{"dag_id": "b"}, {"run_id": "b"}, {"task_id": "b"}, {"map_index": 3}], ids=str
)
def test_each_task_of_each_run_has_own_variables(other: dict[str, Any]):
    ids = {"dag_id": "a", "run_id": "r", "task_id": "t", "map_index": -1, "start_date": datetime.now(UTC)}

    def key(**more: Any) -> str:
        context: Any = {"ti": SimpleNamespace(**ids | more)}
        return Variables.of(context)._key

    assert key() == key() != key(**other)
