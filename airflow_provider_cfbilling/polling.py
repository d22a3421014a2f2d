"""What is the same in each wait, on a worker or in a triggerer: how failed polls are taken."""

import time

from airflow_provider_cfbilling.api.errors import CfBillingError, CfBillingRateLimitError

# A wait ends once polls have failed for so long, in seconds: twice the outage that no wait should notice.
MAX_OUTAGE_SECONDS = 600.0
_MAX_BACKOFF_SECONDS = 60.0


class Outage:
    """Polls that fail one after the other, until one succeeds.

    :param max_seconds: for how long they may fail; None: ``MAX_OUTAGE_SECONDS``.
    :param takes_all: take failures too that polling again is not expected to heal.
    :ivar failures: how many there have been in a row.
    """

    def __init__(self, max_seconds: float | None = None, *, takes_all: bool = False) -> None:
        self._max_seconds = MAX_OUTAGE_SECONDS if max_seconds is None else max_seconds
        self._takes_all = takes_all
        self.end()

    def end(self) -> None:
        """Note that a poll has succeeded."""
        self.failures = 0
        self._since: float | None = None

    def failed(self, error: Exception) -> float:
        """Return in how many seconds to poll again. They grow with each failure, whatever the interval.

        A rate limit is no outage: it says itself when to come back.

        :raises Exception: ``error``, if polling again will not help, or has not helped for too long.
        """
        if not isinstance(error, CfBillingError) or not (error.retryable or self._takes_all):
            raise error
        requested = error.retry_after_seconds or 0.0
        if isinstance(error, CfBillingRateLimitError):
            return requested
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        self.failures += 1
        if now - self._since > self._max_seconds:
            raise error.extended(f"All polls of the last {now - self._since:.0f} s have failed")
        return max(min(_MAX_BACKOFF_SECONDS, 2.0 ** min(self.failures, 10)), requested)
