"""Who may call the API, and how often."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_cfbilling.sandbox.answers import RefusalError
from airflow_provider_cfbilling.sandbox.records import GLOBAL_API_KEY, GLOBAL_EMAIL, Account


@dataclass(frozen=True)
class Credentials:
    """What a request presents: an API token, or an e-mail address with a Global API Key."""

    token: str | None = None
    email: str | None = None
    key: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Credentials:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return cls(token=token.strip())
        return cls(email=headers.get("x-auth-email"), key=headers.get("x-auth-key"))

    @property
    def fingerprint(self) -> str | None:
        """Names the credentials without giving them away; None where there are none."""
        secret = self.token or self.key
        return hashlib.sha256(secret.encode()).hexdigest()[:12] if secret else None


def authorize(
    credentials: Credentials, account_id: str, accounts: Mapping[str, Account], *, write: bool
) -> Account:
    """Give the account that the credentials open, or raise the refusal."""
    account = accounts.get(account_id)
    if credentials.token is None:
        if (credentials.email, credentials.key) != (GLOBAL_EMAIL, GLOBAL_API_KEY):
            raise RefusalError(401, 10000, "Authentication error")
        if account is None:
            raise _foreign()
        return account
    if not any(credentials.token in (each.token, each.read_token) for each in accounts.values()):
        raise RefusalError(403, 9109, "Invalid access token")
    if account is None or credentials.token not in (account.token, account.read_token):
        raise _foreign()
    if write and credentials.token != account.token:
        raise RefusalError(403, 10403, 'Forbidden: the token lacks the permission "AI Gateway Write"')
    return account


def _foreign() -> RefusalError:
    return RefusalError(403, 9109, "Unauthorized to access requested resource")


class RateLimiter:
    """So many requests per window for each credential; past that, nothing for a whole window.

    :param quota: requests per window.
    :param window_seconds: the window, and how long an exhausted credential is blocked.
    """

    def __init__(self, quota: int, window_seconds: float) -> None:
        self._quota = quota
        self._window_seconds = window_seconds
        self._used: dict[str | None, int] = {}
        self._ends: dict[str | None, float] = {}

    def count(self, fingerprint: str | None) -> tuple[dict[str, str], RefusalError | None]:
        """Count one request: the headers its answer carries, and the refusal if it is one too many."""
        now = time.monotonic()
        if now >= self._ends.get(fingerprint, now):
            self._used[fingerprint] = 0
            self._ends[fingerprint] = now + self._window_seconds
        self._used[fingerprint] += 1
        if self._used[fingerprint] == self._quota + 1:
            self._ends[fingerprint] = now + self._window_seconds
        left = max(self._quota - self._used[fingerprint], 0)
        seconds = max(1, math.ceil(self._ends[fingerprint] - now))
        headers = {
            "ratelimit": f'"default";r={left};t={seconds}',
            "ratelimit-policy": f'"default";q={self._quota};w={self._window_seconds:g}',
        }
        if self._used[fingerprint] <= self._quota:
            return headers, None
        too_many = "Rate limited. Please wait and consider throttling your request speed"
        return headers, RefusalError(429, 10429, too_many, {"retry-after": str(seconds)})
