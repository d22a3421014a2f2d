"""A journal for a store that refuses no write: one record for each try, written by that try alone.

An orphan of an earlier try may still be running. It cannot be stopped, so it must stop itself:

- A try writes its own ``started`` first. If it is not the first one, it then waits for as long as a send may
  take, and only then reads the earlier tries' records.
- Before it sends, a try starts its send deadline, makes sure that no later try has started, writes its
  intent, and sends before the deadline ends. It makes sure before every other write too.

If the orphan saw no later try, its deadline began before that try's ``started`` was there. So it has sent
before the later try reads, and its intent, written before that, is read. If it did see one, it stops.

A try that has ended well removes the records: the earlier ones first, so that an orphan that misses its own
stops too. An orphan that has not begun yet would miss nothing: so a try must begin soon after Airflow has
started it, sooner than Airflow gives a try up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from airflow_provider_cfbilling.api.http.send_tracking import SendDeadline
from airflow_provider_cfbilling.charging.endings import SupersededError
from airflow_provider_cfbilling.charging.journal import Record

# A try that dies before it writes anything leaves a gap in the numbers, and Airflow's restart may skip one.
MAX_GAP = 2
# A later try cannot begin and end in less: it waits for longer than that.
WRITE_WITHIN_SECONDS = 5.0
# A failed read may be indistinguishable from one that finds nothing. What is decisive is read twice, and
# between two reads of what must be there: the try's own record.
_READS = 2
# From when Airflow has started a try to its first record. Airflow gives a try up after 300 seconds without a
# heartbeat, by default.
MAX_START_SECONDS = 120.0


class Store(Protocol):
    """Keeps one text for each number of a try. Whatever fails may do so without a word."""

    def get(self, number: int) -> str | None:
        """Return the text, or None if there is none, or perhaps if it cannot be read."""

    def set(self, number: int, text: str) -> None:
        """Keep ``text``."""

    def delete(self, number: int) -> None:
        """Remove the text, if there is one."""


class UnfencedJournal:
    """The records of all tries, as one of them sees and writes them.

    :param try_number: of this try. Later ones have larger numbers, without large gaps.
    :param cleared_after: returns the last try that may have succeeded, and so have removed its record; None:
        none has.
    :param try_started_at: when Airflow started this try, in Unix seconds; None: that is not known.
    """

    is_fenced = False

    def __init__(
        self,
        store: Store,
        try_number: int,
        try_started_at: float | None = None,
        cleared_after: Callable[[], int | None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._number = try_number
        self._started_at = try_started_at
        self._cleared_after = cleared_after
        self._is_late = False
        self._sleep = sleep

    def begin(self, started: Record, takeover_seconds: float) -> Record:
        own = self._read(self._number) or self._read(self._number)
        if own is None:
            self._check_soon_enough()
            self._set(started)
            self._check_soon_enough()
        if own or self._number > 1:
            self._sleep(takeover_seconds)
        latest = self.latest()
        if latest is None:  # also from here on, while this one waited
            latest = replace(started, cleared=started.cleared or self._cleared_after() is not None)
        if self._store.get(self._number) is None:
            raise OSError("the record of this try cannot be read")
        if latest not in (own, started):
            # Its own is the last that a try removes, so it must not say less than the others.
            self.write(latest)
        return latest

    def _check_soon_enough(self) -> None:
        age = 0.0 if self._started_at is None else time.time() - self._started_at
        if age > MAX_START_SECONDS:
            raise SupersededError(
                f"This try recorded its start {age:.0f} s after Airflow started it, so another one may have "
                "taken over. It does not charge; Airflow may retry"
            )

    def has_earlier(self) -> bool:
        """Return whether an earlier try has left a record."""
        return any(self._read(number) for _ in range(_READS) for number in range(1, self._number))

    def latest(self) -> Record | None:
        """Return the newest record that has got beyond ``started``.

        Else what shows that none was discarded: that of the last try before a clear. None: nothing does.
        """
        started = {}
        for _ in range(_READS):
            for number in (self._number, *range(self._number - 1, 0, -1)):
                record = self._read(number)
                if record and record.state != "started":
                    return record
                if record:
                    started[number] = record
        # Read last: a success is recorded before its record is removed.
        last = started.get(self._cleared_after() or 0)
        return None if last is None or last.cleared else last

    def _check_not_superseded(self) -> None:
        """Make sure that no later try has begun.

        :raises SupersededError: one has, or may have: this one must not send anything.
        """
        if self._is_late:
            raise SupersededError("This try was held up, and another one may have taken over")
        self._check_own()
        for _ in range(_READS):
            for number in range(self._number + 1, self._number + 1 + MAX_GAP):
                if self._store.get(number) is not None:
                    raise SupersededError(f"Try {number} of this task has begun, so this one does not charge")
        # Last: a later try that has ended well removes the earlier records first, then its own.
        self._check_own()

    def _check_own(self) -> None:
        if self._store.get(self._number) is None:
            raise SupersededError(
                "The record of this try has been removed, or cannot be read, so it does not charge"
            )

    def write(self, record: Record) -> None:
        """Keep ``record``, unless a later try has begun.

        What is written after the later one has removed the record would stand there as if none had begun.
        """
        deadline = SendDeadline.after(WRITE_WITHIN_SECONDS)
        self._check_not_superseded()
        self._set(record)
        if deadline.is_past():
            self._is_late = True
            self._check_not_superseded()

    def _set(self, record: Record) -> None:
        text = json.dumps(record.to_json())
        self._store.set(self._number, text)
        if self._store.get(self._number) != text:
            raise OSError("what was written is not what is read back")

    def forget(self) -> None:
        earlier = range(1, self._number)
        for number in (*earlier, self._number):
            self._store.delete(number)
            if self._store.get(number) is not None:
                raise OSError(f"the record of try {number} cannot be removed")

    def _read(self, number: int) -> Record | None:
        text = self._store.get(number)
        return Record.from_json(json.loads(text)) if text else None
