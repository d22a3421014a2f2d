"""What runs in the processes that stand in for Airflow's workers and its triggerer, and what befalls them."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_cfbilling.charging import protocol
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator

_SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
_CONNECTION = "AIRFLOW_CONN_CFBILLING_DEFAULT"
_SCHEMA = """
PRAGMA synchronous = OFF;
CREATE TABLE tries (task TEXT PRIMARY KEY, ti_id TEXT NOT NULL);
CREATE TABLE store (task TEXT, key TEXT, value TEXT NOT NULL, PRIMARY KEY (task, key));
"""


@dataclass(frozen=True)
class Strike:
    """What befalls a worker.

    :param point: where: ``start`` and ``resume`` (the process has begun), ``read``, ``write:<state>`` and
        ``written:<state>`` (the journal), ``connected``, ``told`` (the id is in XCom), or a request as it
        leaves: ``POST topup``, ``POST topup body``, ``POST topup/status``, ``GET invoice-history``, ...
    :param act: ``kill``, ``freeze``, or ``raise``, which is for the journal's points.
    :param nth: the how manieth time that the process comes there.
    :param since: counted from when the process has come here.
    :param delay: seconds after that.
    :param tries: which tries it befalls.
    :param thaw: when the frozen process goes on: some time after the next try has ``started`` or ``ended``.
    :param thaw_delay: how long after that.
    """

    point: str
    act: Literal["kill", "freeze", "raise"] = "kill"
    nth: int = 1
    since: str | None = None
    delay: float = 0.0
    tries: tuple[int, ...] = (1,)
    thaw: Literal["started", "ended"] = "ended"
    thaw_delay: float = 0.0


@dataclass(frozen=True)
class Job:
    """One process of one try of a task.

    :param task: names the task among all tasks of all Dag runs.
    :param resume_with: the event to resume with; None: the try begins.
    :param store: the database of the task state store; None: this Airflow has no store.
    """

    task: str
    ti_id: str
    try_number: int
    dag_run: dict[str, Any]
    operator: dict[str, Any]
    connection_uri: str
    send_within: float
    store: Path | None
    strikes: tuple[Strike, ...]
    resume_with: dict[str, Any] | None = None


class StoreDownError(Exception):
    """The task state store does not answer."""


class SupersededError(Exception):
    """The task state store does not know this try any more."""


class Fate:
    """Watches where a process has come to, and lets befall it what is planned for there."""

    def __init__(self, strikes: tuple[Strike, ...], try_number: int, tell: Callable[[dict[str, Any]], None]):
        self._tell = tell
        self._seen: set[str] = set()
        self._planned = {i: strike for i, strike in enumerate(strikes) if try_number in strike.tries}
        self._left = {i: strike.nth for i, strike in self._planned.items()}
        self._request = ""

    def reached(self, point: str) -> None:
        self._seen.add(point)
        for i, strike in self._planned.items():
            if strike.point != point or (strike.since and strike.since not in self._seen):
                continue
            self._left[i] -= 1
            if self._left[i] == 0:
                self._strike(i, strike)

    def _strike(self, number: int, strike: Strike) -> None:
        self._tell({"strike": number})
        if strike.act == "raise":
            raise StoreDownError(f"no answer from the store at {strike.point}")
        if not strike.delay:  # else the scheduler's stand-in sees to it
            os.kill(os.getpid(), _SIGNALS[strike.act])

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Follow the requests where they leave the process."""
        if event == "http.client.connect":
            self.reached("connected")
        elif event == "http.client.send":
            words = bytes(arguments[1]).split(b" ", 2)
            if len(words) == 3 and b"/ai-gateway/billing/" in words[1]:
                path = words[1].partition(b"/ai-gateway/billing/")[2].partition(b"?")[0]
                self._request = f"{words[0].decode()} {path.decode()}"
                self.reached(self._request)
            else:
                self.reached(f"{self._request} body")


class Store:
    """A task state store for one try of one task, as Airflow 3.3 has it."""

    def __init__(self, path: Path, task: str, ti_id: str, reached: Callable[[str], None]) -> None:
        self._path, self._task, self._ti_id, self._reached = path, task, ti_id, reached

    def get(self, key: str, default: Any = None) -> Any:
        self._reached("read")
        with closing(sqlite3.connect(self._path, timeout=20)) as database:
            if not self._is_current(database):
                return default
            where = "WHERE task = ? AND key = ?"
            row = database.execute(f"SELECT value FROM store {where}", (self._task, key)).fetchone()
        return json.loads(row[0]) if row else default

    def set(self, key: str, value: Any, *, retention: object = None) -> None:
        text = json.dumps(value)
        self._reached(f"write:{value['state']}")
        with closing(sqlite3.connect(self._path, timeout=20, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN IMMEDIATE")
            if not self._is_current(database):
                raise SupersededError("404: no such task instance")
            database.execute("INSERT OR REPLACE INTO store VALUES (?, ?, ?)", (self._task, key, text))
            database.execute("COMMIT")
        self._reached(f"written:{value['state']}")

    def _is_current(self, database: sqlite3.Connection) -> bool:
        row = database.execute("SELECT ti_id FROM tries WHERE task = ?", (self._task,)).fetchone()
        return bool(row and row[0] == self._ti_id)


def create_store(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(_SCHEMA)


def begin_try(path: Path, task: str, ti_id: str) -> None:
    """Make this the try that may write; all earlier ones are superseded."""
    with closing(sqlite3.connect(path, timeout=20)) as database, database:
        database.execute("INSERT OR REPLACE INTO tries VALUES (?, ?)", (task, ti_id))


def discard_store(path: Path, task: str) -> None:
    with closing(sqlite3.connect(path, timeout=20)) as database, database:
        database.execute("DELETE FROM store WHERE task = ?", (task,))


def run_task(job: Job, tell: Callable[[dict[str, Any]], None]) -> None:
    """Run the operator as a worker does, and tell how it ended."""
    fate = Fate(job.strikes, job.try_number, tell)
    sys.addaudithook(fate.audit)
    protocol.SEND_WITHIN_SECONDS = job.send_within
    context: Any = {
        "ti": _TaskInstance(job.try_number, fate.reached),
        "dag_run": SimpleNamespace(**job.dag_run),
        "data_interval_end": job.dag_run["start_date"],
    }
    if job.store:
        context["task_state_store"] = Store(job.store, job.task, job.ti_id, fate.reached)
    try:
        operator = CfBillingCreateTopupOperator(task_id="topup", **job.operator)
        if job.resume_with is None:
            fate.reached("start")
            result = operator.execute(context)
        else:
            fate.reached("resume")
            result = operator.execute_complete(context, job.resume_with)
        tell({"ended": "success", "result": result})
    except TaskDeferred as deferred:
        classpath, arguments = deferred.trigger.serialize()
        tell({"ended": "deferred", "trigger": [classpath, arguments], "method": deferred.method_name})
    except AirflowSkipException as reason:
        tell({"ended": "skipped", "message": str(reason)})
    except AirflowFailException as error:
        tell({"ended": "failed for good", "message": str(error)})
    except Exception as error:
        traceback.print_exc()
        tell({"ended": "failed", "message": f"{type(error).__name__}: {error}"})


def run_trigger(classpath: str, arguments: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
    """Run a trigger as the triggerer does, and tell its event."""
    module, _, name = classpath.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**arguments)

    async def first_event() -> Any:
        async for event in trigger.run():
            return event.payload
        raise RuntimeError("the trigger ended without an event")

    tell({"ended": "event", "event": asyncio.run(first_event())})


class _TaskInstance:
    def __init__(self, try_number: int, reached: Callable[[str], None]) -> None:
        self.try_number = try_number
        self._reached = reached

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps(value)
        if key == "payment_intent_id":
            self._reached("told")


class Process:
    """A forked process: what it tells comes back through a pipe, and its log goes into a file."""

    def __init__(self, log: Path, connection_uri: str, run: Callable[..., None], *arguments: Any) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _be(writer, log, connection_uri, run, arguments)
        os.close(writer)
        os.set_blocking(reader, False)
        self._reader, self._unread = reader, b""
        self.alive = True

    def news(self) -> list[dict[str, Any]]:
        """Return what it told since the last time; ``alive`` is True as long as there may be more."""
        ended = self.alive and os.waitpid(self.pid, os.WNOHANG)[0] != 0
        while self.alive:
            try:
                chunk = os.read(self._reader, 65536)
            except BlockingIOError:
                break
            if not chunk:
                break
            self._unread += chunk
        *lines, self._unread = self._unread.split(b"\n")
        if ended:
            os.close(self._reader)
            self.alive = False
        return [json.loads(line) for line in lines]

    def signal(self, number: signal.Signals) -> None:
        if self.alive:  # not waited for yet, so that the pid is still its own
            os.kill(self.pid, number)

    def end(self) -> None:
        """Kill it, if it is still there."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self._reader)
            self.alive = False


def _be(writer: int, log: Path, connection_uri: str, run: Callable[..., None], arguments: Any) -> None:
    """Be the child, and never return."""
    try:
        signal.alarm(90)  # should nobody be left to end it
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ[_CONNECTION] = connection_uri
        random.seed(os.getpid())
        run(*arguments, lambda news: os.write(writer, json.dumps(news).encode() + b"\n"))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
