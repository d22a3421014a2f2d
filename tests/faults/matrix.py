"""Every row in every mode that this Airflow can have."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

from tests.faults.deaths import failing_journals, kills, orphans, variables_rows
from tests.faults.responses import failing_reads, lost_responses
from tests.faults.rows import Mode, Row
from tests.faults.stories import longer_rows, review_rows, rows_with_anything

MODES = [Mode(deferrable, has_store) for deferrable, has_store in product((False, True), (True, False))]
_GOLDEN = (5**0.5 - 1) / 2  # its multiples fall evenly


def all_rows() -> list[Row]:
    return [
        *lost_responses(),
        *failing_reads(),
        *kills(),
        *orphans(),
        *failing_journals(),
        *variables_rows(),
        *review_rows(),
        *longer_rows(),
        *rows_with_anything(),
        *_to_a_target([*kills(), *orphans(), *failing_journals(), *variables_rows()]),
    ]


def _to_a_target(rows: list[Row]) -> list[Row]:
    """Return the same rows for a top-up to a balance: each try may find another amount to be missing."""
    return [
        replace(row, name=f"to a target: {row.name}", to_target=True) for row in rows if row.ends == "charged"
    ]


def matrix(pattern: str = "") -> list[tuple[Row, Mode]]:
    """Return the rows whose name is, or matches, ``pattern``, each in all of its modes.

    In such an order that the first few are a fair sample of all.
    """
    modes = [mode for mode in MODES if has_task_state_store() or not mode.has_store]
    found = [
        (row, mode)
        for row, mode in product(all_rows(), modes)
        if row.fits(mode) and (pattern == row.name_in(mode) or re.search(pattern, row.name_in(mode)))
    ]
    places = sorted(range(len(found)), key=lambda place: place * _GOLDEN % 1)
    return [found[place] for place in places]


def has_task_state_store() -> bool:
    """Whether this Airflow keeps a store for each task: 3.3 and later."""
    try:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE  # noqa: F401
    except ImportError:
        return False
    return True
