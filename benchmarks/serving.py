"""The counting server in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import requests


class Counting:
    """Where the counting server is, and what it has counted."""

    def __init__(self, url: str) -> None:
        self.url = url

    def count(self) -> int:
        return sum(requests.get(f"{self.url}/count", timeout=10).json().values())


@contextmanager
def counting_server() -> Iterator[Counting]:
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield Counting(f"http://127.0.0.1:{process.stdout.readline().strip()}")
        finally:
            process.terminate()
