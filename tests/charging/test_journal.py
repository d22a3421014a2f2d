"""What one process or release writes down, another reads or refuses, and never takes for something else."""

import json
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cfbilling.charging.journal import Intent, NoJournal, Record, State
from airflow_provider_cfbilling.charging.progress import Progress

moments = st.floats(allow_nan=False, allow_infinity=False)
ids = st.text(max_size=30)
intents = st.builds(
    Intent,
    account_id=ids,
    amount_cents=st.integers(),
    at=moments,
    known_invoices=st.lists(ids, max_size=5).map(tuple),
    late_by=moments,
)
topups = st.dictionaries(
    st.sampled_from(["payment_intent_id", "brand", "last4", "onboarding"]), ids | st.none() | st.booleans()
)
records = st.builds(
    Record,
    state=st.sampled_from(get_args(State)),
    intent=st.none() | intents,
    first_intent=st.none() | intents,
    posts=st.integers(0),
    topup=st.none() | topups,
)
progresses = st.builds(
    Progress,
    record=records,
    outcome=st.none() | ids,
    began_at=st.none() | moments,
    window_ends_at=st.none() | moments,
    give_up_at=st.none() | moments,
    reposts=st.integers(0),
    idle=st.booleans(),
)


def through_json(value: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(value))
    return read


@given(record=records)
def test_record_survives_being_written_down(record: Record):
    assert Record.from_json(through_json(record.to_json())) == record


@given(progress=progresses)
def test_progress_survives_another_process(progress: Progress):
    assert Progress.from_json(through_json(progress.to_json())) == progress


@given(record=records)
def test_all_that_is_known_is_written_down(record: Record):
    assert set(record.to_json()) == {field.name for field in fields(Record)}


@pytest.mark.parametrize(
    "text",
    [
        '{"state": "started"}',
        '{"state": "intent", "intent": {"account_id": "a", "amount_cents": 1000, "at": 1.5}, "posts": 1}',
    ],
)
def test_record_with_fewer_fields_is_read_with_their_defaults(text: str):
    """So did an earlier release write, or a person."""
    value = json.loads(text)
    record = Record.from_json(value)
    assert record.state == value["state"]
    assert record.posts == value.get("posts", 0)
    assert (record.first_intent, record.topup) == (None, None)
    if record.intent:
        assert (record.intent.known_invoices, record.intent.latest_at) == ((), 1.5)


@pytest.mark.parametrize(
    "change",
    [{"state": "refunded"}, {"refunded": True}, {"intent": {"account_id": "a", "sent_twice": True}}],
    ids=str,
)
def test_record_of_a_later_release_is_refused_rather_than_misread(change: dict[str, Any]):
    """An unknown state must not pass for one in which the card may be charged."""
    with pytest.raises((TypeError, ValueError)):
        Record.from_json({**Record("started").to_json(), **change})


def test_intent_is_written_down_some_time_after_its_moment():
    intent = Intent("a", 1000, at=100.0, late_by=2.5)
    assert intent.latest_at == 102.5
    assert replace(intent, late_by=0.0).latest_at == 100.0


def test_where_nothing_can_be_kept_nothing_is_found():
    journal = NoJournal()
    journal.write(Record("started"))
    assert journal.read() is None
