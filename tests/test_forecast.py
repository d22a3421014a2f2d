"""How long the credits last, as a function of plain values and of what the sandbox says."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cfbilling import forecast
from airflow_provider_cfbilling.api.models import UsageWindow
from airflow_provider_cfbilling.forecast import Runway, runway, spent_cents
from airflow_provider_cfbilling.sandbox import Sandbox

NOW = datetime(2026, 11, 25, 15, 30, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 25, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def hours(cents_per_hour: float, start: datetime, end: datetime) -> list[UsageWindow]:
    count = int((end - start) / HOUR)
    return [
        UsageWindow(f"hour_{i}", cents_per_hour, start + i * HOUR, start + (i + 1) * HOUR)
        for i in range(count)
    ]


def test_steady_spend() -> None:
    steady = hours(10, MIDNIGHT - 8 * DAY, NOW)
    found = runway(2400, steady, MIDNIGHT + 15 * HOUR)
    assert (found.spend_per_day_cents, found.days_left, found.observed_days) == (240, 10, 7)
    assert found.ends_at == MIDNIGHT + 15 * HOUR + 10 * DAY


def test_a_spike_counts_at_once() -> None:
    calm, spike = hours(1, MIDNIGHT - 8 * DAY, MIDNIGHT), hours(100, MIDNIGHT, MIDNIGHT + 15 * HOUR)
    found = runway(2000, calm + spike, MIDNIGHT + 15 * HOUR)
    assert (found.pace, found.spend_per_day_cents) == ("last_24_hours", 1509)


def test_a_quiet_weekend_does_not_hide_the_week() -> None:
    busy, quiet = hours(70, MIDNIGHT - 7 * DAY, MIDNIGHT - 2 * DAY), hours(0, MIDNIGHT - 2 * DAY, NOW)
    found = runway(2000, busy + quiet, NOW)
    assert (found.pace, found.spend_per_day_cents) == ("last_7_days", 1200)


def test_young_account_averages_its_own_days() -> None:
    found = runway(2400, hours(10, MIDNIGHT - 2 * DAY, MIDNIGHT) + hours(0, MIDNIGHT, NOW), NOW)
    assert (found.spend_per_day_cents, found.days_left) == (240, 10)
    assert found.observed_days == pytest.approx(2 + 15.5 / 24)
    assert "known for 2.6 days only" in str(found)


def test_first_hours_of_an_account_give_no_mean() -> None:
    found = runway(1000, hours(10, MIDNIGHT + 10 * HOUR, MIDNIGHT + 15 * HOUR), NOW)
    assert (found.spend_per_day_cents, found.pace) == (50, "last_24_hours")
    assert found.observed_days < 1


def test_missing_hours_are_without_spend() -> None:
    steady = hours(10, MIDNIGHT - 7 * DAY, MIDNIGHT)
    assert runway(1000, steady[::2], MIDNIGHT).spend_per_day_cents == 120


@pytest.mark.parametrize("usage", [[], hours(0, MIDNIGHT - 8 * DAY, NOW)], ids=["no usage", "no spend"])
def test_without_spend_there_is_no_end(usage: list[UsageWindow]) -> None:
    found = runway(1, usage, NOW)
    assert (found.days_left, found.ends_at, found.pace) == (None, None, None)
    assert not found.is_below(10**6)
    assert str(found) == "The balance is $0.01, and nothing was spent in the last seven days"


@pytest.mark.parametrize("balance", [0, -0.5, -250])
def test_used_up_balance_lasts_no_day(balance: float) -> None:
    for usage in ([], hours(10, MIDNIGHT - 8 * DAY, NOW)):
        found = runway(balance, usage, NOW)
        assert (found.days_left, found.ends_at) == (0, NOW)
        assert found.is_below(0.001)


def test_an_end_beyond_the_calendar_has_no_date() -> None:
    found = runway(1e12, hours(0.001, MIDNIGHT - 8 * DAY, NOW), NOW)
    assert found.days_left is not None
    assert found.ends_at is None


def test_refunds_do_not_lengthen_it_beyond_no_end() -> None:
    assert runway(1000, hours(-10, MIDNIGHT - 8 * DAY, NOW), NOW).days_left is None


def test_days_serve_as_well_as_hours() -> None:
    days = [UsageWindow(f"{i}", 240, MIDNIGHT - i * DAY, MIDNIGHT - (i - 1) * DAY) for i in range(9)]
    assert runway(2400, days, NOW).days_left == 10


def test_a_window_without_length_counts_once() -> None:
    point = UsageWindow("point", 7, NOW - HOUR, NOW - HOUR)
    assert spent_cents([point], NOW - DAY, NOW) == 7
    assert spent_cents([point], NOW, NOW + DAY) == 0


def test_it_is_plain_json() -> None:
    assert runway(2400, hours(10, MIDNIGHT - 8 * DAY, MIDNIGHT), MIDNIGHT).to_dict() == {
        "balance_cents": 2400,
        "spend_per_day_cents": 240,
        "pace": "last_7_days",
        "days_left": 10,
        "ends_at": "2026-12-05T00:00:00+00:00",
        "observed_days": 7,
    }


amounts = st.floats(0, 1e6, allow_nan=False)
usages = st.lists(amounts, max_size=24 * 9).map(
    lambda values: [
        UsageWindow(f"hour_{i}", value, NOW - (i + 1) * HOUR, NOW - i * HOUR)
        for i, value in enumerate(values)
    ]
)


@given(balance=amounts, usage=usages)
def test_days_times_spend_is_the_balance(balance: float, usage: list[UsageWindow]) -> None:
    found = runway(balance, usage, NOW)
    if found.days_left:
        assert found.days_left * found.spend_per_day_cents == pytest.approx(balance, rel=1e-3, abs=1)
    assert found.spend_per_day_cents >= spent_cents(usage, NOW - DAY, NOW) - 1e-5


@given(balance=amounts, more=amounts, usage=usages)
def test_more_credits_never_last_shorter(balance: float, more: float, usage: list[UsageWindow]) -> None:
    days = [found.days_left for found in (runway(balance, usage, NOW), runway(balance + more, usage, NOW))]
    assert days == [None, None] or (days[1] or 0) >= (days[0] or 0) or days[1] is None


@given(usage=usages, spike=amounts)
def test_more_spend_in_the_last_day_never_lasts_longer(usage: list[UsageWindow], spike: float) -> None:
    spiked = [*usage, UsageWindow("spike", spike, NOW - HOUR, NOW)]
    assert runway(1e4, spiked, NOW).spend_per_day_cents >= runway(1e4, usage, NOW).spend_per_day_cents


@given(usage=usages, order=st.randoms())
def test_the_order_of_windows_does_not_matter(usage: list[UsageWindow], order: object) -> None:
    mixed = list(usage)
    order.shuffle(mixed)  # type: ignore[attr-defined]
    assert runway(1e4, mixed, NOW).days_left == pytest.approx(runway(1e4, usage, NOW).days_left)


def test_each_day_has_what_was_spent_in_it() -> None:
    days = [MIDNIGHT.date() - back * DAY for back in range(3)]
    usage = hours(10, MIDNIGHT - 5 * DAY, MIDNIGHT + 5 * HOUR)
    usage.append(UsageWindow("across midnight", 8, MIDNIGHT - 3 * HOUR, MIDNIGHT + HOUR))
    usage.append(UsageWindow("an instant", 1, MIDNIGHT, MIDNIGHT))
    assert forecast.spent_by_day(usage, days) == {days[2]: 240, days[1]: 246, days[0]: 53}


def test_windows_of_centuries_cost_no_time() -> None:
    ages = UsageWindow("ages", 100, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
    day = MIDNIGHT.date()
    assert forecast.spent_by_day([ages] * 200, [day])[day] == pytest.approx(200 * 100 / 3_652_058)
    assert forecast.spent_by_day([ages], []) == {}


def read() -> Runway:
    from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook  # it imports Airflow: seconds

    return CfBillingHook().get_runway()


def test_dollars_are_read_as_cents(sandbox: Sandbox) -> None:
    sandbox.configure(balance_cents=2400, spend_per_day_cents=240)
    found = read()
    assert found.days_left == pytest.approx(10, rel=0.05)  # the current hour is whole already
    assert [request.operation for request in sandbox.requests()] == ["getCreditBalance", "getUsageHistory"]


@pytest.mark.parametrize("days_ahead", [-40, 40])
def test_wrong_clock_does_not_hide_the_spend(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, days_ahead: int
) -> None:
    class OtherClock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=days_ahead)

    sandbox.configure(balance_cents=2400, spend_per_day_cents=240)
    monkeypatch.setattr(forecast, "datetime", OtherClock)
    found = read()
    assert found.days_left == pytest.approx(10, rel=0.05)
    assert found.observed_days == 7


def test_a_young_account_in_the_sandbox(sandbox: Sandbox) -> None:
    sandbox.configure(balance_cents=2400, spend_per_day_cents=240, usage_days=0.5)
    found = read()
    assert 0.5 <= found.observed_days < 0.6
    assert found.spend_per_day_cents < 150
