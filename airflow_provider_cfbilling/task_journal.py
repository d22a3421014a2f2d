"""Where a task keeps the record of its top-up, and what it knows of its Dag run."""

from __future__ import annotations

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


def dag_run_was_due_at(context: Context) -> float | None:
    """Return when the schedule wanted the Dag run, in Unix seconds; None for one that somebody asked for."""
    dag_run: Any = context["dag_run"]
    if dag_run.run_type not in ("scheduled", "backfill"):
        return None
    due: Any = getattr(dag_run, "run_after", None) or context["data_interval_end"]
    return float(due.timestamp())


def dag_run_began_at(context: Context) -> float:
    """Return when the Dag run began, in Unix seconds; rather too early than too late."""
    dag_run: Any = context["dag_run"]
    # A user's clear of the run sets its start anew.
    if getattr(dag_run, "clear_number", None) == 0 and dag_run.start_date:
        began = dag_run.start_date
    else:
        began = getattr(dag_run, "run_after", None) or context["data_interval_end"]
    return float(began.timestamp())
