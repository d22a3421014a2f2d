"""Runs Dags for real: a file in the Dag folder, Airflow's own runner, a real metadata database."""

import importlib.util
import inspect
import itertools
import json
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from textwrap import indent
from typing import Any

from airflow.providers.common.compat.sdk import DAG, get_listener_manager, hookimpl

from tests.real_airflow.deployment import HAS_API_SERVER

HEADER = """\
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow_provider_cfbilling.operators.cfbilling import (
    CfBillingCreateTopupOperator,
    CfBillingGetCreditBalanceOperator,
    CfBillingGetRunwayOperator,
    CfBillingGetTopupConfigOperator,
)
from airflow_provider_cfbilling.sensors.cfbilling import (
    CfBillingCreditBalanceSensor,
    CfBillingRunwaySensor,
    CfBillingTopupCompletedSensor,
    CfBillingTopupConfigErrorSensor,
)

with DAG("{dag_id}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
"""


@dataclass(frozen=True)
class Run:
    """A Dag run as Airflow's database has it."""

    state: str
    tasks: dict[str, str]
    """State by task id; of a mapped task by ``task_id[map_index]``."""
    xcoms: dict[tuple[str, str], Any]
    """Value by task and key."""
    ends: str
    """What the tries that failed ended with."""

    def result(self, task: str = "task") -> Any:
        return self.xcoms.get((task, "return_value"))


class Failures:
    """The errors of all failed tries, which Airflow reports to listeners in all its versions."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        self.errors.append(str(error))


class DagFolder:
    """The Dag folder of the Airflow that the tests run, in front of a migrated SQLite database."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._folder = database.parent / "dags"
        self._folder.mkdir()
        self._numbers = itertools.count()
        self._failures = Failures()
        get_listener_manager().add_listener(self._failures)
        _run_again_soon()
        if HAS_API_SERVER:
            _build_newest_api_only()
        if version("apache-airflow").startswith("3.0."):
            _fix_reschedule_mode()
        if version("apache-airflow").startswith(("3.0.", "3.1.", "3.2.")):
            _build_api_once()
            _give_callbacks_the_exception()

    def run(self, tasks: str) -> Run:
        """Run a Dag whose body is ``tasks``, Python statements, to its end."""
        dag_id = f"dag_{next(self._numbers)}"
        return self.run_source(dag_id, HEADER.format(dag_id=dag_id) + indent(tasks, "    "))

    def run_source(self, dag_id: str, source: str) -> Run:
        """Run the Dag ``dag`` that a file defines, to its end."""
        path = self._folder / f"{dag_id}.py"
        path.write_text(source)
        try:
            spec = importlib.util.spec_from_file_location(dag_id, path)
            assert spec
            assert spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            self._failures.errors.clear()
            run_id = module.dag.test().run_id
            return self._read(dag_id, run_id, "\n".join(self._failures.errors))
        finally:
            path.unlink()

    def copy_database(self, home: Path) -> None:
        """Give another Airflow's home a migrated database."""
        shutil.copy(self._database, home)

    def database_dump(self) -> str:
        """Return all that Airflow has written down, as SQL."""
        with closing(sqlite3.connect(self._database)) as database:
            return "\n".join(database.iterdump())

    def _read(self, dag_id: str, run_id: str, ends: str) -> Run:
        with closing(sqlite3.connect(self._database)) as database:

            def rows(columns: str, table: str) -> list[tuple[Any, ...]]:
                query = f"SELECT {columns} FROM {table} WHERE dag_id = ? AND run_id = ?"
                return database.execute(query, (dag_id, run_id)).fetchall()

            ((state,),) = rows("state", "dag_run")
            tasks = {
                _name(*task): state for *task, state in rows("task_id, map_index, state", "task_instance")
            }
            xcoms = {
                (_name(*task), key): json.loads(value) if isinstance(value, str | bytes) else value
                for *task, key, value in rows("task_id, map_index, key, value", "xcom")
            }
        return Run(state, tasks, xcoms, ends)


def _run_again_soon() -> None:
    """Let `dag.test()` pause for 0.05 s, not a whole one, while no task is due."""
    sleep, runner = time.sleep, inspect.getfile(DAG)

    def sleep_less(seconds: float) -> None:
        sleep(0.05 if sys._getframe(1).f_code.co_filename == runner else seconds)

    time.sleep = sleep_less


def _build_newest_api_only() -> None:
    """Let Airflow 3 build the API of its tasks in one version, which they speak: all of them take seconds."""
    from cadwyn import VersionBundle, route_generation

    class Transformer(route_generation._EndpointTransformer[Any, Any]):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.routes_that_never_existed = []  # they did, in older versions

    route_generation._EndpointTransformer = Transformer  # type: ignore[misc]
    VersionBundle.__iter__ = lambda self: iter(self.versions[:1])  # type: ignore[method-assign]


def _build_api_once() -> None:
    """Let Airflow 3.0 to 3.2 build the API that tasks speak to once, as 3.3 does: it takes seconds a task."""
    from airflow.sdk.execution_time import supervisor

    supervisor.in_process_api_server = cache(supervisor.in_process_api_server)


def _give_callbacks_the_exception() -> None:
    """Let Airflow 3.0 to 3.2 give failure callbacks the exception in one process too, as workers do.

    With a scheduler nothing is fixed: tests/real_airflow/test_alerts.py.
    """
    from airflow.sdk.execution_time import task_runner

    finalize: Any = task_runner.finalize

    def finalize_with_exception(ti: Any, state: Any, context: Any, log: Any, error: Any) -> None:
        if error is not None:
            context["exception"] = error
        finalize(ti, state, context, log, error)

    task_runner.finalize = finalize_with_exception


def _fix_reschedule_mode() -> None:
    """Let Airflow 3.0 reschedule in one process: it takes a date there for the text that a worker parses.

    With a scheduler nothing is fixed: tests/real_airflow/test_waiting.py.
    """
    from airflow.sdk.api.client import TaskInstanceOperations
    from airflow.sdk.execution_time.comms import TaskRescheduleStartDate

    get: Any = TaskInstanceOperations.get_reschedule_start_date

    def get_parsed(*args: Any, **kwargs: Any) -> Any:
        return TaskRescheduleStartDate(start_date=get(*args, **kwargs).start_date)

    TaskInstanceOperations.get_reschedule_start_date = get_parsed  # type: ignore[method-assign]


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"
