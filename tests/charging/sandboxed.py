"""A task that tops up over real HTTP, try by try, in front of a sandbox with a controllable clock."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.http import send_tracking
from airflow_provider_cfbilling.charging import progress as progress_module
from airflow_provider_cfbilling.charging import protocol as protocol_module
from airflow_provider_cfbilling.charging.endings import NotChargedError
from airflow_provider_cfbilling.charging.journal import Journal, Record
from airflow_provider_cfbilling.charging.order import TopupOrder
from airflow_provider_cfbilling.charging.progress import Progress
from airflow_provider_cfbilling.charging.protocol import TopupProtocol
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.virtual import VirtualTime
from tests.raw_servers import client_of

AMOUNT_CENTS = 2500
ANOTHER_ACCOUNT = "f" * 32
MAX_POLLS = 150


def has_news(client: CfBillingClient, progress: Progress) -> bool:
    """Return what the trigger polls for: whether the next step would now do more than wait."""
    query, *arguments = progress.poll_query()
    return query(client, *arguments) or progress.is_settlement_overdue


class KeptJournal:
    """A journal that survives its tries, as JSON.

    :ivar history: every record that was written, in order.
    :ivar before_write: called before each write; what it raises keeps it from being done.
    :ivar after_write: called after each write.
    """

    is_fenced = True

    def __init__(self) -> None:
        self._text: str | None = None
        self.history: list[Record] = []
        self.before_write: Callable[[Record], object] = lambda _: None
        self.after_write: Callable[[Record], object] = lambda _: None

    def begin(self, started: Record, takeover_seconds: float) -> Record:
        if self._text is None:
            self.write(started)
        return self.record

    def forget(self) -> None:
        self._text = None

    def write(self, record: Record) -> None:
        self.before_write(record)
        self._text = json.dumps(record.to_json())
        self.history.append(record)
        self.after_write(record)

    @property
    def record(self) -> Record:
        assert self._text is not None
        return Record.from_json(json.loads(self._text))

    @property
    def states(self) -> list[str]:
        return [record.state for record in self.history]


class Task:
    """One task of one Dag run.

    :ivar deferrable: whether its tries wait in the triggerer, which gets their progress as JSON.
    :ivar cleared: whether a user has cleared it.
    :ivar began_at: when the Dag run began, by this machine's clock.
    :ivar polls: how often the latest try had nothing to do but wait.
    """

    def __init__(
        self, sandbox: Sandbox, client_of: Callable[[str | None], CfBillingClient], time: VirtualTime
    ) -> None:
        self.sandbox, self.client_of, self.time = sandbox, client_of, time
        self.journal: Journal = KeptJournal()
        self.deferrable = False
        self.began_at = time.time()
        self.tries = 0
        self.cleared = False
        self.polls = 0
        self.log = logging.getLogger("cfbilling.task")

    @property
    def kept(self) -> KeptJournal:
        assert isinstance(self.journal, KeptJournal)
        return self.journal

    def passes(self, seconds: float) -> None:
        """Let time pass, here and at Cloudflare's."""
        self.time.passed += seconds
        self.sandbox.configure_server(clock_offset_seconds=self.time.passed)

    def protocol(
        self,
        *,
        amount_cents: int | None = AMOUNT_CENTS,
        account_id: str | None = None,
        window_seconds: float = 600.0,
        wait_seconds: float | None = 3600.0,
        **conditions: Any,
    ) -> TopupProtocol:
        return TopupProtocol(
            self.client_of,
            account_id or self.sandbox.account_id,
            lambda: TopupOrder(amount_cents, **conditions),
            self.journal,
            window_seconds=window_seconds,
            wait_seconds=wait_seconds,
            log=self.log,
        )

    def run(self, *, until: Callable[[Progress], bool] | None = None, **arguments: Any) -> dict[str, Any]:
        """Run the next try, to its end or until something holds; then it is as if killed."""
        self.tries += 1
        self.polls = 0
        protocol = self.protocol(**arguments)
        progress = protocol.begin(cleared=self.cleared, began_at=self.began_at)
        while not protocol.is_done(progress):
            progress = protocol.advance(progress)
            if until and until(progress):
                return {}
            if progress.should_wait:
                progress = self._wait(progress)
                protocol = self.protocol(**arguments) if self.deferrable else protocol
        return protocol.result(progress)

    def _wait(self, progress: Progress) -> Progress:
        kept = json.dumps(progress.to_json())
        while self.polls < MAX_POLLS:
            self.polls += 1
            self.passes(progress.seconds_until_next_poll(30.0))
            if not self.deferrable:
                return progress
            progress = Progress.from_json(json.loads(kept))
            if has_news(self.client_of(progress.account_id or self.sandbox.account_id), progress):
                return progress
        raise AssertionError("it waits forever")

    def posts(self) -> int:
        return len(self.sandbox.requests("createTopup"))

    def charged(self) -> str:
        """The id of the one invoice that was charged."""
        (charge,) = self.sandbox.charges()
        return charge.invoice_id


@contextmanager
def task_in(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    """A task in front of ``sandbox``, both in a time of their own."""
    time = VirtualTime(running=True)
    for module in (protocol_module, progress_module, send_tracking):
        monkeypatch.setattr(module, "time", time)
    with client_of(sandbox) as client:
        others = {client.account_id: client}

        def client_for(account_id: str | None) -> CfBillingClient:
            account_id = account_id or client.account_id
            return others.setdefault(account_id, client.for_account(account_id))

        sandbox.configure(ANOTHER_ACCOUNT, token=client._settings.secret)
        yield Task(sandbox, client_for, time)
        for other in others.values():
            other.close()


# Kinds of fault that leave whether the card was charged unknown.
LOST: list[dict[str, Any]] = [
    {"kind": "reset"},
    {"kind": "drop"},
    {"kind": "status", "status": 502, "html": True},
    {"kind": "redirect"},
    {"kind": "truncate"},
    {"kind": "garbage"},
]


def lose(sandbox: Sandbox, when: str = "before", **fault: Any) -> None:
    """Lose the response to the next charge, ``before`` or ``after`` it is made."""
    sandbox.fault("createTopup", **{"kind": "reset", "when": when} | fault)


def is_intent(progress: Progress) -> bool:
    return progress.record.state == "intent"


def is_accepted(progress: Progress) -> bool:
    return progress.record.state == "accepted"


def killed_after_the_charge(task: Task, *, charged: bool = False) -> None:
    """Run a try that is killed when the response to its charge is lost."""
    lose(task.sandbox, "after" if charged else "before")
    task.run(until=is_intent)


def history_reads(task: Task) -> int:
    return len(task.sandbox.requests("getInvoiceHistory"))


def not_charged(task: Task) -> None:
    """Run a try whose charge is lost twice, and not made."""
    lose(task.sandbox, times=2)
    with pytest.raises(
        NotChargedError,
        match=r"Two charge requests got no response and produced no invoice\. Nothing was charged",
    ):
        task.run()
