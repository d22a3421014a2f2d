"""Until when a run of a schedule may charge, and which of a task's tries may have succeeded."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow import __version__ as airflow_version
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.providers.common.compat.sdk import DAG
from airflow.utils.session import create_session
from packaging.version import Version

from airflow_provider_cfbilling.dag_run import charge_by, cleared_after, dag_run_began_at
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder

DAY = 86_400.0
DUE = datetime(2026, 1, 31, 6, tzinfo=UTC)
HOURLY = DAG("hourly", schedule="@hourly", start_date=DUE)


class Broken:
    periodic = True

    def next_dagrun_info(self, **_: Any) -> None:
        raise RuntimeError("this schedule reads a database")


def context(dag: Any = HOURLY, interval: bool = True, clear_number: int = 0) -> Any:
    """Return the context of a task whose run began three hours late."""
    dag_run = {"run_type": "scheduled", "run_after": DUE, "start_date": DUE + timedelta(hours=3)}
    ends = {"data_interval_start": DUE - timedelta(hours=1), "data_interval_end": DUE}
    return {
        "dag": dag,
        "dag_run": SimpleNamespace(**dag_run, clear_number=clear_number),
        **(ends if interval else {}),
    }


def test_run_whose_successor_was_due_may_charge_until_then() -> None:
    assert charge_by(context(), DAY) == (DUE + timedelta(hours=1)).timestamp()


@pytest.mark.parametrize(
    "task_context",
    [
        context(interval=False),  # a partition's run
        context(clear_number=1),
        context(dag=SimpleNamespace(timetable=Broken())),
    ],
    ids=["no interval", "cleared", "broken schedule"],
)
def test_run_without_known_successor_may_charge_a_day(task_context: Any) -> None:
    assert charge_by(task_context, DAY) == DUE.timestamp() + DAY


@pytest.mark.skipif(Version(airflow_version).major > 2, reason="from Airflow 3.0 on a success is final")
@pytest.mark.parametrize(("amount_cents", "last_success"), [(2500, 1), (1, None)], ids=["success", "failure"])
def test_airflow_2_remembers_an_overturned_success(
    sandbox: Sandbox, dag_folder: DagFolder, amount_cents: int, last_success: int | None
) -> None:
    task_id = f"success_{last_success}"
    dag_folder.run(
        f"CfBillingCreateTopupOperator(task_id='{task_id}', amount_cents={amount_cents}, poll_interval=0.1)"
    )
    with create_session() as session:
        ti = session.query(TaskInstance).filter_by(task_id=task_id).one()
        session.expunge(ti)
    for ti.try_number in (2, 3):
        task_context: Any = {"ti": ti, "task": SimpleNamespace(retries=ti.max_tries)}
        assert cleared_after(task_context) == last_success


@pytest.mark.parametrize(
    ("max_tries", "clear_number", "last"),
    [
        (3, 0, None),  # not cleared
        (5, 1, 2),  # cleared after the second try
        (3, 1, 3),  # cleared after the third, and given as many retries more
        (2, 1, 3),  # given even more
        (2, 0, 3),  # given more, and perhaps cleared
    ],
)
def test_clear_shows_though_the_retries_were_changed(
    max_tries: int, clear_number: int, last: int | None
) -> None:
    ti = SimpleNamespace(try_number=4, max_tries=max_tries, get_ti_count=None)
    dag_run = SimpleNamespace(clear_number=clear_number)
    task_context: Any = {"ti": ti, "task": SimpleNamespace(retries=3), "dag_run": dag_run}
    assert cleared_after(task_context) == last


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
@pytest.mark.parametrize(("schedule", "more"), [("@once", {}), ("@continuous", {"max_active_runs": 1})])
def test_schedule_without_periods_has_missed_none(schedule: str, more: dict[str, Any], run_type: str) -> None:
    task_context = context(dag=DAG("without_periods", schedule=schedule, start_date=DUE, **more))
    task_context["dag_run"].run_type = run_type
    assert charge_by(task_context, DAY) is None


TI = SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=-1, try_number=2)
HOURS = [DUE + timedelta(hours=number) for number in range(4)]


@pytest.mark.parametrize(
    ("dag_run", "began"),
    [
        ({"run_type": "scheduled", "run_after": HOURS[1]}, 1),
        ({"run_type": "manual", "run_after": HOURS[1], "logical_date": None}, 1),
        ({"run_type": "scheduled", "logical_date": HOURS[0]}, 2),
        ({"run_type": "manual", "logical_date": HOURS[1]}, 1),
        ({"run_type": "manual", "logical_date": HOURS[3] + timedelta(days=1)}, 3),
    ],
    ids=["scheduled", "manual", "scheduled, Airflow 2", "manual, Airflow 2", "in the future, Airflow 2"],
)
@pytest.mark.parametrize("clear_number", [0, 1])
@pytest.mark.usefixtures("dag_folder")
def test_run_has_not_begun_before_it_was_due(dag_run: Any, began: int, clear_number: int) -> None:
    """Whatever its start, which may have been set again."""
    task_context: Any = {
        "dag_run": SimpleNamespace(start_date=HOURS[3], clear_number=clear_number, **dag_run),
        "data_interval_end": HOURS[2],
        "ti": TI,
    }
    assert dag_run_began_at(task_context) == HOURS[began].timestamp()


@pytest.mark.usefixtures("dag_folder")
def test_run_that_began_before_it_was_due_is_known_by_its_first_try() -> None:
    """As a backfill of a period that has not ended, on Airflow 2, once it was cleared."""
    ti = SimpleNamespace(**{**vars(TI), "task_id": "backfilled"})
    with create_session() as session:
        for hour, event in ((2, "success"), (1, "running"), (3, "clear")):
            row = Log(event)
            row.dttm, row.dag_id, row.run_id, row.task_id = HOURS[hour], ti.dag_id, ti.run_id, ti.task_id
            row.map_index = ti.map_index
            session.add(row)
    dag_run = SimpleNamespace(run_type="backfill", start_date=HOURS[3])
    task_context: Any = {"dag_run": dag_run, "data_interval_end": DUE + timedelta(days=30), "ti": ti}
    assert dag_run_began_at(task_context) == HOURS[1].timestamp()
