"""Who may call the API, and how often."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass

from airflow_provider_cfbilling.sandbox.models import GLOBAL_API_KEY, GLOBAL_EMAIL, Account
from airflow_provider_cfbilling.sandbox.responses import RefusalError

# The forms of Cloudflare's own keys and tokens; the sandbox's are its own.
_KEY = re.compile(r"cfk_\w+|[0-9a-f]{37}")
_TOKEN = re.compile(r"cf[ua]t_\w+|[\w-]{40}", re.ASCII)

_BAD_TOKEN = (6111, "Invalid format for Authorization header")
_BAD_EMAIL = (6102, "Invalid format for X-Auth-Email header")
_BAD_KEY = (6103, "Invalid format for X-Auth-Key header")


@dataclass(frozen=True)
class Credentials:
    """What a request presents: an API token, or an e-mail address with a Global API Key.

    :param token: what the Authorization header holds, without Bearer: empty if it is no Bearer.
    :param address: the address that the request comes from.
    """

    token: str | None = None
    email: str | None = None
    key: str | None = None
    address: str = "127.0.0.1"

    @classmethod
    def of(cls, headers: Mapping[str, str], address: str = "127.0.0.1") -> Credentials:
        authorization = headers.get("authorization")
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            return cls(token=token.strip() if scheme.lower() == "bearer" else "", address=address)
        return cls(email=headers.get("x-auth-email"), key=headers.get("x-auth-key"), address=address)

    @property
    def fingerprint(self) -> str | None:
        """Names the credentials without giving them away; None if there are none."""
        secret = self.token or self.key
        return hashlib.sha256(secret.encode()).hexdigest()[:12] if secret else None


def authorize(
    credentials: Credentials, account_id: str, accounts: Mapping[str, Account], *, write: bool
) -> Account:
    """Give the account that the credentials open, or raise the refusal, as the real API words it."""
    account = accounts.get(account_id)
    tokens = {token for each in accounts.values() for token in (each.token, each.read_token)}
    if credentials.token is None:
        _check_key(credentials.email, credentials.key, tokens)
        if account is None:
            raise _foreign()
        return account
    if credentials.token not in tokens:
        if _is_malformed(credentials.token, tokens, {GLOBAL_API_KEY}, _KEY):
            raise _bad_headers(_BAD_TOKEN)
        raise RefusalError(403, 9109, "Invalid access token")
    if account is None or credentials.token not in (account.token, account.read_token):
        raise _foreign()
    if not account.allows(credentials.address):
        refused = f"Cannot use the access token from location: {credentials.address}"
        raise RefusalError(403, 9109, refused)
    if write and credentials.token != account.token:
        raise RefusalError(403, 10403, 'Forbidden: the token lacks the permission "AI Gateway Write"')
    return account


def _check_key(email: str | None, key: str | None, tokens: Set[str]) -> None:
    if email is None and key is None:
        raise RefusalError(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")
    if email is None:
        raise RefusalError(400, 9106, "Missing X-Auth-Email header")
    if key is None:
        raise RefusalError(400, 9107, "Missing X-Auth-Key header")
    bad = [_BAD_EMAIL] if not re.fullmatch(r"[^@\s]+@[^@\s]+", email) else []
    if _is_malformed(key, {GLOBAL_API_KEY}, tokens, _TOKEN):
        bad.append(_BAD_KEY)
    if bad:
        raise _bad_headers(*bad)
    if (email, key) != (GLOBAL_EMAIL, GLOBAL_API_KEY):
        raise RefusalError(403, 9103, "Unknown X-Auth-Key or X-Auth-Email")


def _is_malformed(secret: str, known: Set[str], others: Set[str], other_form: re.Pattern[str]) -> bool:
    """Whether a secret cannot be of its kind: of the other kind, cut off, or with something around it.

    The real API counts characters, which the sandbox's own secrets do not have.
    """
    if secret in known:
        return False
    return (
        not re.fullmatch(r"[\w-]+", secret, re.ASCII)
        or secret in others
        or other_form.fullmatch(secret) is not None
        or any(secret in whole or whole in secret for whole in known)
    )


def _bad_headers(*chain: tuple[int, str]) -> RefusalError:
    return RefusalError(400, 6003, "Invalid request headers", chain=chain)


def _foreign() -> RefusalError:
    return RefusalError(403, 9109, "Unauthorized to access requested resource")


class RequestQuota:
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
        """Count one request: the headers its response carries, and the refusal if it is one too many."""
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
