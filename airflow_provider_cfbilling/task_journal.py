"""Where a task keeps the record of its top-up between its tries."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf, get_listener_manager, hookimpl

from airflow_provider_cfbilling.charging.journal import Journal, Record
from airflow_provider_cfbilling.charging.unfenced_journal import UnfencedJournal
from airflow_provider_cfbilling.dag_run import cleared_after

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_KEY = "cfbilling_topup"
_IDS = ("dag_id", "run_id", "task_id", "map_index")
_log = logging.getLogger(__name__)


def journal_of(context: Context) -> Journal:
    """Return the task's journal: Airflow's task state store from 3.3 on, else Airflow Variables.

    Not where ``[workers] state_store_backend`` keeps the store elsewhere: there a write takes effect before
    Airflow refuses it to a try that another has taken over from.
    """
    ti: Any = context["ti"]
    try_number, started = ti.try_number, ti.start_date
    variables = UnfencedJournal(
        Variables.of(context),
        try_number,
        try_started_at=started.timestamp() if started else None,
        cleared_after=lambda: cleared_after(context),
    )
    store = context.get("task_state_store")
    if store is None:
        return variables
    if conf.get("workers", "state_store_backend", fallback=""):
        return UnguardedStoreJournal(store, variables, is_first_try=try_number <= 1)
    return TaskStateJournal(store, variables, is_first_try=try_number <= 1)


def after_success(context: Context, call: Callable[[], None]) -> None:
    """Call ``call`` in this process once Airflow has recorded that the task has succeeded.

    Never for a try that Airflow has given up: the one that follows goes on from the record.
    ``on_success_callback`` will not do: Airflow 2.11 runs it before.
    """
    ti: Any = context["ti"]
    with _harmless():
        if ti.try_number < 1:  # `airflow tasks test` records nothing, and retries nothing
            call()
        elif not _is_given_up(ti):
            get_listener_manager().add_listener(_AfterSuccess(ti, call))


@contextmanager
def _harmless() -> Iterator[None]:
    """Let nothing that fails here harm a task whose top-up is done."""
    try:
        yield
    except Exception as error:
        _log.warning("The record of this top-up stays: %s: %s", type(error).__name__, error)


def _is_given_up(ti: Any) -> bool:
    """Return whether a later try has been scheduled. From Airflow 3.0 on its success would be refused."""
    if hasattr(ti, "get_ti_count"):
        return False
    from airflow.utils.session import create_session

    with create_session() as session:  # the column: the session may know this task by an older state
        query = session.query(type(ti).try_number).filter_by(**dict(zip(_IDS, _task_ids(ti), strict=True)))
        return bool(query.scalar() != ti.try_number)


def _is_recorded(ti: Any) -> bool:
    """Return whether Airflow has recorded the success. Below 3.0 the task has just done so itself."""
    if not hasattr(ti, "get_ti_count"):
        return True
    of_this = {
        "dag_id": ti.dag_id,
        "run_ids": [ti.run_id],
        "task_ids": [ti.task_id],
        "map_index": ti.map_index,
    }
    return bool(ti.get_ti_count(**of_this, states=["success"]) == 1)


class _AfterSuccess:
    def __init__(self, ti: Any, call: Callable[[], None]) -> None:
        self._ids = _task_ids(ti)
        self._call: Callable[[], None] | None = call

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        if not self._call or _task_ids(task_instance) != self._ids:
            return
        call, self._call = self._call, None
        with _harmless():
            if _is_recorded(task_instance):
                call()


def _task_ids(ti: Any) -> list[Any]:
    return [getattr(ti, name) for name in _IDS]


class TaskStateJournal:
    """Keeps the record in Airflow's task state store: for one Dag run, task and map index, over all tries.

    Airflow refuses the write of a try that a later one has taken over from.

    :param variables: where the record of a top-up is that began below Airflow 3.3.
    """

    is_fenced = True

    def __init__(self, store: Any, variables: UnfencedJournal, *, is_first_try: bool) -> None:
        self._store = store
        self._variables = variables
        self._is_first_try = is_first_try
        self._may_have_variables = True

    def begin(self, started: Record, takeover_seconds: float) -> Record:
        value = self._store.get(_KEY)
        if value:
            return Record.from_json(value)
        record = started
        self._may_have_variables = not self._is_first_try and self._variables.has_earlier()
        if self._may_have_variables:  # one of those tries may still run, and stops only for a Variable
            record = self._variables.begin(started, takeover_seconds)
        self.write(record)
        return record

    def write(self, record: Record) -> None:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        self._store.set(_KEY, record.to_json(), retention=NEVER_EXPIRE)

    def forget(self) -> None:
        if self._may_have_variables:
            self._variables.forget()


class UnguardedStoreJournal:
    """Keeps the record in Variables, and goes on from what the store got before it was kept elsewhere."""

    is_fenced = False

    def __init__(self, store: Any, variables: UnfencedJournal, *, is_first_try: bool) -> None:
        self._store = store
        self._variables = variables
        self._is_first_try = is_first_try
        self.write, self.forget = variables.write, variables.forget

    def begin(self, started: Record, takeover_seconds: float) -> Record:
        record = self._variables.begin(started, takeover_seconds)
        if self._is_first_try or record.state != "started":
            return record
        value = self._store.get(_KEY)
        return Record.from_json(value) if value else record


class Variables:
    """Airflow Variables of one task of one Dag run: one for each try, and only while a top-up is under way.

    :param key: of all of them; the try's number follows.
    :param description: what someone reads who finds one.
    """

    def __init__(self, key: str, description: str) -> None:
        self._key = key
        self._description = description

    @classmethod
    def of(cls, context: Context) -> Variables:
        """Return those of the task that runs."""
        ti: Any = context["ti"]
        digest = hashlib.sha256(json.dumps(_task_ids(ti)).encode()).hexdigest()[:32]
        task = f"task {ti.task_id} of Dag {ti.dag_id}, run {ti.run_id}"
        if ti.map_index >= 0:
            task += f", map index {ti.map_index}"
        return cls(
            f"{_KEY}_{digest}",
            f"Record of an AI Gateway top-up that has not completed: {task}. Without it, the task may charge "
            "the card again. Delete it only if the task will never run again.",
        )

    def get(self, number: int) -> str | None:
        """Return the text; None if there is none, and, as Airflow does, often also if it cannot be read."""
        from airflow.providers.common.compat.sdk import Variable

        # By position: the parameter has another name from Airflow 3.0 on.
        text: str | None = Variable.get(f"{self._key}_{number}", None)
        return text

    def set(self, number: int, text: str) -> None:
        from airflow.providers.common.compat.sdk import Variable

        Variable.set(f"{self._key}_{number}", text, description=self._description)

    def delete(self, number: int) -> None:
        from airflow.providers.common.compat.sdk import Variable

        Variable.delete(f"{self._key}_{number}")
