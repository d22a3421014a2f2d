"""An Airflow on several machines: each component has a folder of its own, and shares no file with another.

They have in common what machines have: the network. There are Airflow's database, the API server, the broker,
and Cloudflare's stand-in.
"""

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.distributed.services import Broker, Postgres
from tests.real_airflow.api import Api
from tests.real_airflow.command_line import CommandLine, tail
from tests.real_airflow.components import Components
from tests.real_airflow.database import Database
from tests.real_airflow.deployment import free_port, inherited, settings, wait_until
from tests.real_airflow.processes import Process

WORKERS = ("worker-1", "worker-2")
SCHEDULERS = ("scheduler-1", "scheduler-2")
TRIGGERERS = ("triggerer-1", "triggerer-2")
MACHINES = ("api-server", "dag-processor", *SCHEDULERS, *TRIGGERERS, *WORKERS)

TASKS_PER_WORKER = 4
TRIGGERS_PER_TRIGGERER = 8
# After so long the broker takes a message for lost that was not acknowledged, and delivers it again. Airflow
# acknowledges it when the task has ended.
VISIBILITY_SECONDS = 10
# How long a task may be queued: longer than those of a test wait for a slot.
QUEUED_SECONDS = 40
_RECEIVED = re.compile(r"Task execute_workload\[(.+?)\] received")
_START_TIMEOUT = 120.0


@dataclass(frozen=True)
class MappedTask:
    """One top-up of a Dag's one run, as the metadata database has it.

    :param key: what its process is called by.
    :param ended_at: when its latest try ended, in Unix seconds.
    """

    map_index: int
    state: str | None
    try_number: int
    key: str
    ended_at: float | None


class Cluster:
    """Two schedulers, two triggerers, two workers, and what they need, for the length of a ``with`` block.

    Every Dag has one mapped task, ``topup``, and one run.

    :param dags: the Dag file, of which each machine has a copy.
    :param connections: by the Dag that uses it, which bears the same name; kept in Airflow's database.
    """

    def __init__(self, dags: str, connections: Mapping[str, str], postgres: Postgres, broker: Broker) -> None:
        self._connections = connections
        self._home = Path(tempfile.mkdtemp(prefix="cfbilling-distributed-"))
        self._database = Database(postgres.url)
        self._api = Api(free_port())
        self._common = {**inherited(), **settings(postgres.url, self._api), **_of_many_machines(broker)}
        self._components = Components()
        self._starts: Counter[str] = Counter()
        for machine in MACHINES:
            dags_of_its_own = self._home / machine / "dags"
            dags_of_its_own.mkdir(parents=True)
            (dags_of_its_own / "topups.py").write_text(dags)
        self._command_line = CommandLine(self._environment("api-server"), self._home / "api-server")

    def _environment(self, machine: str) -> dict[str, str]:
        home = self._home / machine
        return self._common | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags")}

    def __enter__(self) -> Self:
        try:
            self._command_line.run("db", "migrate")
            for conn_id, uri in self._connections.items():
                self._command_line.run("connections", "add", conn_id, "--conn-uri", uri)
            for machine in MACHINES:
                self.start(machine)
            self.wait_until("all of Airflow runs", self._is_ready, _START_TIMEOUT)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def start(self, machine: str) -> None:
        component, _, number = machine.partition("-") if machine[-1].isdecimal() else (machine, "", "")
        arguments = [component]
        if component == "worker":
            arguments = ["celery", "worker", "--concurrency", str(TASKS_PER_WORKER), "--skip-serve-logs"]
            arguments += ["--celery-hostname", f"worker-{number}"]
        elif number:
            arguments.append("--skip-serve-logs")
        home = self._home / machine
        self._starts[machine] += 1
        self._components.start(machine, arguments, self._environment(machine), home, self._log(machine))

    def kill(self, machine: str) -> None:
        """SIGKILL all processes of a machine, tasks included."""
        self._components.kill(machine)

    @contextmanager
    def without(self, worker: str) -> Iterator[None]:
        """Kill a worker, and start it again at the block's end."""
        self.kill(worker)
        try:
            yield
        finally:
            self.start(worker)

    def revive(self) -> None:
        """Start again what has ended by itself, as whatever watches over services does."""
        for machine in self._components.ended():
            self._components.kill(machine)
            self.start(machine)

    def works(self, worker: str) -> bool:
        """Return whether a worker takes tasks, since it was last started."""
        return self._said(worker).count(f"{worker} ready.") == self._starts[worker]

    def trigger(self, dag_id: str) -> None:
        self._api.trigger(dag_id)

    def run_state(self, dag_id: str) -> str:
        ((state,),) = self._database.rows("SELECT state FROM dag_run WHERE dag_id = :dag_id", dag_id=dag_id)
        return str(state)

    def tasks(self, dag_id: str) -> list[MappedTask]:
        """Return the top-ups of a Dag's run, in their order."""
        query = "SELECT map_index, state, try_number, CAST(id AS TEXT), "
        query += "CAST(extract(epoch FROM end_date) AS FLOAT) FROM task_instance "
        query += "WHERE dag_id = :dag_id ORDER BY map_index"
        return [MappedTask(*row) for row in self._database.rows(query, dag_id=dag_id)]

    def states(self, dag_id: str) -> Counter[str | None]:
        """Return how many top-ups are in which state."""
        return Counter(task.state for task in self.tasks(dag_id))

    def results(self, dag_id: str) -> list[dict[str, Any]]:
        """Return what the top-ups of a Dag's run have returned."""
        query = "SELECT value FROM xcom WHERE dag_id = :dag_id AND key = 'return_value' ORDER BY map_index"
        return [value for (value,) in self._database.rows(query, dag_id=dag_id)]

    def records(self, dag_id: str) -> list[str]:
        """Return the keys of the Variables that a Dag's top-ups have left."""
        query = "SELECT key FROM variable WHERE key LIKE 'cfbilling_topup_%' AND description LIKE :of"
        return [key for (key,) in self._database.rows(query, of=f"% of Dag {dag_id}, run %")]

    def triggers(self) -> list[int]:
        """Return how many triggers each triggerer that has any runs."""
        query = "SELECT count(*) FROM trigger WHERE triggerer_id IS NOT NULL GROUP BY triggerer_id"
        return [number for (number,) in self._database.rows(query)]

    def task_process(self, machine: str, task: MappedTask) -> Process | None:
        """Return what runs a top-up's code on a worker; None: it does not run there."""
        title = f"airflow worker -- {task.key}"
        running = self._components.processes_of(machine)
        return next((process for process in running if process.title.startswith(title)), None)

    def tries_on(self, machine: str, dag_id: str, map_index: int) -> list[int]:
        """Return which tries of a top-up have run on a worker, by the logs that are there."""
        folder = self._home / machine / "logs" / f"dag_id={dag_id}" / "run_id=run" / "task_id=topup"
        logs = folder.glob(f"map_index={map_index}/attempt=*.log")
        return sorted(int(log.stem.partition("=")[2]) for log in logs)

    def redeliveries(self) -> int:
        """Return how often a message was handed to a worker that had been handed to one before."""
        received = [message for worker in WORKERS for message in _RECEIVED.findall(self._said(worker))]
        return len(received) - len(set(received))

    def wait_until(self, what: str, condition: Callable[[], Any], seconds: float) -> Any:
        """Wait until a condition holds and return what it returned; in vain: show what Airflow has logged."""
        return wait_until(what, condition, seconds, self.log_tails)

    def log_tails(self) -> str:
        """Return the last lines of each machine's log."""
        return "\n".join(f"--- {machine}\n{tail(self._log(machine))}" for machine in MACHINES)

    def _log(self, machine: str) -> Path:
        return self._home / machine / "component.log"

    def _said(self, machine: str) -> str:
        return self._log(machine).read_text(errors="replace")

    def _is_ready(self) -> bool:
        assert not self._components.ended(), f"{self._components.ended()} ended:\n{self.log_tails()}"
        broken = self._database.rows("SELECT stacktrace FROM import_error")
        assert not broken, broken
        running = self._database.rows("SELECT job_type FROM job WHERE state = 'running'")
        dags = {dag_id for (dag_id,) in self._database.rows("SELECT dag_id FROM serialized_dag")}
        return (
            running.count(("SchedulerJob",)) == len(SCHEDULERS)
            and running.count(("TriggererJob",)) == len(TRIGGERERS)
            and dags >= set(self._connections)
            and all(self.works(worker) for worker in WORKERS)
            and self._api.serves()
        )

    def _stop(self) -> None:
        self._components.stop()
        self._command_line.stop()
        self._database.close()
        shutil.rmtree(self._home, ignore_errors=True)


def _of_many_machines(broker: Broker) -> dict[str, str]:
    chosen = {
        "CORE__EXECUTOR": "CeleryExecutor",
        "CELERY__BROKER_URL": broker.url,
        "CELERY_BROKER_TRANSPORT_OPTIONS__GLOBAL_KEYPREFIX": broker.prefix,
        "CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": VISIBILITY_SECONDS,
        "TRIGGERER__CAPACITY": TRIGGERS_PER_TRIGGERER,
        "SCHEDULER__JOB_HEARTBEAT_SEC": 2,
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": 8,
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": 5,
        # Celery loses what it takes up while its results cannot be written: Airflow sends it again.
        "SCHEDULER__TASK_QUEUED_TIMEOUT": QUEUED_SECONDS,
        "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": 5,
    }
    return {f"AIRFLOW__{name}": str(value) for name, value in chosen.items()}
