"""Cloudflare's envelope: ``{"success", "errors", "messages", "result"}``, read without trusting it."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingMalformedResponseError,
    CfBillingNotFoundError,
    CfBillingPaymentDeclinedError,
    CfBillingPermissionError,
    CfBillingRateLimitError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.api.text import Redactor, one_line

_CREDENTIALS_REFUSED = {10000, 9109}
_LARGEST_CODE = 10**9
# These say that the request was understood and denied. Of the others some come from a gateway that has given
# up on a request which is still being worked on, and some are of a kind that nobody here knows.
_DENIED = frozenset({400, 401, 402, 403, 404, 405, 413, 415, 422, 429})
_TRANSIENT = frozenset({408, 409, 423, 425, 499})


@dataclass(frozen=True)
class Reply:
    """An HTTP answer as it came.

    :param server_time: the answer's ``Date``, Cloudflare's clock.
    :param redactor: hides our secrets in the body, before anything is read from it.
    """

    status: int
    body: bytes = field(repr=False)
    request_id: str | None = None
    server_time: datetime | None = None
    retry_after_seconds: float | None = None
    redactor: Redactor = field(default_factory=Redactor, repr=False)

    @property
    def proves_refusal(self) -> bool:
        """Whether this says, in Cloudflare's own words, that the request was denied: nothing was done."""
        if self.status not in _DENIED:
            return False
        try:
            return bool(_refusals(_parsed(self)))
        except ValueError:
            return False


def result_of(reply: Reply) -> Any:
    """Return the envelope's ``result``, or raise the :class:`CfBillingError` that the answer stands for."""
    try:
        envelope = _parsed(reply)
        refusals = _refusals(envelope)
    except ValueError as problem:
        raise _not_an_envelope(reply, str(problem)) from None
    if refusals or not 200 <= reply.status < 300:
        raise _refusal(reply, refusals)
    return envelope["result"]


def _parsed(reply: Reply) -> dict[str, Any]:
    """Parse strictly: a duplicate key or a NaN can be read in two ways, and this is about money."""
    try:
        as_sent = json.loads(reply.body, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
        envelope = reply.redactor.redacted_json(as_sent)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(envelope, dict) or not isinstance(envelope.get("success"), bool):
        raise ValueError("it is not Cloudflare's envelope")
    if envelope["success"] and "result" not in envelope:
        raise ValueError("it holds no result")
    return envelope


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise ValueError("it holds one key twice")
    return parsed


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")


def _refusals(envelope: dict[str, Any]) -> list[tuple[int, str]]:
    """Return the codes and messages of an envelope that says no; none for one that says yes."""
    if envelope["success"]:
        return []
    errors = envelope.get("errors")
    if not isinstance(errors, list) or not errors or envelope.get("result"):
        raise ValueError("it says success: false without saying why")
    try:
        return [(_code(error["code"]), one_line(error["message"])) for error in errors]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise ValueError("its errors are not Cloudflare's") from None


def _code(value: Any) -> int:
    code = int(value)
    if abs(code) > _LARGEST_CODE:  # it would fill the log
        raise ValueError
    return code


def _refusal(reply: Reply, refusals: list[tuple[int, str]]) -> CfBillingError:
    codes = [code for code, _ in refusals][:5]
    said = "; ".join(message for _, message in refusals[:5]) or "no reason given"
    known: dict[str, Any] = {"status": reply.status, "codes": codes, "request_id": reply.request_id}
    if reply.status == 401 or (reply.status == 403 and not _CREDENTIALS_REFUSED.isdisjoint(codes)):
        return CfBillingAuthenticationError(f"Cloudflare refused the credentials: {said}", **known)
    if reply.status == 403:
        return CfBillingPermissionError(f"Cloudflare did not permit this: {said}", **known)
    if reply.status == 404:
        return CfBillingNotFoundError(f"Cloudflare did not find what was asked for: {said}", **known)
    if reply.status == 429:
        return _rate_limited(reply, said, known)
    if reply.status == 402:
        return CfBillingPaymentDeclinedError(f"The payment method was declined: {said}", **known)
    if 400 <= reply.status < 500 and reply.status not in _TRANSIENT:
        return CfBillingInvalidRequestError(f"Cloudflare refused the request: {said}", **known)
    if reply.status >= 500 or reply.status in _TRANSIENT:
        return CfBillingUnavailableError(f"Cloudflare could not answer: {said}", **known)
    return CfBillingMalformedResponseError(f"Cloudflare answered without success: {said}", **known)


def _not_an_envelope(reply: Reply, problem: str) -> CfBillingError:
    """Cloudflare's edge answers HTML on 502 to 527, and sometimes on 403 and 429."""
    known: dict[str, Any] = {"status": reply.status, "request_id": reply.request_id}
    if reply.status == 429:
        return _rate_limited(reply, "no reason given", known)
    if reply.status >= 500:
        return CfBillingUnavailableError("Cloudflare could not answer, and sent no JSON", **known)
    if 300 <= reply.status < 400:
        return CfBillingMalformedResponseError(
            "The answer is a redirect, which this API never sends. It was not followed; "
            "check the API base URL",
            **known,
        )
    return CfBillingMalformedResponseError(
        f"The answer is not what the API documents: {problem:.200}. Check the API base URL", **known
    )


def _rate_limited(reply: Reply, said: str, known: dict[str, Any]) -> CfBillingError:
    return CfBillingRateLimitError(
        f"Cloudflare's rate limit is used up: {said}",
        retry_after_seconds=reply.retry_after_seconds,
        **known,
    )
