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
from types import SimpleNamespace
from typing import Any, Literal

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_cfbilling.charging import protocol
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator

_SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


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

    :param resume_with: the event to resume with; None: the try begins.
    :param has_store: whether this Airflow has a task state store.
    """

    ti_id: str
    try_number: int
    dag_run: dict[str, Any]
    operator: dict[str, Any]
    send_within: float
    has_store: bool
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
                request = f"{words[0].decode()} {path.decode()}"
                self.reached(request)
                self.reached(f"{request} body")  # head and body leave in one piece


class Line:
    """A process's line to the stand-ins for Airflow."""

    def __init__(self, writer: int, reader: int) -> None:
        self._writer, self._answers = writer, os.fdopen(reader)

    def tell(self, news: dict[str, Any]) -> None:
        os.write(self._writer, json.dumps(news).encode() + b"\n")

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self.tell({"question": question})
        return dict(json.loads(self._answers.readline()))


class Store:
    """A task state store for one try of one task, as Airflow 3.3 has it: the api-server keeps the values."""

    def __init__(self, line: Line, ti_id: str, reached: Callable[[str], None]) -> None:
        self._line, self._ti_id, self._reached = line, ti_id, reached

    def get(self, key: str, default: Any = None) -> Any:
        self._reached("read")
        value = self._line.ask({"ti_id": self._ti_id, "key": key})["value"]
        return default if value is None else value

    def set(self, key: str, value: Any, *, retention: object = None) -> None:
        self._reached(f"write:{value['state']}")
        if self._line.ask({"ti_id": self._ti_id, "key": key, "value": value})["refused"]:
            raise SupersededError("404: no such task instance")
        self._reached(f"written:{value['state']}")


def run_task(job: Job, line: Line) -> None:
    """Run the operator as a worker does, and tell how it ended."""
    tell = line.tell
    fate = Fate(job.strikes, job.try_number, tell)
    sys.addaudithook(fate.audit)
    protocol.SEND_WITHIN_SECONDS = job.send_within
    context: Any = {
        "ti": _TaskInstance(job.try_number, fate.reached),
        "dag_run": SimpleNamespace(**job.dag_run),
        "data_interval_end": job.dag_run["start_date"],
    }
    if job.has_store:
        context["task_state_store"] = Store(line, job.ti_id, fate.reached)
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


def run_trigger(classpath: str, arguments: dict[str, Any], line: Line) -> None:
    """Run a trigger as the triggerer does, and tell its event."""
    module, _, name = classpath.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**arguments)

    async def first_event() -> Any:
        async for event in trigger.run():
            return event.payload
        raise RuntimeError("the trigger ended without an event")

    line.tell({"ended": "event", "event": asyncio.run(first_event())})


class _TaskInstance:
    def __init__(self, try_number: int, reached: Callable[[str], None]) -> None:
        self.try_number = try_number
        self._reached = reached

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps(value)
        if key == "payment_intent_id":
            self._reached("told")
