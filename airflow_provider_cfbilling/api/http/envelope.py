"""Cloudflare's envelope: ``{"success", "errors", "messages", "result"}``, read without trusting it."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

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
from airflow_provider_cfbilling.api.http.credentials import Sent, diagnose
from airflow_provider_cfbilling.api.http.text import Redactor, one_line

_MAX_CODE = 10**9
_MAX_CODES = 5
# Of one error's `error_chain`, which can be long and deep.
_MAX_LINKS = 3
# These say that the request was understood and denied. Of the others some come from a gateway that has given
# up on a request which is still being worked on, and some are of an unknown kind.
_DENIED = frozenset({400, 401, 402, 403, 404, 405, 413, 415, 422, 429})
_TRANSIENT = frozenset({408, 409, 423, 425, 499})


@dataclass(frozen=True)
class Reply:
    """An HTTP response as it came.

    :param server_time: the response's ``Date``, Cloudflare's clock.
    :param redactor: hides our secrets in the body, before anything is read from it.
    :param sent: how the credentials were sent.
    """

    status: int
    body: bytes = field(repr=False)
    request_id: str | None = None
    server_time: datetime | None = None
    retry_after_seconds: float | None = None
    redactor: Redactor = field(default_factory=Redactor, repr=False)
    sent: Sent = field(default_factory=Sent)

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
    """Return the envelope's ``result``, or raise the :class:`CfBillingError` that the response stands for."""
    try:
        envelope = _parsed(reply)
        refusals = _refusals(envelope)
    except ValueError as problem:
        raise _not_an_envelope(reply, str(problem)) from None
    if refusals or not 200 <= reply.status < 300:
        raise _error_of(reply, refusals)
    return envelope["result"]


def _parsed(reply: Reply) -> dict[str, Any]:
    """Parse strictly: a duplicate key or a NaN can be read in two ways, and this is about money."""
    try:
        as_sent = json.loads(reply.body, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
        if not isinstance(as_sent, dict) or not isinstance(as_sent.get("success"), bool):
            raise ValueError("it is not Cloudflare's envelope")
        envelope: dict[str, Any] = reply.redactor.redacted_json(as_sent)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
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


class _Refusal(NamedTuple):
    """One of an envelope's errors: its codes, and in one line its messages, with those of its chain."""

    codes: list[int]
    message: str


def _refusals(envelope: dict[str, Any]) -> list[_Refusal]:
    """Return the errors of an envelope that reports failure; none for one that reports success."""
    if envelope["success"]:
        return []
    errors = envelope.get("errors")
    if not isinstance(errors, list) or not errors or envelope.get("result"):
        raise ValueError("it says success: false without saying why")
    try:
        heads = [(_code(error["code"]), one_line(error["message"])) for error in errors]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise ValueError("its errors are not Cloudflare's") from None
    return [_with_chain(*head, error) for head, error in zip(heads, errors, strict=True)]


def _with_chain(code: int, message: str, error: dict[str, Any]) -> _Refusal:
    """Add what is readable of an error's ``error_chain``, which is often where the reason is.

    It decides nothing: a refusal without it, or with an odd one, is the same refusal.
    """
    codes, messages = [code], [message]
    below = error.get("error_chain")
    while isinstance(below, list) and below and len(codes) <= _MAX_LINKS:
        link, *rest = below[: _MAX_LINKS + 1]
        below = rest
        if not isinstance(link, dict):
            continue
        with suppress(AttributeError, KeyError, TypeError, ValueError, OverflowError):
            link_code, link_message = _code(link["code"]), one_line(link["message"])
            codes.append(link_code)
            messages.append(link_message)
        if isinstance(link.get("error_chain"), list):
            below = [*link["error_chain"][:_MAX_LINKS], *rest]
    return _Refusal(codes, one_line(": ".join(filter(None, messages))))


def _code(value: Any) -> int:
    code = int(value)
    if abs(code) > _MAX_CODE:  # it would fill the log
        raise ValueError
    return code


def _error_of(reply: Reply, refusals: list[_Refusal]) -> CfBillingError:
    codes = [code for refusal in refusals for code in refusal.codes][:_MAX_CODES]
    said = "; ".join(refusal.message for refusal in refusals[:_MAX_CODES]) or "no reason given"
    known = {**_known(reply), "codes": codes}
    diagnosis = diagnose(reply.status, codes, said, reply.sent)
    said = reply.redactor.redacted_message(said)
    if diagnosis is not None:
        refused = CfBillingAuthenticationError(
            f"Cloudflare refused the credentials: {said}", reason=diagnosis.reason, **known
        )
        return refused.extended(diagnosis.advice)
    if reply.status == 403:
        return CfBillingPermissionError(f"Cloudflare did not permit this: {said}", **known)
    if reply.status == 404:
        return CfBillingNotFoundError(f"Cloudflare did not find this: {said}", **known)
    if reply.status == 429:
        return CfBillingRateLimitError(f"Cloudflare's rate limit is used up: {said}", **known)
    if reply.status == 402:
        return CfBillingPaymentDeclinedError(f"The payment method was declined: {said}", **known)
    if 400 <= reply.status < 500 and reply.status not in _TRANSIENT:
        return CfBillingInvalidRequestError(f"Cloudflare refused the request: {said}", **known)
    if reply.status >= 500 or reply.status in _TRANSIENT:
        return CfBillingUnavailableError(f"Cloudflare could not respond: {said}", **known)
    return CfBillingMalformedResponseError(f"Cloudflare responded without success: {said}", **known)


def _not_an_envelope(reply: Reply, problem: str) -> CfBillingError:
    """Cloudflare's edge responds with HTML on 502 to 527, and sometimes on 403 and 429."""
    known = _known(reply)
    if reply.status == 429:
        return CfBillingRateLimitError("Cloudflare's rate limit is used up: no reason given", **known)
    if reply.status >= 500:
        return CfBillingUnavailableError("Cloudflare could not respond, and sent no JSON", **known)
    if 300 <= reply.status < 400:
        return CfBillingMalformedResponseError(
            "The response is a redirect, which this API never sends. It was not followed; "
            "check the API base URL",
            **known,
        )
    return CfBillingMalformedResponseError(
        f"The response is not what the API documents: {problem:.200}. Check the API base URL", **known
    )


def _known(reply: Reply) -> dict[str, Any]:
    return {
        "status": reply.status,
        "request_id": reply.request_id,
        "retry_after_seconds": reply.retry_after_seconds,
    }
