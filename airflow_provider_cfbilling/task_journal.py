"""Where a task keeps the record of its top-up, and what it knows of its Dag run."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_cfbilling.charging.journal import Journal, NoJournal, Record

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_KEY = "cfbilling_topup"


class TaskJournal:
    """Keeps the record in Airflow's task state store: for one Dag run, task and map index, over all tries."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def read(self) -> Record | None:
        value = self._store.get(_KEY)
        return Record.from_json(value) if value else None

    def write(self, record: Record) -> None:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        self._store.set(_KEY, record.to_json(), retention=NEVER_EXPIRE)


def journal_of(context: Context) -> Journal:
    """Return the task's journal; before Airflow 3.3 there is no place to keep one."""
    store = context.get("task_state_store")
    return NoJournal() if store is None else TaskJournal(store)


def charge_by(context: Context, max_run_age: float | None) -> float | None:
    """Return until when the Dag run may charge, in Unix seconds; None: at any time.

    The schedule must not charge for each period that was missed. So a run is too late ``max_run_age`` seconds
    after its time, and also where the schedule's next run was due before this one began. A run that somebody
    asked for, or an event, is never too late.
    """
    dag_run: Any = context["dag_run"]
    if max_run_age is None or dag_run.run_type not in ("scheduled", "backfill"):
        return None
    due: Any = getattr(dag_run, "run_after", None) or context["data_interval_end"]
    latest = float(due.timestamp()) + max_run_age
    next_due = _next_run_due(context)
    if next_due and dag_run.start_date and next_due <= dag_run.start_date:
        latest = min(latest, float(next_due.timestamp()))
    return latest


def _next_run_due(context: Context) -> Any:
    """Return when the schedule wants the run after this one; None where it wants none, or cannot be asked."""
    from airflow.timetables.base import DataInterval, TimeRestriction

    timetable: Any = context["dag"].timetable
    if not hasattr(timetable, "next_dagrun_info"):
        # From Airflow 3.2 on a task has only the timetable's description. Should this way to it change, what
        # is left is max_run_age.
        with suppress(ImportError):
            from airflow.serialization.encoders import coerce_to_core_timetable

            timetable = coerce_to_core_timetable(timetable)
    start, end = context["data_interval_start"], context["data_interval_end"]
    if not (hasattr(timetable, "next_dagrun_info") and start and end):
        return None
    following = timetable.next_dagrun_info(
        last_automated_data_interval=DataInterval(start, end),
        restriction=TimeRestriction(earliest=end, latest=None, catchup=True),
    )
    return following.run_after if following else None


def dag_run_began_at(context: Context) -> float:
    """Return when the Dag run began, in Unix seconds; rather too early than too late."""
    dag_run: Any = context["dag_run"]
    # A user's clear of the run sets its start anew.
    if getattr(dag_run, "clear_number", None) == 0 and dag_run.start_date:
        began = dag_run.start_date
    else:
        began = getattr(dag_run, "run_after", None) or context["data_interval_end"]
    return float(began.timestamp())
