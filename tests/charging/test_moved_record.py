"""The record's home changes while a top-up is under way: Airflow is upgraded, or its settings are."""

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_cfbilling import task_journal
from airflow_provider_cfbilling.charging import unfenced_journal
from airflow_provider_cfbilling.charging.endings import SupersededError
from airflow_provider_cfbilling.charging.journal import Journal
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import Task, is_accepted, task_in

airflow_3_3 = pytest.importorskip("airflow.sdk.execution_time.context", reason="there is no other home")
pytestmark = pytest.mark.skipif(
    not hasattr(airflow_3_3, "NEVER_EXPIRE"), reason="below Airflow 3.3 there is no task state store"
)


class Kept(dict[Any, Any]):
    """Stands in for the task state store, and for the Variables of the task."""

    def set(self, key: Any, value: Any, **_: Any) -> None:
        self[key] = value

    def delete(self, key: Any) -> None:
        self.pop(key, None)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Kept:
    kept = Kept()
    monkeypatch.setattr(task_journal.Variables, "of", lambda context: kept)
    return kept


@pytest.fixture
def store() -> Kept:
    return Kept()


@pytest.fixture
def task(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    with task_in(sandbox, monkeypatch) as task:
        monkeypatch.setattr(
            unfenced_journal.UnfencedJournal.__init__, "__defaults__", (None, lambda: None, task.passes)
        )
        yield task


def journal(number: int, store: Kept | None) -> Journal:
    """Return the journal of a try."""
    ids = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1}
    ti = SimpleNamespace(
        **ids, try_number=number, max_tries=3, start_date=datetime.now(UTC), get_ti_count=None
    )
    context: Any = {"ti": ti, "task": SimpleNamespace(retries=3), "dag_run": SimpleNamespace(clear_number=0)}
    return task_journal.journal_of({**context, "task_state_store": store} if store is not None else context)


def test_store_that_is_kept_elsewhere_from_now_on_is_still_read(
    task: Task, store: Kept, variables: Kept, monkeypatch: pytest.MonkeyPatch
):
    task.journal = journal(1, store)
    task.run(until=is_accepted)
    monkeypatch.setenv("AIRFLOW__WORKERS__STATE_STORE_BACKEND", "of.another.Company")
    task.journal = journal(2, store)
    result = task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (task.charged(), "resumed")
    assert task.posts() == 1
    task.journal.forget()
    assert variables == {}


@pytest.mark.parametrize("has_setting", [False, True], ids=["upgraded", "setting removed"])
def test_try_that_only_variables_stop_is_stopped(
    task: Task, store: Kept, variables: Kept, monkeypatch: pytest.MonkeyPatch, has_setting: bool
):
    if has_setting:
        monkeypatch.setenv("AIRFLOW__WORKERS__STATE_STORE_BACKEND", "of.another.Company")
    task.journal = journal(1, store if has_setting else None)
    frozen = task.protocol()
    progress = frozen.begin(cleared=False, began_at=task.began_at)
    monkeypatch.delenv("AIRFLOW__WORKERS__STATE_STORE_BACKEND", raising=False)
    task.journal = journal(2, store)
    assert task.run()["payment_intent_id"] == task.charged()
    with pytest.raises(SupersededError):
        frozen.advance(progress)
    assert task.posts() == 1
    task.journal.forget()
    assert variables == {}
