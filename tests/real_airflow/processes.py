"""Finds and kills processes of a session that this one has started, by what ``/proc`` says of them."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process as it was when it was inspected.

    :param title: its command line, or what it calls itself.
    :param session: the process id of the session's leader. It outlives the leader, and so shows an orphan's
        descent when its parent no longer does.
    """

    pid: int
    parent: int
    session: int
    title: str


def of_session(leader: int) -> list[Process]:
    """Return the living processes of a session. The leader must not have been waited for."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [process for pid in numbers if (process := process_of(pid)) and process.session == leader]


def process_of(pid: int) -> Process | None:
    """Return a process, or None if it has ended."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        # The name in parentheses may hold anything; after the last one come plain fields.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent, _, session = fields[:4]
    return None if state in "ZX" else Process(pid, int(parent), int(session), title.strip())


def is_alive(pid: int) -> bool:
    return process_of(pid) is not None


def send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def end_session(leader: int) -> None:
    """SIGKILL all processes of a session."""
    # One that is about to be started is not found in the first pass.
    while members := of_session(leader):
        for process in members:
            send(process.pid, signal.SIGKILL)
        time.sleep(0.01)
