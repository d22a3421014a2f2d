"""Airflow's command line, started once for many commands: each start takes seconds of a processor."""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.real_airflow import processes

_TAIL_LINES = 40
_LINE_LENGTH = 300

_COMMAND_LINE = """
import json, sys, traceback
from airflow.cli.cli_parser import get_parser
for line in sys.stdin:
    try:
        arguments = get_parser().parse_args(json.loads(line))
        arguments.func(arguments)
        result = None
    except BaseException:
        result = traceback.format_exc()
    print("RESULT", json.dumps(result), flush=True)
"""


class CommandLine:
    """Runs Airflow's commands, one after the other, from any thread."""

    def __init__(self, environment: Mapping[str, str], home: Path) -> None:
        self._lock = threading.Lock()
        self._log = home / "command-line.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND_LINE],
                env=environment,
                cwd=home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def run(self, *arguments: str) -> None:
        assert self.process.stdin
        assert self.process.stdout
        with self._lock:
            self.process.stdin.write(json.dumps(arguments) + "\n")
            self.process.stdin.flush()
            result = next((line for line in self.process.stdout if line.startswith("RESULT ")), "")
        assert result == "RESULT null\n", f"airflow {' '.join(arguments)}: {result}\n{tail(self._log)}"

    def stop(self) -> None:
        processes.end_session(self.process.pid)
        self.process.wait()


def tail(log: Path) -> str:
    """Return a log's end."""
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(line[:_LINE_LENGTH] for line in lines)
