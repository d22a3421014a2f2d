"""What runs in the processes that stand in for Airflow's workers and its triggerer, and what befalls them."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Literal

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
    get_listener_manager,
)

from airflow_provider_cfbilling import dag_run, task_journal
from airflow_provider_cfbilling.charging import protocol, unfenced_journal
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator
from tests.faults.rows import MAX_START, SEND_WITHIN, TAKEOVER_MARGIN

_SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
_RELEASE = tuple(int(part) for part in airflow_version.split(".")[:2])
# 3.0 and 3.1: a try whose success the api-server refuses ends there; from 3.2 on listeners hear of it. 2.11
# refuses nothing: a try that was given up overwrites the state, and listeners hear of it.
LISTENERS_AFTER_REFUSAL = not (3, 0) <= _RELEASE < (3, 2)
IS_AIRFLOW_2 = _RELEASE < (3, 0)
_LATE_SECONDS = 0.3


@dataclass(frozen=True)
class Strike:
    """What befalls a worker.

    :param point: where: ``start`` and ``resume`` (the process has begun), ``read``, ``write:<state>`` and
        ``written:<state>`` (the journal), ``delete`` and ``deleted`` (a Variable), ``connected``, ``pushed``
        (the id is in XCom), ``succeeded`` (before that is reported to Airflow), or a request as it leaves:
        ``POST topup``, ``POST topup body``, ``POST topup/status``, ``GET invoice-history``, ...
    :param act: ``kill``, ``freeze``, or ``raise``, which is for the journal's points. For those of Variables
        also ``lose`` (what is written or deleted stays as it was), ``late`` (it is done a little later) and
        ``blind`` (a read finds nothing: an error of the database or of the api-server is no more than that to
        the reader of a Variable).
    :param nth: the how manieth time that the process comes there.
    :param since: counted from when the process has come here.
    :param delay: seconds after that.
    :param tries: which tries it befalls.
    :param thaw: when the frozen process goes on: some time after the next try has ``started`` or ``ended``.
    :param thaw_delay: how long after that.
    """

    point: str
    act: Literal["kill", "freeze", "raise", "lose", "late", "blind"] = "kill"
    nth: int = 1
    since: str | None = None
    delay: float = 0.0
    tries: tuple[int, ...] = (1,)
    thaw: Literal["started", "ended"] = "ended"
    thaw_delay: float = 0.0


@dataclass(frozen=True)
class Job:
    """One process of one try of a task.

    :param max_tries: as Airflow counts: it grows with a clear.
    :param resume_with: method and arguments to resume with; None: the try begins.
    :param has_store: whether this Airflow has a task state store.
    """

    ti_id: str
    task: str
    try_number: int
    max_tries: int
    retries: int
    started_at: datetime
    dag_run: dict[str, Any]
    operator: dict[str, Any]
    has_store: bool
    strikes: tuple[Strike, ...]
    resume_with: tuple[str, dict[str, Any]] | None = None


class StoreDownError(Exception):
    """The task state store does not respond."""


class SupersededError(Exception):
    """The task state store does not know this try any more."""


class Fate:
    """Watches where a process has come to, and lets befall it what is planned for there."""

    def __init__(
        self, strikes: tuple[Strike, ...], try_number: int, report: Callable[[dict[str, Any]], None]
    ):
        self._report = report
        self._seen: set[str] = set()
        self._planned = {i: strike for i, strike in enumerate(strikes) if try_number in strike.tries}
        self._left = {i: strike.nth for i, strike in self._planned.items()}

    def reached(self, point: str) -> str:
        """Let happen what is planned here, and return what the caller must do."""
        self._seen.add(point)
        acts = []
        for i, strike in self._planned.items():
            if strike.point != point or (strike.since and strike.since not in self._seen):
                continue
            self._left[i] -= 1
            if self._left[i] == 0:
                acts.append(strike.act)
                self._strike(i, strike)
        return acts[-1] if acts else ""

    def _strike(self, number: int, strike: Strike) -> None:
        self._report({"strike": number})
        if strike.act == "raise":
            raise StoreDownError(f"no response from the store at {strike.point}")
        if strike.act in _SIGNALS and not strike.delay:  # else the scheduler's stand-in sees to it
            os.kill(os.getpid(), _SIGNALS[strike.act])

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Follow the requests where they leave the process."""
        if event == "http.client.connect":
            self.reached("connected")
        elif event == "http.client.send":
            words = bytes(arguments[1]).split(b" ", 2)
            if len(words) == 3 and b"/ai-gateway/billing/" in words[1]:
                path = words[1].partition(b"/ai-gateway/billing/")[2].partition(b"?")[0]
                request = f"{words[0].decode()} {path.decode()}"
                self.reached(request)
                self.reached(f"{request} body")  # head and body leave in one piece


class Line:
    """A process's line to the stand-ins for Airflow."""

    def __init__(self, writer: int, reader: int) -> None:
        self._writer, self._responses = writer, os.fdopen(reader)

    def report(self, news: dict[str, Any]) -> None:
        os.write(self._writer, json.dumps(news).encode() + b"\n")

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        self.report({"request": request})
        return dict(json.loads(self._responses.readline()))


class Store:
    """A task state store for one try of one task, as Airflow 3.3 has it: the api-server keeps the values."""

    def __init__(self, line: Line, ti_id: str, reached: Callable[[str], object]) -> None:
        self._line, self._ti_id, self._reached = line, ti_id, reached

    def get(self, key: str, default: Any = None) -> Any:
        self._reached("read")
        value = self._line.call({"ti_id": self._ti_id, "key": key})["value"]
        return default if value is None else value

    def set(self, key: str, value: Any, *, retention: object = None) -> None:
        self._reached(f"write:{value['state']}")
        if self._line.call({"ti_id": self._ti_id, "key": key, "value": value})["refused"]:
            raise SupersededError("404: no such task instance")
        self._reached(f"written:{value['state']}")


class Variables:
    """Airflow Variables of one task: no write is refused, and what fails need not say so."""

    def __init__(self, line: Line, task: str, reached: Callable[[str], str]) -> None:
        self._line, self._task, self._reached = line, task, reached

    def of(self, context: Any) -> Variables:
        return self

    def get(self, number: int) -> str | None:
        if self._reached("read") == "blind":
            return None
        text: str | None = self._call(number)
        return text

    def set(self, number: int, text: str) -> None:
        state = json.loads(text)["state"]
        self._change(number, text, self._reached(f"write:{state}"))
        self._reached(f"written:{state}")

    def delete(self, number: int) -> None:
        self._change(number, None, self._reached("delete"))
        self._reached("deleted")

    def _change(self, number: int, text: str | None, act: str) -> None:
        if act != "lose":
            self._call(number, text=text, late=_LATE_SECONDS if act == "late" else 0.0)

    def _call(self, number: int, **change: Any) -> Any:
        return self._line.call({"variable": number, "task": self._task, **change})["value"]


def run_task(job: Job, line: Line) -> None:
    """Run the operator as a worker does, and report how it ended."""
    report = line.report
    fate = Fate(job.strikes, job.try_number, report)
    sys.addaudithook(fate.audit)
    protocol.SEND_WITHIN_SECONDS = SEND_WITHIN
    protocol.TAKEOVER_MARGIN_SECONDS = TAKEOVER_MARGIN
    unfenced_journal.MAX_START_SECONDS = MAX_START
    unfenced_journal.WRITE_WITHIN_SECONDS = SEND_WITHIN
    if IS_AIRFLOW_2:
        task_journal._is_given_up = lambda ti: ti.is_given_up()
        dag_run._last_success = lambda ti: ti.last_success()
        dag_run._first_logged = lambda ti: None
    befalls: Callable[[str], str] = (lambda point: "") if job.has_store else fate.reached
    task_journal.Variables = Variables(line, job.task, befalls)  # type: ignore[assignment,misc]
    try:
        operator = CfBillingCreateTopupOperator(task_id="topup", retries=job.retries, **job.operator)
        context: Any = {
            "ti": (_TaskInstance if IS_AIRFLOW_2 else _RuntimeTaskInstance)(job, line, fate.reached),
            "task": operator,
            "dag_run": SimpleNamespace(**job.dag_run),
        }
        if job.has_store:
            context["task_state_store"] = Store(line, job.ti_id, fate.reached)
        if job.resume_with is None:
            fate.reached("start")
            result = operator.execute(context)
        else:
            fate.reached("resume")
            result = operator.resume_execution(*job.resume_with, context)
        success = {"ended": "success", "result": result}
        fate.reached("succeeded")
        refused = context["ti"].is_given_up()
        if refused and IS_AIRFLOW_2:
            context["ti"].try_number += 1  # refreshed from the database
        context["ti"].log_success()
        report(success)
        if not refused or LISTENERS_AFTER_REFUSAL:
            _notify_listeners(context["ti"])
    except TaskDeferred as deferred:
        classpath, arguments = deferred.trigger.serialize()
        report({"ended": "deferred", "trigger": [classpath, arguments], "method": deferred.method_name})
    except AirflowSkipException as reason:
        report({"ended": "skipped", "message": str(reason)})
    except AirflowFailException as error:
        report({"ended": "failed for good", "message": str(error)})
    except Exception as error:
        traceback.print_exc()
        report({"ended": "failed", "message": f"{type(error).__name__}: {error}"})


def _notify_listeners(ti: _TaskInstance) -> None:
    """Notify the listeners of the task's success, as Airflow does in the task's own process."""
    session = {"session": None} if _RELEASE < (3, 0) else {}
    get_listener_manager().hook.on_task_instance_success(previous_state=None, task_instance=ti, **session)


def run_trigger(classpath: str, arguments: dict[str, Any], line: Line) -> None:
    """Run a trigger as the triggerer does, and report its event."""
    module, _, name = classpath.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**arguments)

    async def first_event() -> Any:
        async for event in trigger.run():
            return event.payload
        raise RuntimeError("the trigger ended without an event")

    line.report({"ended": "event", "event": asyncio.run(first_event())})


class _TaskInstance:
    def __init__(self, job: Job, line: Line, reached: Callable[[str], object]) -> None:
        self._ti_id, self._line = job.ti_id, line
        self.dag_id, self.run_id, self.task_id, self.map_index = "dag", job.task, "topup", -1
        self.try_number, self.max_tries, self.start_date = job.try_number, job.max_tries, job.started_at
        self._reached = reached

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps(value)
        if key == "payment_intent_id":
            self._reached("pushed")

    def is_given_up(self) -> bool:
        """Return whether a later try has begun."""
        return bool(self._line.call({"ti_id": self._ti_id})["refused"])

    def log_success(self) -> None:
        """Keep it in Airflow's audit log."""
        self._line.call({"task": self.run_id, "successes": [self.try_number]})

    def last_success(self) -> int:
        """Return the last earlier try whose success is in the audit log."""
        logged = self._line.call({"task": self.run_id, "successes": []})["value"]
        return max((min(number, self.try_number - 1) for number in logged), default=0)


class _RuntimeTaskInstance(_TaskInstance):
    def get_ti_count(self, dag_id: str, **_: Any) -> int:
        """Return how many tasks like this one have succeeded: none if Airflow has refused its success."""
        return 0 if self.is_given_up() else 1
