"""How often one set of credentials may call, and the pause that Cloudflare requests, for this whole process.

A generic cell rate algorithm (GCRA): each call reserves its time, and a burst may come ahead of it.

1,200 requests in 5 minutes are counted for each user or token, over everything that it does. Past them
Cloudflare refuses every call for five minutes, so one caller's 429 is every caller's; and so is a pause that
a 5xx requests.
Source: https://developers.cloudflare.com/fundamentals/api/reference/limits/
"""

import hashlib
import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Those who wait take at most half of what Cloudflare allows, two requests a second, and leave as much to
# those who act.
_WAITING_SPACING_SECONDS = 0.5
_LEFT_TO_OTHERS_PER_SECOND = 2.0
# After a quiet time 20 polls may come at once; fewer when little is left.
_WAITING_BURST_SECONDS = 20 * _WAITING_SPACING_SECONDS

# Cloudflare blocks for five minutes. A header that is broken must not stop every caller for a year.
MAX_PAUSE_SECONDS = 3600.0

# What may say with Retry-After when to come back, besides every 5xx.
_TOO_MANY = 429
_COME_BACK = {408, 425, _TOO_MANY}

# One item of `Ratelimit: "default";r=<requests left>;t=<seconds until they are renewed>`.
_LEFT = re.compile(r";\s*r=([0-9]{1,9})\s*;\s*t=([0-9]{1,9})\b")
_MAX_HEADER = 500
# Outside this a clock is broken, and to reckon with its time could leave the calendar.
_FIRST_YEAR, _LAST_YEAR = 2020, 2200


class RateLimiter:
    """When calls with one set of credentials may be made. Safe to use from many threads."""

    def __init__(self) -> None:
        # all in monotonic seconds
        self._resume_at = 0.0
        self._unavailable = False
        self._next_turn_at = 0.0
        self._spacing = _WAITING_SPACING_SECONDS
        self._spacing_ends_at = 0.0
        self._lock = threading.Lock()

    def cooldown_remaining(self) -> float:
        """Seconds until the next call may be made; 0 when it may be made now."""
        return max(0.0, self._resume_at - time.monotonic())

    @property
    def is_unavailable(self) -> bool:
        """Whether the pause was requested because Cloudflare is unwell, and not by its rate limit."""
        return self._unavailable

    def reserve(self) -> float:
        """Reserve the next call of those that wait, and return in how many seconds it comes.

        However many wait, and whatever their intervals: together they stay within their part. If others
        use the same credentials, elsewhere too, Cloudflare's word on what is left makes that part smaller.
        """
        with self._lock:
            now = time.monotonic()
            earlier = max(self._next_turn_at, now)
            # What is left is spread until it is renewed, and not over the turns after that.
            spread = min(earlier + self._spacing, self._spacing_ends_at + _WAITING_BURST_SECONDS)
            self._next_turn_at = max(earlier + _WAITING_SPACING_SECONDS, spread)
            return max(0.0, self._next_turn_at - _WAITING_BURST_SECONDS - now, self._resume_at - now)

    def update_from_response(self, status: int, headers: Mapping[str, str]) -> None:
        """Take a response's word on how much is left."""
        if status in _COME_BACK or status >= 500:
            self._pause(retry_after_seconds(headers) or 0.0, unavailable=status != _TOO_MANY)
        for left, renewed_in in _LEFT.findall(headers.get("Ratelimit", "")[:_MAX_HEADER]):
            seconds = min(float(renewed_in), MAX_PAUSE_SECONDS)
            if int(left) == 0:
                self._pause(seconds)
            else:
                self._space(seconds, int(left))

    def _pause(self, seconds: float, unavailable: bool = False) -> None:
        with self._lock:
            resume_at = time.monotonic() + seconds
            if seconds > 0 and resume_at > self._resume_at:
                self._resume_at, self._unavailable = resume_at, unavailable

    def _space(self, seconds: float, left: int) -> None:
        """Spread what is ``left`` over the ``seconds`` until it is renewed, but for the others' part."""
        spare = left - _LEFT_TO_OTHERS_PER_SECOND * seconds
        with self._lock:
            self._spacing = max(_WAITING_SPACING_SECONDS, seconds / spare) if spare > 0 else seconds
            self._spacing_ends_at = time.monotonic() + seconds


_limiters: dict[str, RateLimiter] = {}
_limiters_lock = threading.Lock()


def rate_limiter_of(base_url: str, secret: str) -> RateLimiter:
    """Return the limiter that this process shares among all who use ``secret`` at ``base_url``."""
    key = hashlib.sha256(f"{base_url}\n{secret}".encode()).hexdigest()
    with _limiters_lock:
        return _limiters.setdefault(key, RateLimiter())


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After``, given in seconds or as a date; None if it is absent or unreadable.

    An hour if it requests more.
    """
    value = headers.get("Retry-After", "")[:_MAX_HEADER].strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), MAX_PAUSE_SECONDS)
    at = http_date(value)
    if at is None:
        return None
    now = http_date(headers.get("Date", "")) or datetime.now(UTC)
    return min(max(0.0, (at - now).total_seconds()), MAX_PAUSE_SECONDS)


def http_date(value: str) -> datetime | None:
    """Read an HTTP date (UTC); None if it is not one."""
    try:
        time = parsedate_to_datetime(value[:_MAX_HEADER])
    except (ValueError, OverflowError):
        return None
    if not _FIRST_YEAR <= time.year < _LAST_YEAR:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
