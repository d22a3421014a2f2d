"""Stands in for Airflow's scheduler: runs a task in try after try, each in processes of its own.

Nothing here blocks: a task runs as a generator, step by step, so that two tasks can run at the same time
without a thread.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.faults.process import Process, TaskStates
from tests.faults.rows import MAX_START
from tests.faults.worker import IS_AIRFLOW_2, Job, Strike, run_task, run_trigger

_MAX_PROCESS = 60.0  # seconds

Steps = Generator[None, None, None]
Ending = dict[str, Any]
_StepsToEnding = Generator[None, None, Ending]


@dataclass(frozen=True)
class Setting:
    """What all tasks of one trial share.

    :param runs_after: whether a Dag run has ``run_after``, as in Airflow 3.
    :param triggerer_dies: how many seconds after a trigger has begun its first triggerer is killed.
    :param trigger: why no trigger can wait, if so.
    """

    folder: Path
    connection_uri: str
    has_store: bool
    randomness: random.Random
    runs_after: bool = True
    triggerer_dies: tuple[float, ...] = ()
    trigger: str | None = None
    states: TaskStates = field(default_factory=TaskStates)

    @property
    def log(self) -> Path:
        return self.folder / "log"


@dataclass
class _Orphan:
    process: Process
    strike: Strike
    thaw_at: float | None = None


@dataclass
class Task:
    """One task of one Dag run.

    :param hears: is called with every end of a try, as soon as it is known.
    :ivar ending: how its last try ended.
    :ivar endings: how all of its tries ended.
    :ivar struck: how often something befell its processes.
    """

    name: str
    setting: Setting
    operator: dict[str, Any]
    strikes: tuple[Strike, ...] = ()
    tries: int = 3
    hears: Callable[[Task, dict[str, Any]], None] = lambda task, ending: None
    ending: dict[str, Any] = field(default_factory=lambda: {"ended": "never"})
    endings: list[dict[str, Any]] = field(default_factory=list)
    struck: int = 0

    def __post_init__(self) -> None:
        self._try_number = 0
        self._retries = self._max_tries = self.tries - 1
        self._started_at = datetime.now(UTC)
        self._processes: list[Process] = []
        self._orphans: list[_Orphan] = []
        begun = datetime.now(UTC)
        self._dag_run: dict[str, Any] = {"run_type": "manual", "start_date": begun, "clear_number": 0}
        self._dag_run["logical_date"] = begun
        if self.setting.runs_after:
            waited = self.setting.randomness.uniform(0, 0.5)
            self._dag_run["run_after"] = begun - timedelta(seconds=waited)

    def run(self) -> Steps:
        """Try until a try ends well, or for good, or none are left."""
        for _ in range(self.tries):
            self.ending = yield from self._try()
            self.endings.append(self.ending)
            self.hears(self, self.ending)
            if self.ending["ended"] in ("success", "skipped", "failed for good"):
                break
            yield from self._pause(self.setting.randomness.uniform(0, 0.3))
            if self.ending["ended"] == "frozen":
                yield from self._until_given_up()
        yield from self._thaw_all()

    def _until_given_up(self) -> Steps:
        """Airflow gives a try up later than it may take to begin: else nothing could fence its process."""
        setting = self.setting
        if not setting.has_store and not setting.states.was_recorded(self.name, self._try_number):
            age = (datetime.now(UTC) - self._started_at).total_seconds()
            yield from self._pause(MAX_START + 0.1 - age)

    def _pause(self, seconds: float) -> Steps:
        for _ in pause(seconds):
            self._thaw()
            yield

    def clear(self, *, discard_store_too: bool = False, more_retries: int = 0) -> Steps:
        """Run it again as after a user's clear, or as Airflow 2 does when it overturns a success.

        :param more_retries: so many are deployed after the clear.
        """
        is_overturned = IS_AIRFLOW_2 and self.ending["ended"] == "success"
        if not (is_overturned and self.setting.randomness.random() < 0.5):
            # Below Airflow 3.2 a run that was queued again by hand does not count the clear of its task.
            is_counted = self.setting.has_store or more_retries or self.setting.randomness.random() < 0.5
            self._dag_run["clear_number"] += int(bool(is_counted))
            self._max_tries = self._try_number + self._retries
            self._retries += more_retries
            self._dag_run["start_date"] = datetime.now(UTC)
        if discard_store_too:
            self.setting.states.discard(self.name)
        yield from self.run()

    def end(self) -> None:
        """Leave no process behind."""
        for process in self._processes:
            process.end()

    def _try(self) -> _StepsToEnding:
        self._try_number += 1
        self._started_at = datetime.now(UTC)
        ti_id = f"{self.name} try {self._try_number}"
        self.setting.states.begin_try(self.name, ti_id)
        self._plan_thaw("started")
        resume_with = None
        while True:
            job = Job(
                ti_id=ti_id,
                task=self.name,
                try_number=self._try_number,
                max_tries=self._max_tries,
                retries=self._retries,
                started_at=self._started_at,
                dag_run=self._dag_run,
                operator=self.operator,
                has_store=self.setting.has_store,
                strikes=self.strikes,
                resume_with=resume_with,
            )
            ending = yield from self._follow(self._start(run_task, job))
            if ending["ended"] == "deferred":
                method = ending["method"]
                ending = yield from self._wait(*json.loads(json.dumps(ending["trigger"])))
                if ending["ended"] == "event":
                    ending["resume_with"] = (method, {"event": ending["event"]})
                elif self.setting.trigger == "fails":
                    error = {"error": "Trigger failure", "traceback": ["Traceback\n", "ImportError: gone\n"]}
                    ending = {"ended": "event", "resume_with": ("__fail__", error)}
            if ending["ended"] != "event":
                if ending["ended"] != "frozen":
                    self._plan_thaw("ended")
                return ending
            resume_with = ending["resume_with"]

    def _wait(self, classpath: str, arguments: dict[str, Any]) -> _StepsToEnding:
        """Run the trigger, in another triggerer when the first one dies."""
        if self.setting.trigger == "fails":
            self.struck += 1
            return {"ended": "crashed"}
        for dies_after in (*self.setting.triggerer_dies, None):
            triggerer = self._start(run_trigger, classpath, arguments)
            ending = yield from self._follow(triggerer, dies_after)
            if ending["ended"] != "crashed":
                break
        return ending

    def _start(self, run: Callable[..., None], *arguments: Any) -> Process:
        uri = self.setting.connection_uri
        if run is run_trigger and self.setting.trigger:
            self.struck += 1
            uri = {"broken": "cfbilling://no-account:token@", "missing": ""}[self.setting.trigger]
        environment = {"AIRFLOW_CONN_CFBILLING_DEFAULT": uri}
        process = Process(self.setting.log, environment, self.setting.states, run, *arguments)
        self._processes.append(process)
        return process

    def _follow(self, process: Process, dies_after: float | None = None) -> _StepsToEnding:
        """Return how a process ended: what it said last, or that it crashed, or froze."""
        began = time.monotonic()
        ending = None
        plans: list[tuple[float, Strike]] = []
        while process.alive or ending is None:
            for news in process.news():
                if "strike" in news:
                    strike = self.strikes[news["strike"]]
                    self.struck += 1
                    if strike.act in ("kill", "freeze"):
                        plans.append((time.monotonic() + strike.delay, strike))
                else:
                    ending = news
            for at, strike in plans:
                if time.monotonic() < at or not process.alive:
                    continue
                if strike.act == "freeze":
                    process.signal(signal.SIGSTOP)
                    self._orphans.append(_Orphan(process, strike))
                    if ending:  # Airflow knows it already
                        return ending
                    yield from self._pause(0.1)  # until its heartbeat is missed
                    return {"ended": "frozen"}
                process.signal(signal.SIGKILL)
            age = time.monotonic() - began
            self.struck += dies_after is not None and age > dies_after
            if age > _MAX_PROCESS or (dies_after is not None and age > dies_after):
                process.end()
                return {"ended": "crashed" if dies_after is not None else "does not end"}
            if not process.alive:
                break
            self._thaw()
            yield
        return ending or {"ended": "crashed"}

    def _plan_thaw(self, event: str) -> None:
        for orphan in self._orphans:
            if orphan.thaw_at is None and orphan.strike.thaw == event:
                orphan.thaw_at = time.monotonic() + orphan.strike.thaw_delay

    def _thaw(self) -> None:
        """Let the orphans whose time has come go on, and discard what they report."""
        for orphan in self._orphans:
            orphan.process.news()
            if orphan.thaw_at is not None and time.monotonic() >= orphan.thaw_at:
                orphan.process.signal(signal.SIGCONT)

    def _thaw_all(self) -> Steps:
        """Let every orphan come to its end."""
        for orphan in self._orphans:
            if orphan.thaw_at is None:
                orphan.thaw_at = time.monotonic() + orphan.strike.thaw_delay
        deadline = time.monotonic() + _MAX_PROCESS
        while any(orphan.process.alive for orphan in self._orphans):
            self._thaw()
            if time.monotonic() > deadline:
                self.ending = {"ended": "does not end"}
                return
            yield
        self._orphans.clear()


def pause(seconds: float) -> Steps:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield


def together(*runs: Steps) -> Steps:
    """Take turns, until all have ended."""
    for _ in itertools.zip_longest(*runs):
        yield
