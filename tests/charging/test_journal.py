"""What one process or release writes down, another reads or refuses, and never takes for something else."""

import json
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cfbilling.charging.journal import ChargeIntent, Record, State
from airflow_provider_cfbilling.charging.progress import Phase, Progress

GOLDEN_INTENT = (
    '{"account_id": "00000000000000000000000000000000", "amount_cents": 2500, "at": 1.5, "written_at": 2.5, '
    '"known_invoices": ["in_1"], "write_delay_seconds": 0.5}'
)
GOLDEN_RECORD = (
    f'{{"state": "accepted", "intent": {GOLDEN_INTENT}, "lost_intent": {GOLDEN_INTENT}, '
    '"lost_until": 3.5, "cleared": false, '
    '"charge_requests": 1, "denied": false, "topup": {"payment_intent_id": "in_2"}}'
)
GOLDEN_PROGRESS = (
    f'{{"record": {GOLDEN_RECORD}, "phase": "settle", "outcome": "charged", "lookback_from": null, '
    '"reconcile_deadline": 3.5, "reconcile_deadline_here": 4.5, "seen_at": 5.5, "seen_here": 6.5, '
    '"settlement_deadline": 7.5, "not_found_deadline": 8.5, "recharges": 1, "should_wait": true}'
)

timestamps = st.floats(allow_nan=False, allow_infinity=False)
ids = st.text(max_size=30)
intents = st.builds(
    ChargeIntent,
    account_id=ids,
    amount_cents=st.integers(),
    at=timestamps,
    written_at=timestamps,
    known_invoices=st.lists(ids, max_size=5).map(tuple),
    write_delay_seconds=timestamps,
)
topups = st.dictionaries(
    st.sampled_from(["payment_intent_id", "brand", "last4", "onboarding"]), ids | st.none() | st.booleans()
)
records = st.builds(
    Record,
    state=st.sampled_from(get_args(State)),
    intent=st.none() | intents,
    lost_intent=st.none() | intents,
    lost_until=st.none() | timestamps,
    cleared=st.booleans(),
    charge_requests=st.integers(0),
    denied=st.booleans(),
    topup=st.none() | topups,
)
progresses = st.builds(
    Progress,
    record=records,
    phase=st.sampled_from(get_args(Phase)),
    outcome=st.none() | ids,
    lookback_from=st.none() | timestamps,
    reconcile_deadline=st.none() | timestamps,
    reconcile_deadline_here=st.none() | timestamps,
    seen_at=st.none() | timestamps,
    seen_here=st.none() | timestamps,
    settlement_deadline=st.none() | timestamps,
    not_found_deadline=st.none() | timestamps,
    recharges=st.integers(0),
    should_wait=st.booleans(),
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
    "change",
    [
        {"state": "refunded"},
        {"refunded": True},
        {"intent": {**ChargeIntent("a", 1000, at=1.5, written_at=1.5).to_json(), "sent_twice": True}},
    ],
    ids=str,
)
def test_record_of_a_later_release_is_refused_rather_than_misread(change: dict[str, Any]):
    """An unknown state must not pass for one in which the card may be charged."""
    with pytest.raises(ValueError, match="which this release does not know"):
        Record.from_json({**Record("started").to_json(), **change})


def test_intent_is_durable_only_after_its_write_delay():
    intent = ChargeIntent("a", 1000, at=100.0, written_at=90.0, write_delay_seconds=2.5)
    assert intent.durable_by == 102.5
    assert replace(intent, write_delay_seconds=0.0).durable_by == 100.0


@pytest.mark.parametrize(
    ("at", "written_at"), [(100.0, 3700.0), (3700.0, 100.0)], ids=["worker", "Cloudflare"]
)
def test_charge_is_no_older_than_the_earlier_of_two_clocks(at: float, written_at: float):
    assert ChargeIntent("a", 1000, at=at, written_at=written_at).not_before == 100.0


def test_what_is_stored_stays_as_it_is():
    """Changing any of this needs a migration: an older release wrote it, and a newer one reads it."""
    intent = ChargeIntent("0" * 32, 2500, 1.5, 2.5, ("in_1",), 0.5)
    record = Record("accepted", intent, intent, 3.5, charge_requests=1, topup={"payment_intent_id": "in_2"})
    assert json.dumps(record.to_json()) == GOLDEN_RECORD
    progress = Progress(record, "settle", "charged", None, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 1, should_wait=True)
    assert json.dumps(progress.to_json()) == GOLDEN_PROGRESS
