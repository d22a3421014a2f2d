"""A world to explore the protocol in: time that passes when told to, processes that stop before each thing
they do to the outside, a journal that several of them share, and a Cloudflare kept in memory."""

import itertools
import json
import threading
import time as real
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingInvalidRequestError,
    CfBillingNotFoundError,
    CfBillingNotSentInTimeError,
    CfBillingOutcomeUnknownError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.api.http.send_tracking import SendDeadline
from airflow_provider_cfbilling.api.models import (
    Invoice,
    InvoiceHistory,
    Pagination,
    Topup,
    TopupLimits,
    TopupStatus,
)
from airflow_provider_cfbilling.charging.journal import Record
from airflow_provider_cfbilling.sandbox import Sandbox

_KILLED = "killed at once"
# How far the date of a sick response is off.
SICK = {"an hour ahead": timedelta(hours=1), "an hour behind": timedelta(hours=-1)}
PATIENCE = 30.0  # real seconds that a process may take to its next stop


class VirtualTime:
    """Stands in for the module ``time``.

    :param running: add the seconds that really pass, for a world with real servers.
    :ivar skew: how far the clock of the process that runs now is ahead of the true one.
    """

    def __init__(self, *, running: bool = False) -> None:
        self._running = running
        self.passed = 0.0
        self.skew = 0.0

    @property
    def now(self) -> float:
        return self.passed + (real.time() if self._running else 1_800_000_000.0)

    def time(self) -> float:
        return self.now + self.skew

    def monotonic(self) -> float:
        if self._running:
            return real.monotonic() + self.passed
        # Far ahead of this machine's: the thread that cuts connections looks at the same clock, and would
        # otherwise sleep too long.
        return self.now


class Killed(BaseException):
    """The process is no more: nothing catches this, and nothing is tidied up."""


@dataclass(frozen=True)
class Stop:
    """What a process is about to do, before it has been done.

    :param kind: ``born``, ``idle``, ``frozen``, ``succeeded``, ``over``, or the name of what it does.
    """

    kind: str
    seconds: float = 0.0


class Process:
    """One try of a task in a process of its own, which goes on only when told how.

    :param body: what it runs.
    :ivar stop: what it is about to do.
    :ivar result: what it returned.
    :ivar error: what it raised.
    """

    def __init__(self, number: int, skew: float, time: VirtualTime, body: Callable[["Process"], Any]) -> None:
        self.number = number
        self.skew = skew
        self.stop = Stop("born")
        self.result: Any = None
        self.error: BaseException | None = None
        self.began_at = time.now
        self.intended_at = 0.0
        self.has_succeeded = False
        self._time = time
        self._how = ""
        self._mine, self._theirs = threading.Lock(), threading.Lock()
        self._mine.acquire()
        self._theirs.acquire()
        self._body = body
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._resumed()
            self.result = self._body(self)
        except BaseException as error:
            self.error = error
        self.stop = Stop("over")
        self._theirs.release()

    def meet(self, stop: Stop) -> str:
        """Wait to be told how ``stop`` goes. Called by the process itself."""
        self.stop = stop
        self._theirs.release()
        return self._resumed()

    def _resumed(self) -> str:
        self._mine.acquire()
        if self._how == _KILLED:
            raise Killed
        return self._how

    def go_on(self, how: str) -> None:
        """Let it do what it is about to do, and run up to its next stop."""
        self._time.skew, self._how = self.skew, how
        self._mine.release()
        if not self._theirs.acquire(timeout=PATIENCE):
            raise AssertionError("the process does not come to its next stop")
        self._time.skew = 0.0

    def kill(self) -> None:
        if not self.is_over:
            self.go_on(_KILLED)
        self._thread.join()

    @property
    def is_over(self) -> bool:
        return self.stop.kind == "over"


class Store:
    """Where the journals of all tries write: only the latest try may, and only it sees anything."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.current = 0


class SharedJournal:
    """The store as one process sees it."""

    is_fenced = True

    def __init__(self, store: Store, process: Process, time: VirtualTime) -> None:
        self._store, self._process, self._time = store, process, time

    def begin(self, started: Record, takeover_seconds: float) -> Record:
        if self._process.meet(Stop("read")) == "fails":
            raise OSError("the journal cannot be read")
        text = self._store.text if self._process.number == self._store.current else None
        if text:
            return Record.from_json(json.loads(text))
        self.write(started)
        return started

    def forget(self) -> None:
        pass

    def write(self, record: Record) -> None:
        is_intent = record.state == "intent"
        if is_intent:
            self._process.intended_at = self._time.now
        how = self._process.meet(Stop("intent" if is_intent else "write"))
        if how in ("fails", "lost", "late") or self._process.number != self._store.current:
            raise OSError("the journal refuses to be written")
        self._store.text = json.dumps(record.to_json())
        if how == "done, killed":
            raise Killed
        if how == "done, raises":
            raise OSError("whether the journal was written is not known")
        if how == "done, frozen":
            self._process.meet(Stop("frozen"))


class Variables:
    """What the tries of a task write, and anybody may: one text for each try.

    :ivar late: writes that have not come through yet.
    :ivar hidden_left: how many reads may still find nothing where there is something.
    """

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.late: list[tuple[int, str | None]] = []
        self.hidden_left = 1

    def land(self, number: int, text: str | None) -> None:
        if text is None:
            self.texts.pop(number, None)
        else:
            self.texts[number] = text


class SharedVariables:
    """The variables as one process sees them."""

    def __init__(self, variables: Variables, process: Process, time: VirtualTime) -> None:
        self._variables, self._process, self._time = variables, process, time

    def get(self, number: int) -> str | None:
        how = self._process.meet(Stop("get"))
        if how == "fails":
            raise OSError("the variable cannot be read")
        if how == "finds nothing" and self._variables.hidden_left > 0:
            self._variables.hidden_left -= 1
            return None
        return self._variables.texts.get(number)

    def set(self, number: int, text: str) -> None:
        is_intent = json.loads(text)["state"] == "intent"
        if is_intent:
            self._process.intended_at = self._time.now
        self._change("intent" if is_intent else "write", number, text)

    def delete(self, number: int) -> None:
        self._change("delete", number, None)

    def _change(self, kind: Literal["intent", "write", "delete"], number: int, text: str | None) -> None:
        how = self._process.meet(Stop(kind))
        if how == "fails":
            raise OSError("the variable refuses to be written")
        if how == "late":
            self._variables.late.append((number, text))
        elif how != "lost":
            self._variables.land(number, text)
        if how == "done, killed":
            raise Killed
        if how == "done, raises":
            raise OSError("whether the variable was written is not known")
        if how == "done, frozen":
            self._process.meet(Stop("frozen"))


@dataclass
class Bill:
    """An invoice of the Cloudflare in memory."""

    id: str
    due_cents: int
    created: float
    listed_at: float
    paid_at: float
    of_the_task: bool


class MemoryCloudflare:
    """Charges, and lists what was charged, by the true time.

    :param tax: what is due for one cent asked for.
    """

    per_page = 8

    def __init__(self, time: VirtualTime, tax: float = 1.0) -> None:
        self._time = time
        self._tax = tax
        self._numbers = itertools.count(1)
        self._bills: list[Bill] = []

    def charge(
        self,
        amount_cents: int,
        *,
        lands_after: float = 0.0,
        listed_after: float = 0.0,
        paid_after: float = 0.0,
        of_the_task: bool = True,
    ) -> Bill:
        """Charge the card, now or ``lands_after`` seconds; it is listed ``listed_after`` seconds from now."""
        created = self._time.now + lands_after
        listed_at = self._time.now + max(lands_after, listed_after)
        due = int(amount_cents * self._tax)
        number = next(self._numbers)
        bill = Bill(f"in_{number}", due, created, listed_at, created + paid_after, of_the_task)
        self._bills.append(bill)
        return bill

    def charges_of_the_task(self) -> list[str]:
        """The charges it has made, and those under way."""
        return [bill.id for bill in self._bills if bill.of_the_task]

    def count(self) -> int:
        return len(self._bills)

    def is_paid(self, bill_id: str) -> bool:
        return any(bill.id == bill_id and bill.paid_at <= self._time.now for bill in self._bills)

    @property
    def client(self) -> Any:
        return self

    def keep_time(self) -> None:
        pass

    # what a client can do

    def get_topup_limits(self) -> TopupLimits:
        return TopupLimits(min_cents=1000, max_cents=100_000, currency="usd")

    def get_topup_status(self, payment_intent_id: str) -> TopupStatus:
        paid = self.is_paid(payment_intent_id)
        return TopupStatus(payment_intent_id, "completed" if paid else "pending")

    def get_invoice_history(self, type: str, *, page: int = 1) -> InvoiceHistory:
        listed = [bill for bill in self._bills if max(bill.listed_at, bill.created) <= self._time.now]
        listed.sort(key=lambda bill: int(bill.created), reverse=True)
        end = page * self.per_page
        return InvoiceHistory(
            tuple(self._invoice(bill) for bill in listed[end - self.per_page : end]),
            Pagination(
                has_more=len(listed) > end, page=page, per_page=self.per_page, total_count=len(listed)
            ),
            server_time=datetime.fromtimestamp(int(self._time.now), UTC),  # a Date knows no fractions
        )

    def _invoice(self, bill: Bill) -> Invoice:
        blank: dict[str, Any] = dict.fromkeys(Invoice.__dataclass_fields__)
        known = {
            "id": bill.id,
            "amount_due_cents": bill.due_cents,
            "created_at": datetime.fromtimestamp(int(bill.created), UTC),
            "status": "paid" if self.is_paid(bill.id) else "open",
        }
        return Invoice(**{**blank, **known})


class SandboxCloudflare:
    """The same, over real HTTP."""

    def __init__(self, time: VirtualTime, sandbox: Sandbox, client: CfBillingClient) -> None:
        self._time, self._sandbox, self.client = time, sandbox, client

    def keep_time(self) -> None:
        self._sandbox.configure_server(clock_offset_seconds=self._time.passed)

    def charge(self, amount_cents: int, *, of_the_task: bool) -> None:
        """Let a person top up."""
        self.keep_time()
        self._sandbox.add_invoice(amount_cents)

    def lose(self, kind: Any, when: Any, *, listed_after: float = 0.0) -> None:
        """Lose the response to the next charge, which is made where ``when`` is ``after``."""
        self._sandbox.configure(history_lag_seconds=listed_after)
        self._sandbox.fault("createTopup", kind, when)

    def decline(self) -> None:
        self._sandbox.configure(next_topup_outcome="declined")

    def charges_of_the_task(self) -> list[str]:
        return [charge.invoice_id for charge in self._sandbox.charges()]

    def count(self) -> int:
        return len(self._sandbox.invoices())

    def is_paid(self, bill_id: str) -> bool:
        settled = (invoice.settles_at for invoice in self._sandbox.invoices() if invoice.id == bill_id)
        return any(at is not None and at <= self._time.now for at in settled)


class WatchedClient:
    """A client whose process stops before each request, and is told how it goes.

    :param latest: until when, by the true time, a charge must be listed.
    :param may_be_sick: whether a response may carry a wrong date.
    """

    account_id = "0123456789abcdef0123456789abcdef"
    read_timeout = 60.0

    def __init__(
        self,
        cloudflare: Any,
        process: Process,
        time: VirtualTime,
        latest: Callable[[Process], float],
        may_be_sick: Callable[[], bool] = lambda: False,
    ) -> None:
        self.cloudflare = cloudflare
        self._may_be_sick = may_be_sick
        self.client = cloudflare.client
        self.process, self.time, self._latest = process, time, latest

    def get_topup_limits(self) -> TopupLimits:
        return self._look(self.client.get_topup_limits)

    def get_topup_status(self, payment_intent_id: str) -> TopupStatus:
        return self._look(lambda: self.client.get_topup_status(payment_intent_id))

    def get_invoice_history(self, type: str, *, page: int = 1) -> InvoiceHistory:
        return self._look(lambda: self.client.get_invoice_history(type, page=page), "history")

    def _look(self, look: Callable[[], Any], kind: Literal["look", "history"] = "look") -> Any:
        how = self.process.meet(Stop(kind))
        if how == "fails":
            raise CfBillingUnavailableError("Cloudflare could not respond")
        if how == "not found":
            raise CfBillingNotFoundError("Invoice not found")
        if how == "waits for its turn":
            self.time.passed += 50
        self.cloudflare.keep_time()
        answer = look()
        if how == "trickles in":
            self.time.passed += 50
        if how in SICK and self._may_be_sick():
            answer = replace(answer, server_time=answer.server_time + SICK[how])
        if how == "done, frozen":
            self.process.meet(Stop("frozen"))
        return answer

    def create_topup(
        self, amount_cents: int, payment_method_id: str | None, *, send_by: SendDeadline
    ) -> Topup:
        how, _, share = self.process.meet(Stop("charge")).partition(" in ")
        if how == "not sent":
            raise CfBillingUnavailableError("Connection refused. Nothing was sent")
        listed_after = max(0.0, self._latest(self.process) - self.time.now) * float(share or 0)
        self.cloudflare.keep_time()
        try:
            return self.send(how, listed_after, amount_cents, send_by)
        finally:
            if how == "timed out":
                self.time.passed += self.read_timeout
            if how.startswith("killed"):
                raise Killed

    def send(self, how: str, listed_after: float, amount_cents: int, send_by: SendDeadline) -> Topup:
        """Send the charge, unless it is too late, and let it end in the way that ``how`` says."""
        if send_by.is_past():
            raise CfBillingNotSentInTimeError("Nothing was sent")
        if how == "refused":
            raise CfBillingInvalidRequestError("Your card was declined. Nothing was charged", status=400)
        if how != "vanishes":
            lands_after = listed_after if "late" in how else 0.0
            bill = self.cloudflare.charge(
                amount_cents, lands_after=lands_after, listed_after=listed_after, paid_after=20
            )
        if how == "answered":
            return Topup(bill.id, onboarding=None, brand="visa", last4="4242")
        raise CfBillingOutcomeUnknownError("No response. Whether it was carried out is not known")


class WatchedHttpClient(WatchedClient):
    """The same, over real HTTP."""

    def send(self, how: str, listed_after: float, amount_cents: int, send_by: SendDeadline) -> Topup:
        if how == "refused":
            self.cloudflare.decline()
        elif how == "vanishes":
            self.cloudflare.lose("reset", "before")
        elif how != "answered":
            kind = {"timed out": "truncate", "killed": "drop"}.get(how, "reset")
            self.cloudflare.lose(kind, "after", listed_after=listed_after)
        topup: Topup = self.client.create_topup(amount_cents, "pm_sandbox_default", send_by=send_by)
        return topup
