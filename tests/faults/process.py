"""Forked processes, and what responds to them: the task state store, and Airflow's Variables."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.worker import Line

_MAX_LIFE = 120  # seconds, if no process is left to end it
_SET_PARENT_DEATH_SIGNAL = 1


def die_with_parent() -> None:
    """See to it that not even a frozen process outlives the lab, where the system can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


class TaskStates:
    """What the api-server knows of tasks: which try of each one is the current one, and their values.

    It is no process of its own, and a worker that is frozen in the middle of a write blocks no other.
    """

    def __init__(self) -> None:
        self._task_of: dict[str, str] = {}  # by id of the current try
        self._values: dict[tuple[str, str], str] = {}
        self._variables: dict[tuple[str, int], str | None] = {}
        self._successes: dict[str, list[int]] = defaultdict(list)  # of Airflow 2's audit log
        self._late: list[tuple[float, tuple[str, int], str | None]] = []

    def begin_try(self, task: str, ti_id: str) -> None:
        """Make this the try that may write; all earlier ones are superseded."""
        self._task_of = {known: its for known, its in self._task_of.items() if its != task}
        self._task_of[ti_id] = task

    def discard(self, task: str) -> None:
        self._values = {key: value for key, value in self._values.items() if key[0] != task}
        self._variables = {key: text for key, text in self._variables.items() if key[0] != task}

    def was_recorded(self, task: str, number: int) -> bool:
        """Return whether that try has ever written its Variable."""
        self._settle_late()
        return (task, number) in self._variables

    def respond(self, request: dict[str, Any]) -> dict[str, Any]:
        """Read, or write if there is a value. Every try may read and write a Variable."""
        if "variable" in request:
            return {"value": self._variable(request)}
        if "successes" in request:
            self._successes[request["task"]] += request["successes"]
            return {"value": self._successes[request["task"]]}
        task = self._task_of.get(request["ti_id"])
        if task is None:
            return {"refused": True, "value": None}
        if "value" in request:
            self._values[task, request["key"]] = json.dumps(request["value"])
        return {
            "refused": False,
            "value": json.loads(self._values.get((task, request.get("key", "")), "null")),
        }

    def _variable(self, request: dict[str, Any]) -> str | None:
        self._settle_late()
        key = (request["task"], request["variable"])
        if "text" in request:
            at = time.monotonic() + request["late"]
            self._late.append((at, key, request["text"]))
            self._settle_late()
        return self._variables.get(key)

    def _settle_late(self) -> None:
        now = time.monotonic()
        for at, key, text in sorted(self._late, key=lambda each: each[0]):
            if at <= now:
                self._variables[key] = text
        self._late = [each for each in self._late if each[0] > now]


class Process:
    """A forked process: what it reports and requests comes through a pipe, and its log goes into a file."""

    def __init__(
        self,
        log: Path,
        environment: dict[str, str],
        states: TaskStates,
        run: Callable[..., None],
        *arguments: Any,
    ) -> None:
        from_child, to_parent = os.pipe()
        from_parent, to_child = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _be(Line(to_parent, from_parent), log, environment, run, arguments)
        os.close(to_parent)
        os.set_blocking(from_child, False)
        self._pipes = (from_child, to_child, from_parent)  # the last one, so that responding never fails
        self._unread = b""
        self._states = states
        self.alive = True

    def news(self) -> list[dict[str, Any]]:
        """Return what it has reported since the last call; ``alive`` is True as long as there may be more."""
        ended = self.alive and os.waitpid(self.pid, os.WNOHANG)[0] != 0
        self._unread += self._read() if self.alive else b""
        *lines, self._unread = self._unread.split(b"\n")
        messages = [json.loads(line) for line in lines]
        for news in messages:
            if "request" in news:
                response = self._states.respond(news["request"])
                os.write(self._pipes[1], json.dumps(response).encode() + b"\n")
        if ended:
            self._close()
        return [news for news in messages if "request" not in news]

    def signal(self, number: signal.Signals) -> None:
        if self.alive:  # not waited for yet, so that the pid is still its own
            os.kill(self.pid, number)

    def end(self) -> None:
        """Kill it, if it is still there."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._close()

    def _read(self) -> bytes:
        read = b""
        while True:
            try:
                chunk = os.read(self._pipes[0], 65536)
            except BlockingIOError:
                return read
            if not chunk:
                return read
            read += chunk

    def _close(self) -> None:
        for pipe in self._pipes:
            os.close(pipe)
        self.alive = False


def _be(
    line: Line, log: Path, environment: dict[str, str], run: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    """Be the child, and never return."""
    try:
        die_with_parent()
        signal.alarm(_MAX_LIFE)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ |= environment
        random.seed(os.getpid())
        run(*arguments, line)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
