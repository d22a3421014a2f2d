"""What can go wrong, one class for each thing that a caller does differently.

The meaning of ``codes``: https://developers.cloudflare.com/fundamentals/api/
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

from airflow_provider_cfbilling.api.http.credentials import Reason


class CfBillingError(Exception):
    """Base of every error of this package's API half.

    :param message: what happened and what to do, without secrets.
    :param status: HTTP status, or None if there was no response.
    :param codes: Cloudflare's error codes.
    :param request_id: the response's ``cf-ray``, which Cloudflare's support needs.
    :param retry_after_seconds: the pause that Cloudflare requests before the next call with these
        credentials; None: none.
    :ivar retryable: whether the same request, or task, may succeed later without any change.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        codes: Sequence[int] = (),
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.codes = tuple(codes)
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        facts = [f"HTTP {self.status}"] if self.status is not None else []
        facts += [f"code {code}" for code in self.codes]
        facts += [f"cf-ray {self.request_id}"] if self.request_id else []
        return f"{self.message} ({', '.join(facts)})" if facts else self.message

    def extended(self, addition: str) -> Self:
        """Return the same error with ``addition`` at the end of its message, unless it says that already."""
        if not addition or addition in self.message:
            return self
        longer = copy.copy(self)
        longer.message = f"{self.message.removesuffix('.')}. {addition}"
        longer.args = (longer.message,)
        return longer


class CfBillingInvalidRequestError(CfBillingError, ValueError):
    """Refused for what was requested: by us before any request, or by Cloudflare (a 4xx)."""


class CfBillingAuthenticationError(CfBillingError):
    """Cloudflare refused the credentials (HTTP 400, 401 or 403, with a code of theirs).

    :param reason: ``malformed``, ``other kind`` (an API token sent as Global API Key, or the other way),
        ``missing``, ``invalid``, ``address`` (from which the API token may not be used), or None: Cloudflare
        does not say; it may be a missing permission, or another account.
    """

    def __init__(self, message: str, *, reason: Reason | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.reason = reason


class CfBillingPermissionError(CfBillingError):
    """The credentials are valid, but may not do this (HTTP 403)."""


class CfBillingNotFoundError(CfBillingError):
    """There is no such account or top-up (HTTP 404)."""


class CfBillingPaymentDeclinedError(CfBillingError):
    """The payment method was declined (HTTP 402): nothing was charged."""


class CfBillingRateLimitError(CfBillingError):
    """Too many requests (HTTP 429), or this process keeps a pause that Cloudflare requested."""

    retryable = True


class CfBillingUnavailableError(CfBillingError):
    """Cloudflare could not be reached, did not respond in time, or with 5xx. Trying later may help.

    Also while this process keeps the pause that such a response requested.
    """

    retryable = True


class CfBillingNotSentInTimeError(CfBillingUnavailableError):
    """It took too long to come to the point of sending, so nothing was sent."""


class CfBillingMalformedResponseError(CfBillingError):
    """The response is not what the API documents: a redirect, no JSON, a field missing or mistyped."""

    retryable = True


class CfBillingOutcomeUnknownError(CfBillingError):
    """A top-up was sent and whether the card was charged is not known.

    Never send it again because of this. Search for the invoice first.
    """
