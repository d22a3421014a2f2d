"""Python with Airflow but without this package, time and again: Airflow is imported once, and forked."""

import multiprocessing
import sys
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.airflow_imported"])


def in_new_process(code: str) -> tuple[list[str], Any]:
    """Run ``code``, and return the modules that it imported and what it calls ``result``."""
    with _context.Pool(1) as pool:
        return pool.apply_async(_run, (code,)).get(timeout=60)


def _run(code: str) -> tuple[list[str], Any]:
    before, names = set(sys.modules), {"result": None}
    exec(code, names)
    return sorted(set(sys.modules) - before), names["result"]
