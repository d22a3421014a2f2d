"""A whole Airflow: scheduler, triggerer and what else it has, as processes, and a metadata database."""

import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import pytest
from cryptography.fernet import Fernet

from tests.real_airflow.api import Api
from tests.real_airflow.command_line import CommandLine, tail
from tests.real_airflow.components import Components
from tests.real_airflow.database import NewDatabase, postgres_is_here
from tests.real_airflow.processes import Process

AIRFLOW_VERSION = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
HAS_API_SERVER = AIRFLOW_VERSION >= (3, 0)
HAS_TASK_STATE_STORE = AIRFLOW_VERSION >= (3, 3)
# Airflow 3.0 fails a task whose process was killed, though it has retries left.
RETRIES_WHAT_WAS_KILLED = AIRFLOW_VERSION != (3, 0)
# Airflow 3.1 and 3.2 ignore `start_from_trigger`: https://github.com/apache/airflow/pull/54646.
STARTS_TASKS_IN_THE_TRIGGERER = AIRFLOW_VERSION not in {(3, 1), (3, 2)}
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
WITH_UI = COMPONENTS
if not HAS_API_SERVER:
    COMPONENTS = ("scheduler", "triggerer")
    WITH_UI = ("webserver", *COMPONENTS)

# How long a task may be silent before the scheduler takes it for dead. A task of Airflow 2 is silent until
# its process has imported Airflow, which takes long while the processors are busy.
HEARTBEAT_TIMEOUT = 15 if HAS_API_SERVER else 30
_START_TIMEOUT = 90.0
_SERVING = frozenset({"api-server", "webserver"})
_POLL_INTERVAL = 0.1


def an_airflow_can_run_here(seconds: float) -> list[pytest.MarkDecorator]:
    """Return the marks of tests that start a whole Airflow, and may take so long each."""
    return [
        pytest.mark.real_airflow,
        pytest.mark.timeout(seconds),
        pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc"),
        pytest.mark.skipif(
            not HAS_API_SERVER and not postgres_is_here(),
            reason="no PostgreSQL is here, and this Airflow's LocalExecutor refuses SQLite",
        ),
    ]


@dataclass(frozen=True)
class Task:
    """A task of a Dag's one run, as the metadata database has it.

    :param map_index: -1 where it is not mapped.
    :param key: what its process is called by.
    """

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    key: str


class Airflow:
    """An Airflow that lives as long as its ``with`` block. Every Dag has one run, and one task, ``topup``,
    unless another is named.

    :param dags: the Dag file.
    :param dag_ids: the Dags in it.
    :param environment: of all its processes, beside what makes it an Airflow of its own.
    :param wanted: what it consists of; ``WITH_UI`` for one that a browser can visit.
    :param prefix: the path that it is served below.
    :param commands: arguments of ``airflow``, to be run before it starts.
    :param user: who its API is called by; None: it knows no users.
    """

    def __init__(
        self,
        dags: str,
        dag_ids: Collection[str],
        environment: Mapping[str, str],
        wanted: Collection[str] = COMPONENTS,
        *,
        prefix: str = "",
        user: str | None = None,
        commands: Sequence[Sequence[str]] = (),
    ) -> None:
        self._wanted = wanted
        self._commands = [("db", "migrate"), *commands]
        self._dag_ids = set(dag_ids)
        self.home = Path(tempfile.mkdtemp(prefix="cfbilling-real-airflow-"))
        self._dags = self.home / "dags" / "topups.py"
        self._dags.parent.mkdir()
        self._dags.write_text(dags)
        self._database = NewDatabase(self.home)
        self._api = Api(free_port(), prefix, user)
        self.url = self._api.url
        self.token = self._api.token
        self._environment = {
            **inherited(),
            **settings(self._database.url, self._api),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self._dags.parent),
            **environment,
        }
        self._components = Components()

    @cached_property
    def _command_line(self) -> CommandLine:
        return CommandLine(self._environment, self.home)

    def __enter__(self) -> Self:
        try:
            for arguments in self._commands:
                self._command_line.run(*arguments)
            for component in self._wanted:
                self.start(component)
            self.wait_until("Airflow runs", self._is_ready, _START_TIMEOUT)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def start(self, component: str) -> None:
        arguments = [component]
        if component in ("scheduler", "triggerer"):
            arguments.append("--skip-serve-logs")
        log = self.home / f"{component}.log"
        self._components.start(component, arguments, self._environment, self.home, log)

    def kill(self, component: str) -> None:
        """SIGKILL all processes of a component. Not those of the tasks that it has started: it has none."""
        assert component != "scheduler", "its tasks are its children"
        self._components.kill(component)

    def runs(self, component: str) -> bool:
        return self._components.runs(component)

    @contextmanager
    def without(self, component: str) -> Iterator[None]:
        """Kill a component, and start it again at the block's end."""
        self.kill(component)
        try:
            yield
        finally:
            self.start(component)

    def wait_until(self, what: str, condition: Callable[[], Any], seconds: float) -> Any:
        """Wait until a condition holds and return what it returned; in vain: show what Airflow has logged."""
        return wait_until(what, condition, seconds, self.log_tails)

    def log_tails(self, dag_id: str | None = None) -> str:
        """Return the last lines of each component's log, or of each try of a Dag's task."""
        pattern = f"logs/dag_id={dag_id}/**/*.log" if dag_id else "*.log"
        logs = sorted(self.home.glob(pattern))
        return "\n".join(f"--- {log.relative_to(self.home)}\n{tail(log)}" for log in logs)

    def trigger(self, dag_id: str) -> None:
        if HAS_API_SERVER:
            self._api.trigger(dag_id)
        else:
            self._command_line.run("dags", "trigger", "--run-id", "run", dag_id)

    def all_places(self) -> dict[str, str]:
        """Return all that is kept: each table, what is encrypted in it, and each file, logs among them."""
        fernet = Fernet(self._environment["AIRFLOW__CORE__FERNET_KEY"])
        places = {}
        for name, text in self._database.tables():
            opened = [fernet.decrypt(token).decode() for token in re.findall(r"gAAAA[\w\-]+=*", text)]
            places |= {name: text, f"{name}, decrypted": "\n".join(opened)}
        for path in self.home.rglob("*"):
            if path.is_file():
                places[str(path.relative_to(self.home))] = path.read_bytes().decode("latin-1")
        return places

    def connect(self, conn_id: str, uri: str) -> None:
        """Keep a connection in the metadata database, as someone does in the UI."""
        self._command_line.run("connections", "add", conn_id, "--conn-uri", uri)

    def reconnect(self, conn_id: str, uri: str) -> None:
        """Overwrite such a connection: at no time is there none."""
        file = self.home / "connections.json"
        file.write_text(json.dumps({conn_id: uri}))
        self._command_line.run("connections", "import", "--overwrite", str(file))
        file.unlink()

    def give_port_0(self, conn_id: str) -> None:
        """Do what lets "Test Connection" work where Airflow sends port 0 for a connection without one."""
        body = {"connection_id": conn_id, "conn_type": "cfbilling", "port": 0}
        self._api.call("PATCH", f"connections/{conn_id}?update_mask=port", body)

    def add_admin(self, name: str) -> None:
        """Add a user, with the name as password, where there is an Airflow to log in to."""
        names = ("--firstname", name, "--lastname", name, "--email", f"{name}@example.com")
        self._command_line.run(
            "users", "create", "--role", "Admin", "--username", name, "--password", name, *names
        )

    def clear(self, dag_id: str, task_id: str = "topup") -> None:
        """Do what a user does who wants the task to be run again."""
        if HAS_API_SERVER:
            body = {"dry_run": False, "dag_run_id": "run", "task_ids": [task_id], "only_failed": False}
            self._api.call("POST", f"dags/{dag_id}/clearTaskInstances", body)
        else:
            self._command_line.run("tasks", "clear", "--yes", "--task-regex", f"^{task_id}$", dag_id)

    def call(self, method: str, path: str, body: dict[str, Any]) -> None:
        """Call the public API."""
        self._api.call(method, path, body)

    def pause(self, dag_id: str, paused: bool) -> None:
        self._api.call("PATCH", f"dags/{dag_id}", {"is_paused": paused})

    def queue_again(self, dag_id: str) -> None:
        """Do what a user does who wants tasks to run that a finished run does not have yet."""
        self._api.call("PATCH", f"dags/{dag_id}/dagRuns/run", {"state": "queued"})

    def backfill(self, dag_id: str, begin: date, end: date) -> None:
        """Run a Dag for each day of a period, as someone does who wants to fill a gap."""
        days = begin.isoformat(), end.isoformat()
        if HAS_API_SERVER:
            self._command_line.run(
                *("backfill", "create", "--dag-id", dag_id, "--from-date", days[0], "--to-date", days[1])
            )
        else:
            self._command_line.run("dags", "backfill", dag_id, "-s", days[0], "-e", days[1])

    def mark_failed(self, dag_id: str) -> None:
        """Do what a user does who has lost patience."""
        self._api.call("PATCH", f"dags/{dag_id}/dagRuns/run/taskInstances/topup", {"new_state": "failed"})

    def run_state(self, dag_id: str) -> str:
        ((state,),) = self._database.rows("SELECT state FROM dag_run WHERE dag_id = :dag_id", dag_id=dag_id)
        return str(state)

    def run_states(self, dag_id: str) -> list[str]:
        """Return the states of a Dag's runs, oldest first."""
        query = "SELECT state FROM dag_run WHERE dag_id = :dag_id ORDER BY id"
        return [str(state) for (state,) in self._database.rows(query, dag_id=dag_id)]

    def task_states(self, dag_id: str) -> list[str]:
        """Return the states of a Dag's task in its runs, oldest first."""
        query = "SELECT ti.state FROM task_instance ti JOIN dag_run dr USING (dag_id, run_id) "
        query += "WHERE dag_id = :dag_id ORDER BY dr.id"
        return [str(state) for (state,) in self._database.rows(query, dag_id=dag_id)]

    def tasks(self, dag_id: str) -> list[Task]:
        """Return all tasks of a Dag's one run."""
        key = "CAST(id AS TEXT)" if HAS_API_SERVER else "dag_id"
        query = f"SELECT task_id, map_index, state, try_number, {key} FROM task_instance "
        query += "WHERE dag_id = :dag_id ORDER BY task_id, map_index"
        rows = self._database.rows(query, dag_id=dag_id)
        return [Task(*row, str(UUID(key)) if HAS_API_SERVER else key) for *row, key in rows]

    def task(self, dag_id: str, task_id: str = "topup", map_index: int = -1) -> Task:
        wanted = (task_id, map_index)
        return next(task for task in self.tasks(dag_id) if (task.task_id, task.map_index) == wanted)

    def xcoms(self, dag_id: str) -> dict[str, Any]:
        """Return what the one task of a Dag has left, by its key."""
        return {key: value for (_, _, key), value in self.all_xcoms(dag_id).items()}

    def all_xcoms(self, dag_id: str) -> dict[tuple[str, int, str], Any]:
        """Return what the tasks of a Dag have left, by task, map index and key."""
        value = "CAST(value AS TEXT)" if HAS_API_SERVER else "value"  # JSON; before 3.0 the bytes of JSON
        query = f"SELECT task_id, map_index, key, {value} FROM xcom WHERE dag_id = :dag_id"
        return {
            tuple(names): json.loads(value if isinstance(value, str) else bytes(value))
            for *names, value in self._database.rows(query, dag_id=dag_id)
        }

    def records(self, dag_id: str | None = None) -> list[str]:
        """Return the keys of the Variables that the top-ups of a Dag, or all, have left."""
        query = "SELECT key FROM variable WHERE key LIKE 'cfbilling_topup_%' AND description LIKE :of"
        return [
            key for (key,) in self._database.rows(query, of=f"% of Dag {dag_id}, run %" if dag_id else "%")
        ]

    def keep_variable(self, key: str, value: str, description: str) -> None:
        self._api.call("POST", "variables", {"key": key, "value": value, "description": description})

    def task_processes(self, dag_id: str, task_id: str = "topup", map_index: int = -1) -> list[Process]:
        """Return what runs the task's code in its latest try, before 3.0 in any. Each has a supervisor: its
        parent.
        """
        title = f"airflow worker -- {self.task(dag_id, task_id, map_index).key}"
        if not HAS_API_SERVER:
            title = f"airflow task runner: {dag_id} {task_id} "
        scheduled = self._components.processes_of("scheduler")
        return [process for process in scheduled if process.title.startswith(title)]

    def _is_ready(self) -> bool:
        assert not self._components.ended(), f"{self._components.ended()} ended:\n{self.log_tails()}"
        broken = self._database.rows("SELECT stacktrace FROM import_error")
        assert not broken, broken
        jobs = self._database.rows("SELECT job_type FROM job WHERE state = 'running'")
        dags = self._database.rows("SELECT dag_id FROM serialized_dag")
        return (
            {"SchedulerJob", "TriggererJob"} <= {job for (job,) in jobs}
            and self._dag_ids <= {dag_id for (dag_id,) in dags}
            and (_SERVING.isdisjoint(self._wanted) or self._api.serves())
        )

    def _stop(self) -> None:
        self._components.stop()
        self._command_line.stop()
        self._database.drop()
        shutil.rmtree(self.home, ignore_errors=True)


def wait_until(what: str, condition: Callable[[], Any], seconds: float, shown: Callable[[], str]) -> Any:
    """Wait until a condition holds and return what it returned; in vain: fail with what is ``shown``."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"in vain waited {seconds:g} s until {what}\n{shown()}")
        time.sleep(_POLL_INTERVAL)
    return result


def settings(database_url: str, api: Api) -> dict[str, str]:
    """Return what makes an Airflow one of its own, quick to find out that something has died."""
    chosen = {
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
        "CORE__FERNET_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": 16 if postgres_is_here() else 4,
        "DATABASE__SQL_ALCHEMY_CONN": database_url,
        "DATABASE__LOAD_DEFAULT_CONNECTIONS": False,
        "TRIGGERER__JOB_HEARTBEAT_SEC": 2,
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": 8,
    }
    if HAS_API_SERVER:
        chosen |= {
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
            "CORE__EXECUTION_API_SERVER_URL": f"{api.url}/execution/",
            "API__HOST": "127.0.0.1",
            "API__PORT": api.port,
            "API__BASE_URL": api.url,
            "API__WORKERS": 1,
            "API__SECRET_KEY": secrets.token_hex(16),
            "API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": HEARTBEAT_TIMEOUT,
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": 3,
            "WORKERS__MIN_HEARTBEAT_INTERVAL": 2,
        }
    else:
        chosen |= {
            "SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": HEARTBEAT_TIMEOUT,
            # Oftener, and a dead try is found again before it is dealt with, at the next try's expense: with
            # Airflow's 10 seconds, in two of four runs of the stories.
            "SCHEDULER__ZOMBIE_DETECTION_INTERVAL": 20,
            "SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC": 2,
            "WEBSERVER__SECRET_KEY": secrets.token_hex(16),
            "WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
            "WEBSERVER__WEB_SERVER_PORT": api.port,
            "WEBSERVER__BASE_URL": api.url,
            "WEBSERVER__WORKERS": 1,
        }
    return {f"AIRFLOW__{name}": str(value) for name, value in chosen.items()}


def inherited() -> dict[str, str]:
    """Return what an Airflow of its own may know of this process's environment."""
    names = ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR", "TZ", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name in names or name.startswith("PG")}
    return {**kept, "NO_PROXY": "127.0.0.1,localhost", "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
