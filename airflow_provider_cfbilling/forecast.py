"""How long the credits last: spend per day and days left, from the balance and the usage history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.http.reader import Model
from airflow_provider_cfbilling.api.models import UsageHistory, UsageWindow
from airflow_provider_cfbilling.api.money import dollars

_DAY = timedelta(days=1)
_PACE_DAYS = 7


@dataclass(frozen=True)
class Runway(Model):
    """How long the balance lasts if spending goes on at the faster of two paces.

    :param balance_cents: the credit balance. It can be negative.
    :param spend_per_day_cents: the faster of the mean of the last seven whole days (UTC) and the last 24
        hours: a spike counts at once, and a quiet weekend does not hide a week.
    :param pace: which of the two it is; None if nothing was spent.
    :param days_left: days until the balance is used up: 0 if it is, None if nothing was spent.
    :param ends_at: when that is; None if nothing was spent.
    :param observed_days: how many days of usage this rests on, at most seven. Of an account that is younger,
        the mean is that of its own days; with less than a day, the last 24 hours are what it has spent so
        far, and the credits may end sooner.
    """

    balance_cents: float
    spend_per_day_cents: float
    pace: Literal["last_7_days", "last_24_hours"] | None
    days_left: float | None
    ends_at: datetime | None
    observed_days: float

    def is_below(self, days: float) -> bool:
        """Return whether the credits last for less than that many days."""
        return self.days_left is not None and self.days_left < days

    def __str__(self) -> str:
        balance, spend = dollars(self.balance_cents), dollars(self.spend_per_day_cents)
        if self.days_left is None:
            return f"The balance is {balance}, and nothing was spent in the last seven days"
        if self.pace is None:
            return f"The balance is {balance}: no credits are left"
        pace = self.pace.replace("_", " ")
        ends = f", until {self.ends_at:%Y-%m-%d %H:%M} UTC" if self.ends_at else ""
        young = f", known for {self.observed_days:.1f} days only" if self.observed_days < _PACE_DAYS else ""
        return (
            f"The balance is {balance}, which lasts {self.days_left:.1f} days{ends}, at {spend} a day "
            f"({pace}{young})"
        )


@dataclass(frozen=True)
class Spending:
    """How fast an account spends.

    :param per_day_cents: the faster of two paces, as in :class:`Runway`.
    :param pace: which of the two it is; None if nothing was spent.
    :param observed_days: how many days of usage this rests on, at most seven.
    :param now: the time by Cloudflare's clock.
    """

    per_day_cents: float
    pace: Literal["last_7_days", "last_24_hours"] | None
    observed_days: float
    now: datetime

    def runway(self, balance_cents: float) -> Runway:
        """Return how long a balance lasts."""
        days_left = 0.0 if balance_cents <= 0 else balance_cents / self.per_day_cents if self.pace else None
        return Runway(
            balance_cents=balance_cents,
            spend_per_day_cents=self.per_day_cents,
            pace=self.pace,
            days_left=days_left,
            ends_at=_end(self.now, days_left),
            observed_days=self.observed_days,
        )


def runway(balance_cents: float, usage: Iterable[UsageWindow], now: datetime) -> Runway:
    """Return how long a balance lasts, with the usage and the time that :func:`spending` takes."""
    return spending(usage, now).runway(balance_cents)


def spending(usage: Iterable[UsageWindow], now: datetime) -> Spending:
    """Return how fast an account spends.

    :param usage: hours, or days if there is nothing better. One that is missing counts as one without
        spend: whether Cloudflare lists those is not documented.
    :param now: the time by Cloudflare's clock.
    """
    windows = list(usage)
    midnight = _midnight(now)
    known_since = min((window.start_at for window in windows), default=now)
    since = max(known_since, midnight - _PACE_DAYS * _DAY)
    # Less than a whole day is no mean of days.
    days = (midnight - since) / _DAY if midnight - since >= _DAY else 0.0
    mean = spent_cents(windows, since, midnight) / days if days else 0.0
    latest = spent_cents(windows, now - _DAY, now)
    spend = round(max(mean, latest, 0.0), 6)
    return Spending(
        per_day_cents=spend,
        pace=None if not spend else "last_24_hours" if latest > mean else "last_7_days",
        observed_days=min(_PACE_DAYS, max(0.0, (now - known_since) / _DAY)),
        now=now,
    )


def spent_cents(usage: Iterable[UsageWindow], start: datetime, end: datetime) -> float:
    """Return what was spent in a span of time; of a window that it cuts, the share that lies in it."""
    return sum(window.spent_cents * _share(window, start, end) for window in usage)


def spent_by_day(usage: Iterable[UsageWindow], days: Iterable[date]) -> dict[date, float]:
    """Return the cents that were spent on each of these days, in UTC. One pass, however many days."""
    cents = dict.fromkeys(sorted(days), 0.0)
    first, last = (next(iter(cents)), next(reversed(cents))) if cents else (date.max, date.min)
    for window in usage:
        day = max(first, window.start_at.astimezone(UTC).date())
        while day <= min(last, window.end_at.astimezone(UTC).date()):
            start = datetime(day.year, day.month, day.day, tzinfo=UTC)
            if day in cents:
                cents[day] += spent_cents([window], start, start + _DAY)
            day += _DAY
    return cents


def read_spending(client: CfBillingClient) -> Spending:
    """Return how fast the account spends. One request.

    :raises CfBillingError: the usage could not be read.
    """
    usage = read_usage(client, _PACE_DAYS)
    return spending(usage.history, usage.server_time)


def read_usage(client: CfBillingClient, days: int) -> UsageHistory:
    """Return the usage, hour by hour, of so many whole days and of today, in UTC.

    :raises CfBillingError: it could not be read.
    """
    today = _midnight(datetime.now(UTC))
    usage = client.get_usage_history("hour", start=today - days * _DAY)
    if _midnight(usage.server_time) == today:
        return usage
    # This machine's clock is off, or it is midnight: without this, a clock that is ahead would see no spend.
    return client.get_usage_history("hour", start=_midnight(usage.server_time) - days * _DAY)


def _share(window: UsageWindow, start: datetime, end: datetime) -> float:
    length = window.end_at - window.start_at
    if length <= timedelta(0):
        return float(start <= window.start_at < end)
    overlap = min(window.end_at, end) - max(window.start_at, start)
    return max(timedelta(0), overlap) / length


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _end(now: datetime, days_left: float | None) -> datetime | None:
    try:
        return None if days_left is None else now + days_left * _DAY
    except OverflowError:  # beyond the year 9999
        return None
