"""What a task knows of its Dag run and of itself: until when it may charge, and whether it was cleared."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_log = logging.getLogger(__name__)


def cleared_after(context: Context) -> int | None:
    """Return the number of the last try that may have succeeded; None if none has.

    A task that has succeeded runs again when a user clears it, which gives it its retries once more, on top
    of the tries it has had. If the Dag's retries have been changed since, that number is wrong; a clear shows
    in the Dag run too. On Airflow 2 a success can also be overturned: by a failed heartbeat of an earlier try
    that is noticed late, or twice. The audit log still has it.
    """
    ti: Any = context["ti"]
    if ti.try_number <= 1:
        return None
    had = int(ti.max_tries - context["task"].retries)
    if not hasattr(ti, "get_ti_count"):  # Airflow 2
        had = max(had, _last_success(ti))
    else:
        dag_run: Any = context["dag_run"]
        if had < 0 or (had == 0 and getattr(dag_run, "clear_number", None)):
            had = ti.try_number - 1
    return had if had > 0 else None


def _last_success(ti: Any) -> int:
    """Return the number of the last earlier try whose success Airflow 2 has recorded; 0 if none has."""
    # A try that ends late may log the number of the one that follows it.
    tries = [min(each.try_number or 0, ti.try_number - 1) for each in _logged(ti) if each.event == "success"]
    return max(tries, default=0)


def _first_logged(ti: Any) -> datetime | None:
    """Return when Airflow 2 has first noted anything of the task in this Dag run; None if it has not."""
    return min((each.dttm for each in _logged(ti)), default=None)


def _logged(ti: Any) -> list[Any]:
    """Return what the audit log of Airflow 2 has of the task in this Dag run."""
    from airflow.models.log import Log
    from airflow.utils.session import create_session

    task = {name: getattr(ti, name) for name in ("dag_id", "run_id", "task_id", "map_index")}
    with create_session() as session:
        return session.query(Log.event, Log.try_number, Log.dttm).filter_by(**task).all()


def charge_by(context: Context, max_run_age: float | None) -> float | None:
    """Return until when the Dag run may charge, in Unix seconds; None: at any time.

    The schedule must not charge for each period that was missed. So a run is too late ``max_run_age`` seconds
    after its time, and also if the schedule's next run was due before this one began. A run that a user or an
    event has started is never too late, nor one of a schedule without periods, such as ``@once``: it has
    missed none.
    """
    dag_run: Any = context["dag_run"]
    if max_run_age is None or dag_run.run_type not in ("scheduled", "backfill"):
        return None
    due: Any = getattr(dag_run, "run_after", None) or context["data_interval_end"]
    latest = float(due.timestamp()) + max_run_age
    try:
        timetable = _timetable_of(context)
        if not timetable.periodic:
            return None
        superseded_at = _superseded_at(context, timetable)
    except Exception as error:  # a schedule may be any code: max_run_age is left
        _log.warning(
            "Cannot determine when the schedule's next run is due: %s: %s", type(error).__name__, error
        )
        return latest
    return latest if superseded_at is None else min(latest, superseded_at)


def _superseded_at(context: Context, timetable: Any) -> float | None:
    """Return when the next run was due, in Unix seconds, if that was before this one began; else None."""
    dag_run: Any = context["dag_run"]
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    cleared = bool(getattr(dag_run, "clear_number", 0))  # a user wants it, and has set its start again
    if cleared or not (start and end and dag_run.start_date):
        return None
    from airflow.providers.common.compat.sdk import timezone  # type: ignore[attr-defined]
    from airflow.timetables.base import DataInterval, TimeRestriction

    interval = DataInterval(timezone.coerce_datetime(start), timezone.coerce_datetime(end))
    following = timetable.next_dagrun_info(
        last_automated_data_interval=interval,
        restriction=TimeRestriction(earliest=interval.end, latest=None, catchup=True),
    )
    if following is None or following.run_after > dag_run.start_date:
        return None
    return float(following.run_after.timestamp())


def _timetable_of(context: Context) -> Any:
    timetable: Any = context["dag"].timetable
    if hasattr(timetable, "next_dagrun_info"):
        return timetable
    # From Airflow 3.2 on a task has only the timetable's description.
    from airflow.serialization.encoders import coerce_to_core_timetable

    return coerce_to_core_timetable(timetable)


def dag_run_began_at(context: Context) -> float:
    """Return when the Dag run began, in Unix seconds; rather too early than too late.

    It has not begun before it was due. Its start may be later: a clear sets it again, and so does a user who
    queues the run again, of which nothing tells below Airflow 3.2. On Airflow 2 a run can also begin before
    it is due: a backfill of a period that has not ended. The audit log has its first try.
    """
    dag_run: Any = context["dag_run"]
    known = [getattr(dag_run, "run_after", None), dag_run.start_date]
    if known[0] is None:
        scheduled = dag_run.run_type in ("scheduled", "backfill")
        known.append(context["data_interval_end"] if scheduled else dag_run.logical_date)
    ti: Any = context["ti"]
    if not hasattr(ti, "get_ti_count"):  # Airflow 2
        known.append(_first_logged(ti))
    return min(float(at.timestamp()) for at in known if at)
