"""Runs trials side by side, each process with a sandbox of its own, and sums up."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any, cast

from airflow_provider_cfbilling.hooks import cfbilling as _hooks
from airflow_provider_cfbilling.sandbox import Sandbox, SandboxClient
from airflow_provider_cfbilling.sandbox import asgi as _asgi  # noqa: F401 (before the fork)
from airflow_provider_cfbilling.triggers import cfbilling as _triggers  # noqa: F401 (before the fork)
from tests.faults.process import die_with_parent
from tests.faults.rows import Mode, Row
from tests.faults.trial import JUDGEMENTS, RIGHT, Trial, Verdict

_fork = multiprocessing.get_context("fork")


def _import_what_tasks_import() -> None:
    """Read a connection, for which Airflow 3.0 imports 500 modules: a task that does so is late to charge."""
    os.environ["AIRFLOW_CONN_BEFORE_THE_FORK"] = f"cfbilling://{'0' * 32}:before-the-fork@"
    _hooks.CfBillingHook("before_the_fork").get_conn()
    del os.environ["AIRFLOW_CONN_BEFORE_THE_FORK"]


def run_trials(
    matrix: Sequence[tuple[Row, Mode]], *, trials: int, seed: int, jobs: int, seconds: float
) -> Iterator[Verdict]:
    """Run that many trials, row by row in turn, and give each verdict when it is known.

    :param seconds: no trial begins later than that.
    """
    _import_what_tasks_import()
    gc.collect()
    gc.freeze()  # so that forked processes share the memory
    next_number = _fork.Value("i", 0)
    until = time.monotonic() + seconds
    ends: list[Any] = []
    processes = []
    for _ in range(min(jobs, trials)):
        receiver, sender = _fork.Pipe(duplex=False)
        process = _fork.Process(target=_work, args=(matrix, trials, seed, next_number, until, sender))
        process.start()
        sender.close()
        ends.append(receiver)
        processes.append(process)
    try:
        while ends:
            for end in cast(list[Any], wait(ends)):
                try:
                    yield end.recv()
                except EOFError:
                    ends.remove(end)
    finally:
        for process in processes:
            if process.is_alive() and ends:
                process.terminate()
            process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a process of the lab itself has died")


def _work(
    matrix: Sequence[tuple[Row, Mode]], trials: int, seed: int, next_number: Any, until: float, sender: Any
) -> None:
    """Run trials until there are no more."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    receiver, url_sender = _fork.Pipe(duplex=False)
    server = _fork.Process(target=_serve, args=(url_sender,), daemon=True)
    server.start()
    sandbox = SandboxClient(receiver.recv())
    try:
        while time.monotonic() < until:
            with next_number.get_lock():
                number = next_number.value
                next_number.value += 1
            if number >= trials:
                break
            row, mode = matrix[number % len(matrix)]
            try:
                verdict = Trial(sandbox, row, mode, seed + number).judge()
            except Exception:
                verdict = Verdict(row.name, str(mode), seed + number, "broken", traceback.format_exc())
            sender.send(verdict)
    finally:
        server.terminate()
        server.join()


def _serve(url_sender: Any) -> None:
    die_with_parent()
    with Sandbox(rate_quota=1_000_000) as sandbox:
        url_sender.send(sandbox.url)
        threading.Event().wait()


def table(verdicts: Sequence[Verdict], names: Sequence[str]) -> str:
    """Return a line for each row, in the order of ``names``, and the sum."""
    by_row: dict[str, Counter[str]] = defaultdict(Counter)
    for verdict in verdicts:
        by_row[verdict.row][verdict.judgement] += 1
        by_row[verdict.row]["trials"] += 1
        by_row[verdict.row]["met"] += verdict.met
    columns = [
        "trials",
        "met",
        *JUDGEMENTS,
        *(["broken"] if any(counts["broken"] for counts in by_row.values()) else []),
    ]
    width = max(len(row) for row in [*by_row, "row"])
    lines = ["  ".join([f"{'row':{width}}", *(f"{column:>5}" for column in columns)])]
    by_name = {name: by_row[name] for name in names if name in by_row}
    total: Counter[str] = sum(by_name.values(), Counter())
    for name, counts in [*by_name.items(), ("all", total)]:
        cells = [f"{counts[column]:{max(5, len(column))}}" for column in columns]
        lines.append("  ".join([f"{name:{width}}", *cells]))
    return "\n".join(lines)


def is_off(verdict: Verdict) -> bool:
    return verdict.judgement not in RIGHT
