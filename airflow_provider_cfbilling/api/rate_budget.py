"""The pause that Cloudflare asks for, kept by every call of this process that uses the same credentials.

1,200 requests in 5 minutes are counted for each user or token, over everything that it does. Past them
Cloudflare refuses every call for five minutes, so one caller's 429 is everybody's.
Source: https://developers.cloudflare.com/fundamentals/api/reference/limits/
"""

import hashlib
import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# One item of `Ratelimit: "default";r=<requests left>;t=<seconds until they are renewed>`.
_EXHAUSTED = re.compile(r";\s*r=0\s*;\s*t=(\d{1,6})\b")


class RateBudget:
    """How long calls with one set of credentials must pause. Safe to use from many threads."""

    def __init__(self) -> None:
        self._resume_at = 0.0  # monotonic seconds
        self._lock = threading.Lock()

    def pause_left(self) -> float:
        """Seconds until the next call may be made; 0 when it may be made now."""
        return max(0.0, self._resume_at - time.monotonic())

    def observe(self, status: int, headers: Mapping[str, str]) -> None:
        """Take an answer's word on how much is left."""
        if status == 429:
            self._pause(retry_after_seconds(headers) or 0.0)
        for seconds in _EXHAUSTED.findall(headers.get("Ratelimit", "")):
            self._pause(float(seconds))

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._resume_at = max(self._resume_at, time.monotonic() + seconds)


_budgets: dict[str, RateBudget] = {}
_budgets_lock = threading.Lock()


def rate_budget_of(base_url: str, secret: str) -> RateBudget:
    """Return the budget that this process shares among all who use ``secret`` at ``base_url``."""
    key = hashlib.sha256(f"{base_url}\n{secret}".encode()).hexdigest()
    with _budgets_lock:
        return _budgets.setdefault(key, RateBudget())


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After``, given in seconds or as a date; None where it is absent or unreadable."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    at, now = http_date(value), http_date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (at - now).total_seconds()) if at else None


def http_date(value: str) -> datetime | None:
    """Read an HTTP date (UTC); None where it is not one."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
