"""Many top-ups in one Airflow, side by side, each with a sandbox of its own that records the charges."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pprint import pformat
from types import MappingProxyType
from typing import Any

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.faults import When
from airflow_provider_cfbilling.sandbox.models import Charge
from tests.real_airflow import processes
from tests.real_airflow.counters import Counters
from tests.real_airflow.deployment import (
    HAS_API_SERVER,
    HAS_TASK_STATE_STORE,
    RETRIES_WHAT_WAS_KILLED,
    Airflow,
)
from tests.real_airflow.processes import Process

AMOUNT_CENTS = 2_500
# How long a task may take to start while all the others do.
START_TIMEOUT = 120.0
FINISH_TIMEOUT = 180.0
# From a sender's end to its late charge.
LATE_SECONDS = 3.0
# From a task's success to the last of its record.
FORGET_TIMEOUT = 20.0
# A task's start is work for a processor: too many at once, and each takes longer than its time limits.
_starting = threading.BoundedSemaphore(5)

HEADER = """\
from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator
"""

_DAG = """
with DAG("{name}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    CfBillingCreateTopupOperator(
        task_id="topup",
        cfbilling_conn_id="{name}",
        amount_cents={amount_cents},
        poll_interval=0.5,
        timeout=150,
        unknown_outcome_window={window_seconds},
        deferrable={deferrable},
        execution_timeout={execution_timeout},
        retries={retries},
        retry_delay=timedelta(seconds=1),
    )
"""


@dataclass(frozen=True)
class Setup:
    """What a top-up runs into.

    :param hangs: the operation whose first request gets no response.
    :param when: what becomes of a charge that hangs: it is made (``after``), or not (``before``), or made
        once its sender has gone (``late``).
    :param post_seconds: how long it waits for the response to its charge.
    :param settle_seconds: from the charge to its settlement.
    :param execution_timeout_seconds: Airflow's, for each try.
    :param retries: Airflow's.
    :param alone: run it when the others are done: it disturbs them.
    :param needs_api_server: Airflow below 3.0 cannot run it.
    :param needs_task_state_store: Airflow below 3.3 cannot run it.
    :param needs_retry_after_kill: Airflow 3.0 cannot run it.
    """

    hangs: str | None = None
    when: When = "after"
    post_seconds: float = 6.0
    settle_seconds: float = 1.0
    deferrable: bool = False
    retries: int = 3
    execution_timeout_seconds: float | None = None
    alone: bool = False
    needs_api_server: bool = False
    needs_task_state_store: bool = False
    needs_retry_after_kill: bool = False

    @property
    def window_seconds(self) -> float:
        return self.post_seconds + 6  # the minimum is 5 more

    @property
    def uri_options(self) -> str:
        return f"?read_timeout={self.post_seconds:g}&max_attempts=2"

    def cannot_run(self) -> str | None:
        """Return why this Airflow cannot run it; None: it can."""
        if self.needs_api_server and not HAS_API_SERVER:
            return "this Airflow has no API server"
        if self.needs_task_state_store and not HAS_TASK_STATE_STORE:
            return "this Airflow has no task state store"
        if self.needs_retry_after_kill and not RETRIES_WHAT_WAS_KILLED:
            return "this Airflow does not retry a task whose process was killed"
        return None

    def dag_ids(self, name: str) -> list[str]:
        return [name]

    def prepare(self, sandbox: Sandbox) -> None:
        if self.hangs:
            sandbox.fault(self.hangs, "hang", self.when, seconds=LATE_SECONDS)

    def dag(self, name: str) -> str:
        seconds = self.execution_timeout_seconds
        return _DAG.format(
            name=name,
            amount_cents=AMOUNT_CENTS,
            window_seconds=self.window_seconds,
            deferrable=self.deferrable,
            retries=self.retries,
            execution_timeout=f"timedelta(seconds={seconds})" if seconds else None,
        )


@dataclass(frozen=True)
class Finished:
    """A top-up whose Dag run has ended well.

    :param charges: every one that was made.
    :param posts: how many requests to charge were sent.
    :param seconds: since the blow was dealt.
    """

    charges: list[Charge]
    posts: int
    result: dict[str, Any]
    xcoms: dict[str, Any]
    tries: int
    seconds: float

    @property
    def outcome(self) -> str:
        return str(self.result["outcome"])


class Topup:
    """One Dag run that tops up once, whatever befalls it."""

    def __init__(self, name: str, airflow: Airflow, sandbox: Sandbox) -> None:
        self.name = name
        self.airflow = airflow
        self.sandbox = sandbox
        self.outcomes: list[str] = []
        self.charged = 0
        self._struck_at = time.monotonic()

    def start(self) -> None:
        """Start the Dag run; returns when its task has begun to work."""
        with _starting:
            self.airflow.trigger(self.name)
            self.wait_until("its task works", self.count)

    def until_charge_hangs(self) -> Process:
        """Wait until the charge was sent and has no response; return the task's process."""
        self.wait_until("its charge is sent", lambda: self.count("createTopup"))
        return self.process()

    def until_it_waits(self) -> Process:
        """Wait until the charge has its response, and its settlement is being polled."""
        self.wait_until("it waits", lambda: self.count("checkTopupStatus") >= 2)
        return self.process()

    def process(self, other_than: int | None = None) -> Process:
        """Return the process that runs the task's code, or that of the next try."""

        def found() -> Process | None:
            running = self.airflow.task_processes(self.name)
            return next((process for process in running if process.pid != other_than), None)

        return self.wait_until("it has a process", found)

    def until_ended(self, pid: int) -> None:
        self.wait_until(f"process {pid} has ended", lambda: not processes.is_alive(pid))

    def charge_hangs(self) -> bool:
        """Return whether the latest charge is still without a response, with its sender still there."""
        return self.sandbox.requests("createTopup")[-1].status is None

    def strike(self, *pids: int) -> None:
        """SIGKILL processes of the task."""
        for pid in pids:
            processes.send(pid, signal.SIGKILL)
        self._struck_at = time.monotonic()

    def kill_task(self, process: Process, task_id: str = "topup") -> None:
        """SIGKILL what runs the task's code. Where Airflow does not try again, do what a user does then."""
        self.strike(process.pid)
        self.until_ended(process.pid)
        if not RETRIES_WHAT_WAS_KILLED:
            self.until_run_failed()
            self.airflow.clear(self.name, task_id)

    def until_run_failed(self) -> None:
        self.wait_until("the run has failed", lambda: self.airflow.run_state(self.name) == "failed")

    def freeze(self, *pids: int) -> None:
        for pid in pids:
            processes.send(pid, signal.SIGSTOP)
        self._struck_at = time.monotonic()

    def wake(self, *pids: int) -> None:
        for pid in pids:
            processes.send(pid, signal.SIGCONT)

    def struck(self) -> None:
        """Note that it was hit by something else."""
        self._struck_at = time.monotonic()

    def finish(self) -> Finished:
        """Wait, and do nothing, until the Dag run has succeeded and nothing of the record is left."""
        xcoms = self.until_success()
        seconds = time.monotonic() - self._struck_at
        charges = self.sandbox.charges()
        task = self.airflow.task(self.name)
        finished = Finished(
            charges, self.count("createTopup"), xcoms["return_value"], xcoms, task.try_number, seconds
        )
        print(f"{self.name}: {finished.outcome} in try {task.try_number}, {seconds:.1f} s after the blow")
        assert len(charges) == 1, f"{self.name}: charged {len(charges)} times\n{self._shown()}"
        assert finished.result["payment_intent_id"] == charges[0].invoice_id
        assert finished.xcoms["payment_intent_id"] == charges[0].invoice_id
        self.until_forgotten()
        self.outcomes.append(finished.outcome)
        self.charged = len(charges)
        return finished

    def until_success(self) -> dict[str, Any]:
        """Wait until the Dag run has succeeded; return what its task has left.

        Below Airflow 3.0, a try that ends well can be followed by another one, which begins with nothing.
        """

        def result() -> dict[str, Any]:
            state, xcoms = self.airflow.run_state(self.name), self.airflow.xcoms(self.name)
            assert state != "failed", f"{self.name}: {state}\n{self._shown()}"
            return xcoms if state == "success" and "return_value" in xcoms else {}

        return self.wait_until("the Dag run has succeeded", result, FINISH_TIMEOUT)

    def until_forgotten(self, *dag_ids: str) -> None:
        def forgotten() -> bool:
            return not any(self.airflow.records(dag_id) for dag_id in dag_ids or [self.name])

        self.wait_until("nothing of the record is left", forgotten, FORGET_TIMEOUT)

    def count(self, operation: str | None = None) -> int:
        """Return how many requests Cloudflare's stand-in has seen."""
        return len(self.sandbox.requests(operation))

    def wait_until(self, what: str, condition: Callable[[], Any], seconds: float = START_TIMEOUT) -> Any:
        try:
            return self.airflow.wait_until(what, condition, seconds)
        except AssertionError as error:
            raise AssertionError(f"{self.name}: {error}\n{self._shown()}") from None

    def _shown(self) -> str:
        task = self.airflow.tasks(self.name)
        seen = pformat(self.sandbox.requests()[-20:])
        return f"{task}\n{pformat(self.sandbox.charges())}\n{seen}\n{self.airflow.log_tails(self.name)}"


Story = Callable[[Topup], None]


class SideBySide:
    """Plays stories at once, since most of each is waiting, and reports each in a test of its own.

    :param kind: what a story is played with.
    :param header: of the Dag file.
    :param environment: of Airflow, beside the connections.
    """

    def __init__(
        self,
        kind: type[Topup] = Topup,
        header: str = HEADER,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._kind = kind
        self._header = header
        self._environment = environment
        self.counters = Counters()
        self._stories: dict[str, tuple[Setup, Story]] = {}
        self._topups: list[Topup] = []
        self._played: dict[str, Future[None]] = {}

    def story(self, setup: Setup) -> Callable[[Story], Callable[..., None]]:
        """Turn a story into a test that fails as the story does, whenever that was played."""

        def decorate(story: Story) -> Callable[..., None]:
            name = story.__name__.removeprefix("test_")
            if reason := setup.cannot_run():
                return pytest.mark.skip(reason=reason)(story)
            self._stories[name] = setup, story

            def test(played: None) -> None:
                self._played[name].result()

            test.__name__, test.__doc__, test.__module__ = story.__name__, story.__doc__, story.__module__
            return test

        return decorate

    def play(self, stack: ExitStack) -> None:
        """Start the sandboxes, Airflow and the stories; the stack ends what was started."""
        sandboxes, environment, dag_ids = {}, dict(self._environment), []
        for name, (setup, _) in self._stories.items():
            sandbox = stack.enter_context(Sandbox(settle_seconds=setup.settle_seconds))
            setup.prepare(sandbox)
            environment[f"AIRFLOW_CONN_{name.upper()}"] = sandbox.connection_uri() + setup.uri_options
            sandboxes[name] = sandbox
            dag_ids += setup.dag_ids(name)
        dags = self._header + "".join(setup.dag(name) for name, (setup, _) in self._stories.items())
        environment |= stack.enter_context(self.counters).environment
        airflow = stack.enter_context(Airflow(dags, dag_ids, environment))
        pool = stack.enter_context(ThreadPoolExecutor(len(self._stories)))
        self._topups = [self._kind(name, airflow, sandboxes[name]) for name in self._stories]
        alone = [topup for topup in self._topups if self._stories[topup.name][0].alone]
        for topup in self._topups:
            if topup not in alone:
                self._played[topup.name] = pool.submit(self._stories[topup.name][1], topup)
        together = list(self._played.values())
        for topup in alone:
            story = self._stories[topup.name][1]
            self._played[topup.name] = pool.submit(_play_after, together, story, topup)

    def charged_since(self) -> dict[str, int]:
        """Return how often those were charged whose story had ended well, more often than they were then."""
        wait(self._played.values())
        charged = {each.name: (each.charged, len(each.sandbox.charges())) for each in self._topups}
        return {name: now for name, (then, now) in charged.items() if then and now != then}

    def records(self) -> list[str]:
        """Return the Variables that are left, once all are played."""
        wait(self._played.values())
        return self._topups[0].airflow.records()

    def outcomes(self) -> Counter[str]:
        """Return how often the top-ups ended in which way, once all are played."""
        wait(self._played.values())
        return Counter(outcome for topup in self._topups for outcome in topup.outcomes)


def _play_after(others: list[Future[None]], story: Story, topup: Topup) -> None:
    wait(others)
    story(topup)
