"""A world to explore the protocol in: a controllable clock, processes that stop before each thing they do to
the outside, a journal that several of them share."""

import json
import threading
import time as real
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_cfbilling.charging.journal import Record

_KILLED = "killed at once"
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
        # Far ahead of this machine's: the thread that cuts connections reads the same clock, and would
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
    """One try of a task in a process of its own, which waits at each stop for how it goes.

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
        """Wait for how ``stop`` goes, and return it. Called by the process itself."""
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
    """What the tries of a task write, superseded ones too: one text for each try.

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
