"""Dag runs that top up more than once, and try for try let themselves be held up before they charge.

What a try is to do before it charges stands in a folder that it shares with the story: wait, or die.
"""

import atexit
import hashlib
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_cfbilling.charging.journal import Record
from tests.real_airflow import processes
from tests.real_airflow.processes import Process
from tests.real_airflow.topups import AMOUNT_CENTS, FINISH_TIMEOUT, Setup, Topup

ORDERS = Path(tempfile.mkdtemp(prefix="cfbilling-stories-"))
atexit.register(shutil.rmtree, ORDERS, ignore_errors=True)

HEADER = f"""\
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, get_listener_manager, hookimpl
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator


def order_of(ti):
    return f"{ORDERS}/{{ti.dag_id}}.{{ti.task_id}}.{{ti.map_index}}.{{ti.try_number}}"


class Topup(CfBillingCreateTopupOperator):
    def pre_execute(self, context):
        order = order_of(context["ti"])
        if Path(order + ".wait").exists():
            Path(order + ".waits").touch()
            while Path(order + ".wait").exists():
                time.sleep(0.05)
        if Path(order + ".die").exists():
            os._exit(1)

    def post_execute(self, context, result=None):
        if Path(order_of(context["ti"]) + ".die_last").exists():
            get_listener_manager().add_listener(Death())


class Death:
    @hookimpl(trylast=True)
    def on_task_instance_success(self, previous_state, task_instance):
        os._exit(1)


def dag(name):
    return DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))


def options(conn_id, task_id="topup", window=12, timeout=150):
    return dict(
        task_id=task_id,
        cfbilling_conn_id=conn_id,
        poll_interval=0.5,
        timeout=timeout,
        unknown_outcome_window=window,
        retries=6,
        retry_delay=timedelta(seconds=1),
    )


def topup(conn_id, task_id="topup", **more):
    return Topup(amount_cents={AMOUNT_CENTS}, **options(conn_id, task_id, **more))

"""

TWO = """
with dag("{name}"):
    topup("{name}", "first") >> topup("{name}", "second")
"""


@dataclass(frozen=True)
class Scene(Setup):
    """What a story is about.

    :param source: Dags, the first of which bears the story's name, ``{name}``.
    :param others: what the names of its other Dags add to that.
    """

    source: str = TWO
    others: Sequence[str] = ()

    def dag(self, name: str) -> str:
        return self.source.format(name=name)

    def dag_ids(self, name: str) -> list[str]:
        return [name, *(f"{name}_{other}" for other in self.others)]


class Order:
    """What one try of a task is to do before it charges, or after it."""

    def __init__(self, dag_id: str, task_id: str, try_number: int, map_index: int) -> None:
        self._name = f"{dag_id}.{task_id}.{map_index}.{try_number}"

    def die(self) -> None:
        (ORDERS / f"{self._name}.die").touch()

    def die_after_success(self) -> None:
        """Die when all else is done, listeners included."""
        (ORDERS / f"{self._name}.die_last").touch()

    def wait(self) -> None:
        (ORDERS / f"{self._name}.wait").touch()

    def waits(self) -> bool:
        return (ORDERS / f"{self._name}.waits").exists()

    def go_on(self) -> None:
        (ORDERS / f"{self._name}.wait").unlink()


@dataclass(frozen=True)
class Ended:
    """Dag runs that have ended well.

    :param outcomes: by task, and ``task[index]`` of a mapped one.
    :param tries: the same.
    :param posts: when each request to charge was sent, in Unix seconds.
    """

    outcomes: dict[str, str]
    tries: dict[str, int]
    posts: list[float]


class Play(Topup):
    """One story's Dag runs, and what befalls them."""

    def order(
        self, task_id: str = "topup", try_number: int = 1, map_index: int = -1, dag_id: str | None = None
    ) -> Order:
        return Order(dag_id or self.name, task_id, try_number, map_index)

    def start(self, *, waits_for: Order | None = None) -> None:
        """Start the Dag run; returns when its first task has begun to work, or to wait as requested."""
        if not waits_for:
            return super().start()
        self.airflow.trigger(self.name)
        return self.until_it_waits_as_requested(waits_for)

    def until_it_waits_as_requested(self, order: Order) -> None:
        self.wait_until("a try waits as requested", order.waits)

    def start_and_wait_before_second(self) -> None:
        """Let the first of two tasks succeed, and the second one wait until it may go on."""
        second = self.order("second")
        second.wait()
        self.start()
        self.until_it_waits_as_requested(second)
        assert len(self.sandbox.charges()) == 1

    def run_other(self, dag_id: str) -> None:
        """Run another Dag, from its beginning to its good end."""
        self.airflow.trigger(dag_id)
        self.wait_until("the other Dag has run", lambda: self.airflow.run_state(dag_id) == "success")

    def until_post_hangs(self, number: int) -> None:
        """Wait until so many requests to charge were sent, the last of which has no response."""
        self.wait_until("its charge is sent", lambda: self.count("createTopup") == number)
        assert self.charge_hangs()

    def until_failed_once(self, task_id: str = "topup") -> None:
        def failed() -> bool:
            task = self.airflow.task(self.name, task_id)
            return task.state in ("up_for_retry", "failed") or task.try_number > 1

        self.wait_until("a try has failed", failed)

    def process_of(self, task_id: str, map_index: int = -1) -> Process:
        return self.wait_until(
            "it has a process",
            lambda: next(iter(self.airflow.task_processes(self.name, task_id, map_index)), None),
        )

    def kill(self, task_id: str, map_index: int = -1) -> None:
        self.kill_task(self.process_of(task_id, map_index), task_id)

    def freeze_with_supervisor(self, process: Process) -> None:
        processes.send(process.parent, signal.SIGSTOP)
        processes.send(process.pid, signal.SIGSTOP)

    def keep_record(self, record: Record, try_number: int = 1) -> None:
        """Keep the record of a try as it is kept below Airflow 3.3."""
        ids = json.dumps([self.name, "run", "topup", -1])
        key = f"cfbilling_topup_{hashlib.sha256(ids.encode()).hexdigest()[:32]}_{try_number}"
        description = f"... task topup of Dag {self.name}, run run. ..."
        self.airflow.keep_variable(key, json.dumps(record.to_json()), description)
        assert self.airflow.records(self.name) == [key]

    def _processes(self, dag_ids: Sequence[str]) -> list[Process]:
        return [
            process
            for dag_id in dag_ids
            for task in self.airflow.tasks(dag_id)
            for process in self.airflow.task_processes(dag_id, task.task_id, task.map_index)
        ]

    def end(self, charges: int, *dag_ids: str) -> Ended:
        """Wait, and do nothing, until all has succeeded: so many charges, each reported by one task."""
        names = [self.name, *dag_ids]

        def results() -> dict[str, Any]:
            states = [self.airflow.run_state(name) for name in names]
            assert "failed" not in states, f"{self.name}: {states}\n{self._shown()}"
            found = {
                _named(name if name != self.name else "", *task): value
                for name in names
                for (*task, key), value in self.airflow.all_xcoms(name).items()
                if key == "return_value"
            }
            ended = set(states) == {"success"} and len(found) == charges and not self._processes(names)
            return found if ended else {}

        found = self.wait_until("all runs have succeeded", results, FINISH_TIMEOUT)
        made = self.sandbox.charges()
        assert len(made) == charges, f"{self.name}: charged {len(made)} times\n{self._shown()}"
        reported = sorted(result["payment_intent_id"] for result in found.values())
        assert reported == sorted(charge.invoice_id for charge in made), f"{found}\n{self._shown()}"
        self.until_forgotten(*names)
        self.charged = charges
        tries = {
            _named("", task.task_id, task.map_index): task.try_number
            for task in self.airflow.tasks(self.name)
        }
        outcomes = {task: result["outcome"] for task, result in found.items()}
        seconds = time.monotonic() - self._struck_at
        print(f"{self.name}: {outcomes}, tries {tries}, {self.count()} requests, {seconds:.1f} s")
        return Ended(outcomes, tries, [post.at for post in self.sandbox.requests("createTopup")])


def _named(dag_id: str, task_id: str, map_index: int) -> str:
    task = task_id if map_index < 0 else f"{task_id}[{map_index}]"
    return f"{dag_id}.{task}" if dag_id else task
