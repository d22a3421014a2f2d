"""One task of one Dag run as a state machine: its tries, and everything that can happen to them."""

from __future__ import annotations

import json
import logging
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_cfbilling.api.errors import CfBillingError, CfBillingUnavailableError
from airflow_provider_cfbilling.charging.endings import ManualReviewRequiredError, TopupNotNeeded
from airflow_provider_cfbilling.charging.journal import Journal
from airflow_provider_cfbilling.charging.order import TopupOrder
from airflow_provider_cfbilling.charging.progress import Progress
from airflow_provider_cfbilling.charging.protocol import TopupProtocol
from airflow_provider_cfbilling.charging.unfenced_journal import MAX_START_SECONDS, UnfencedJournal
from tests.charging.sandboxed import has_news
from tests.charging.virtual import (
    Killed,
    Process,
    SharedJournal,
    SharedVariables,
    Stop,
    Store,
    Variables,
    VirtualTime,
)
from tests.charging.virtual_cloudflare import SICK, MemoryCloudflare, WatchedClient

ACCOUNT_ID = "0123456789abcdef0123456789abcdef"
AMOUNT_CENTS = 2500
WINDOW = 200.0  # seconds
POLL_INTERVAL = 30.0
MAX_TRIES = 12
MAX_INVOICES = 30
# What may be due to the clocks: a Date has whole seconds.
MARGIN = 2.0

# How what a process is about to do may go; first as it should.
WAYS = {
    "read": ("done", "fails"),
    "query": ("done", "fails", "not found"),
    "history": ("done", "fails", "waits for its turn", "trickles in", "done, frozen", *SICK),
    "write": ("done", "fails", "done, raises", "done, killed", "lost", "late"),
    "intent": ("done", "fails", "done, raises", "done, killed", "lost", "late", "done, frozen"),
    "get": ("done", "fails", "finds nothing"),
    "delete": ("done", "fails", "done, raises", "done, killed", "lost", "late"),
    "takeover": ("done",),
    "idle": ("done", "deferred"),
    "charge": (
        *("accepted", "refused", "not sent", "vanishes"),
        *(f"{how} in {share}" for how in ("killed", "lost", "timed out") for share in (1, 0, 0.5)),
        *(f"{how} in {share}" for how in ("killed, late", "late") for share in (1, 0.5)),
    ),
}
# Where it may be stopped, and what may go wrong there. What may become of a charge has a rule of its own.
STOPS: list[tuple[str, str | None]] = [
    *((kind, None) for kind in WAYS),
    *((kind, how) for kind, ways in WAYS.items() if kind != "charge" for how in ways[1:]),
]
MAX_STEPS = 2000

SKEWS = st.sampled_from([0, -60, 60])


class _Claims(logging.Handler):
    """Checks each logged claim that no money has moved."""

    def __init__(self, task: TopupTask, process: Process) -> None:
        super().__init__()
        self._task, self._process = task, process

    def emit(self, record: logging.LogRecord) -> None:
        self._task.check_claim(self._process, record.getMessage())


class TopupTask(RuleBasedStateMachine):
    """One task of one Dag run, its tries, and everything that can happen to them."""

    time = VirtualTime()
    watched_client: type[WatchedClient] = WatchedClient

    def _cloudflare(self, tax: float) -> Any:
        return MemoryCloudflare(self.time, tax)

    @initialize(
        journal=st.sampled_from(["kept", "discarded by a clear", "unfenced"]),
        waits=st.booleans(),
        clocks=st.sampled_from(["skewed", "sick"]),
        tax=st.sampled_from([1.05, 1.25, 1.35, 1.0, 0.8, 0.0]),
        skew=SKEWS,
        skew_in_the_end=SKEWS,
        earlier_invoices=st.integers(0, 4),
        overturns=st.booleans(),
        to_target=st.booleans(),
    )
    def begin(
        self,
        journal: str,
        waits: bool,
        clocks: str,
        tax: float,
        skew: int,
        skew_in_the_end: int,
        earlier_invoices: int,
        overturns: bool,
        to_target: bool,
    ) -> None:
        self.time.passed = 0.0
        self.cloudflare = self._cloudflare(tax)
        self.journal = journal
        self.order: dict[str, Any] = {"amount_cents": AMOUNT_CENTS}
        self.store = Store()
        self.variables = Variables()
        self.cleared = False
        self.may_be_cleared = True
        self.cleared_after = 0
        # As Airflow 2 does: it takes the success of a try that it gave up, and may overturn any.
        self.overturns = overturns and journal == "unfenced"
        self.successes: list[int] = []
        self.has_searched = False
        self.clocks = clocks
        self.sick_left = 1 if clocks == "sick" else 0
        # An invoice due with less than the requested amount proves nothing.
        self.may_need_a_person = tax < 1
        self.may_need_a_person_if_cleared = False
        if clocks == "sick":
            skew = skew_in_the_end = 0
        self.wait_seconds = 120.0 if waits else None
        self.orphans: list[Process] = []
        self.lies: list[str] = []
        for _ in range(earlier_invoices):
            self.cloudflare.charge(AMOUNT_CENTS, of_the_task=False)
        self.time.passed += 300
        if to_target:
            balance_cents = self.cloudflare.client.get_credit_balance().balance_cents
            self.order = {"target_balance_cents": balance_cents + AMOUNT_CENTS}
        self.airflow_skew = skew
        self.skew_in_the_end = skew_in_the_end
        self.run_began_at = self.time.now + skew
        self.current = self._new_try(skew)

    def teardown(self) -> None:
        if not hasattr(self, "current"):
            return
        try:
            while self.variables.late:
                self.late_write_lands()
            self._ends_well_by_itself()
            while self.orphans:
                self.orphan_wakes(which=0, how=None)
            self.charges_at_most_once_and_never_lies()
        finally:
            for process in [*self.orphans, self.current]:
                process.kill()

    # tries

    def _new_try(self, skew: int) -> Process:
        self.store.current += 1
        skew = 0 if self.clocks == "sick" else skew
        # A scheduler whose clock is ahead of its workers' would date the Dag run into their future.
        skew = max(skew, self.airflow_skew) if self.airflow_skew > 0 else skew
        return Process(self.store.current, skew, self.time, self._run_try)

    def _run_try(self, process: Process) -> dict[str, Any]:
        protocol = self._protocol(process)
        cleared = self._cleared_after(process) is not None
        progress = protocol.begin(cleared=cleared, began_at=self.run_began_at)
        while not protocol.is_done(progress):
            try:
                progress = protocol.advance(progress)
            except TopupNotNeeded:
                protocol.forget()
                raise
            if (
                progress.should_wait
                and process.meet(Stop("idle", progress.seconds_until_next_poll(POLL_INTERVAL))) == "deferred"
            ):
                process.skew = -process.skew if self.airflow_skew <= 0 else process.skew
                progress = self._deferred(process, json.dumps(progress.to_json()))
                protocol = self._protocol(process)
        was_current = process.number == self.store.current
        process.meet(Stop("succeeded"))
        if process.number == self.store.current or (self.overturns and was_current):  # else it is refused
            process.has_succeeded = True
            self.successes.append(process.number)
            protocol.forget()
        return protocol.result(progress)

    def _cleared_after(self, process: Process) -> int | None:
        """Return the last earlier try that may have succeeded, as far as Airflow knows."""
        successes = self.successes if self.overturns else []
        logged = max((min(number, process.number - 1) for number in successes), default=0)
        return (max(self.cleared_after, logged) or None) if process.number > 1 else None

    def _deferred(self, process: Process, kept: str) -> Progress:
        """Wait as the triggerer does, on another machine."""
        while True:
            progress = Progress.from_json(json.loads(kept))
            try:
                if has_news(self._client(process), progress):
                    return progress
            except CfBillingUnavailableError:
                pass
            except CfBillingError:
                return progress
            process.meet(Stop("idle", progress.seconds_until_next_poll(POLL_INTERVAL)))

    def _protocol(self, process: Process) -> TopupProtocol:
        journal: Journal = SharedJournal(self.store, process, self.time)
        if self.journal == "unfenced":
            variables = SharedVariables(self.variables, process, self.time)
            journal = UnfencedJournal(
                variables,
                process.number,
                process.began_at + process.skew,
                lambda: self._cleared_after(process),
                sleep=lambda seconds: process.meet(Stop("takeover", seconds)),
            )
        log = logging.Logger("task", logging.INFO)
        log.addHandler(_Claims(self, process))
        return TopupProtocol(
            lambda _: self._client(process),
            ACCOUNT_ID,
            lambda: TopupOrder(payment_method_id="pm_1", **self.order),
            journal,
            window_seconds=WINDOW,
            wait_seconds=self.wait_seconds,
            log=log,
        )

    def _client(self, process: Process) -> Any:
        return self.watched_client(self.cloudflare, process, self.time, self._latest, self._gets_sick)

    def _gets_sick(self) -> bool:
        self.sick_left -= 1
        return self.sick_left >= 0

    def _latest(self, process: Process) -> float:
        """Return until when a charge that is sent now must be listed: what the window takes for granted."""
        return (process.intended_at or self.time.now) + WINDOW - MARGIN

    def _step(self, process: Process, how: str | None = None) -> None:
        stop = process.stop
        if stop.kind in ("idle", "takeover"):
            self.time.passed += stop.seconds
        if stop.kind == "history":
            self.has_searched = True
        process.go_on(how or WAYS.get(stop.kind, ("done",))[0])
        if process.is_over:
            self._check_end(process)

    def _check_end(self, process: Process) -> None:
        if process.number != self.store.current:
            return  # Airflow throws away what becomes of a superseded try
        if process.has_succeeded and process.error:
            return  # what becomes of it after its success is no news to Airflow
        if process.error is None:
            result = process.result
            assert [result["payment_intent_id"]] == self.cloudflare.charges_of_the_task()
            assert result["status"] != "completed" or self.cloudflare.is_paid(result["payment_intent_id"])
            assert result["status"] == "completed" or self.wait_seconds is None
        elif isinstance(process.error, TopupNotNeeded):
            assert self.cloudflare.charges_of_the_task() == []
        elif not isinstance(process.error, CfBillingError | OSError | Killed):
            raise process.error
        elif isinstance(process.error, ManualReviewRequiredError):
            if not (self.may_need_a_person or (self.cleared and self.may_need_a_person_if_cleared)):
                raise AssertionError("nothing happened that needs a person") from process.error
        elif isinstance(process.error, CfBillingError):
            self.check_claim(process, str(process.error))

    def check_claim(self, process: Process, text: str) -> None:
        is_heard = process.number == self.store.current
        if "othing was charged" in text and is_heard and self.cloudflare.charges_of_the_task():
            self.lies.append(text)

    # what happens

    @precondition(lambda self: not self.current.is_over)
    @rule(**{kind: st.sampled_from(WAYS[kind]) for kind in ("history", "intent", "charge")})
    def tries_to_charge(self, **how: str) -> None:
        """All goes well up to its charge, but for the history, the intent and the charge itself."""
        for _ in range(MAX_STEPS):
            kind = self.current.stop.kind
            self._step(self.current, how.pop(kind, None))
            if kind == "charge" or self.current.stop.kind in ("frozen", "over"):
                return

    @precondition(lambda self: not self.current.is_over)
    @rule(stop=st.sampled_from(STOPS))
    def goes_on_to(self, stop: tuple[str, str | None]) -> None:
        """All goes well up to there; and that may go wrong."""
        kind, how = stop
        if not self._has(kind):
            return
        self._goes_on_to(kind)
        if how and not self.current.is_over:
            self._step(self.current, how)

    @rule(seconds=st.sampled_from([0.5, 4, 6, 30, 60, WINDOW, 2 * WINDOW]))
    def time_passes(self, seconds: float) -> None:
        self.time.passed += seconds

    @precondition(lambda self: self.store.current < MAX_TRIES)
    @rule(
        comes_to=st.sampled_from([None, *WAYS, "succeeded"]),
        skew=SKEWS,
        clears=st.booleans(),
        orphaned=st.booleans(),
    )
    def new_try_starts(self, comes_to: str | None, skew: int, clears: bool, orphaned: bool) -> None:
        """The scheduler takes the current one, which has come so far, for dead, and rightly so, or not."""
        if comes_to and self._has(comes_to):
            self._goes_on_to(comes_to)
        if not orphaned:
            self.current.kill()
        if not self.current.is_over:
            self.orphans.append(self.current)
            if self.current.number not in self.variables.texts:  # Airflow does not give it up so soon
                self.time.passed += MAX_START_SECONDS + 1
        if (clears and self.may_be_cleared) or (self.current.has_succeeded and not self.overturns):
            self.cleared = True
            self.cleared_after = self.current.number
            if self.journal == "discarded by a clear":
                self.store.text = None
        self.current = self._new_try(skew)

    @precondition(lambda self: self.orphans)
    @rule(which=st.integers(0, 9), how=st.sampled_from([None, None, "vanishes in 0", "lost in 1"]))
    def orphan_wakes(self, which: int, how: str | None) -> None:
        orphan = self.orphans[which % len(self.orphans)]
        self._step(orphan, how if orphan.stop.kind == "charge" else None)
        if orphan.is_over:
            self.orphans.remove(orphan)

    @precondition(lambda self: self.orphans)
    @rule(which=st.integers(0, 9))
    def orphan_goes_on_to_its_end(self, which: int) -> None:
        orphan = self.orphans.pop(which % len(self.orphans))
        for _ in range(MAX_STEPS):
            if orphan.is_over:
                return
            self._step(orphan)
        raise AssertionError("it never ends")

    @precondition(lambda self: self.cloudflare.count() < MAX_INVOICES)
    @rule(amount_cents=st.sampled_from([1000, 2 * AMOUNT_CENTS]))
    def person_tops_up_by_another_amount(self, amount_cents: int) -> None:
        """To come up to a target any amount may have been charged, and what is missing becomes less."""
        if "target_balance_cents" in self.order:
            if self.journal != "kept" or self.cleared or amount_cents < AMOUNT_CENTS:
                return
            self.may_be_cleared = False
        self.time.passed += 5
        self.cloudflare.charge(amount_cents, of_the_task=False)
        # A try without record cannot know which amount an earlier one has requested.
        self.may_need_a_person |= amount_cents < AMOUNT_CENTS or self.journal != "kept"
        self.may_need_a_person_if_cleared |= not self.store.text

    @rule()
    def credits_run_out(self) -> None:
        """More is missing to a target now."""
        self.cloudflare.use_up_credits()

    @precondition(lambda self: self.variables.late)
    @rule()
    def late_write_lands(self) -> None:
        self.variables.land(*self.variables.late.pop(0))

    @precondition(lambda self: self.journal == "kept" and not self.cleared and not self.current.is_over)
    @rule()
    def person_tops_up_by_the_same_amount_before(self) -> None:
        """As long as no try has searched, it cannot be taken for the task's."""
        self._goes_on_to("history")
        record = json.loads(self.store.text) if self.store.text else {}
        if record.get("state") == "started" and not self.has_searched:
            self.time.passed += 5
            self.cloudflare.charge(AMOUNT_CENTS, of_the_task=False)

    # what must hold

    @invariant()
    def charges_at_most_once_and_never_lies(self) -> None:
        if hasattr(self, "current"):
            assert len(self.cloudflare.charges_of_the_task()) <= 1
            assert self.lies == []

    def _has(self, kind: str) -> bool:
        return self.journal == "unfenced" or kind not in ("get", "delete", "takeover")

    def _goes_on_to(self, kind: str) -> None:
        for _ in range(MAX_STEPS):
            if self.current.stop.kind in (kind, "over"):
                return
            self._step(self.current)
        raise AssertionError("it never ends")

    def _ends_well_by_itself(self) -> None:
        for _ in range(4):
            self._goes_on_to("over")
            self.charges_at_most_once_and_never_lies()
            ends_it = isinstance(self.current.error, ManualReviewRequiredError | TopupNotNeeded)
            if self.current.has_succeeded or ends_it:
                return
            self.time.passed += 30
            self.current = self._new_try(self.skew_in_the_end)
        raise AssertionError(f"it does not end well: {self.current.error!r}")
