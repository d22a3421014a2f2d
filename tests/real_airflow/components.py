"""Airflow's components: each is a process, in a session of its own, which finds all that it has started."""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.real_airflow import processes
from tests.real_airflow.processes import Process

_END_TIMEOUT = 60.0


class Components:
    """What runs under which name, and what has run under it before."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._replaced: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], home: Path, log: Path
    ) -> None:
        """Start ``airflow`` with these arguments in a folder of its own; what it says is added to its log."""
        with log.open("ab") as output:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                env=environment,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """SIGKILL a component, and all that it has started."""
        leader = self._running.pop(name)
        self._replaced.append(leader)
        for process in processes.of_session(leader.pid):
            processes.send(process.pid, signal.SIGKILL)

    def runs(self, name: str) -> bool:
        return name in self._running

    def ended(self) -> list[str]:
        """Return the components that have ended, though they were not stopped."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def processes_of(self, name: str) -> list[Process]:
        """Return a component's living processes, and those of the tasks that it has started."""
        return processes.of_session(self._running[name].pid)

    def stop(self) -> None:
        """SIGKILL everything, and wait until it has ended."""
        leaders = [*self._replaced, *self._running.values()]
        for leader in leaders:
            processes.end_session(leader.pid)
        for leader in leaders:
            leader.wait(_END_TIMEOUT)
