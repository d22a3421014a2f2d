"""How requests travel: connections, credentials, time limits, retries of reads.

Reads are retried; whether an endpoint is one is said by its author in ``client.py``, not derived from the
HTTP verb. :meth:`Transport.send_once` is the other way: once, over a connection of its own.
"""

import http.client
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import requests
import tenacity
import urllib3

from airflow_provider_cfbilling import __version__
from airflow_provider_cfbilling.api.errors import (
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingMalformedResponseError,
    CfBillingNotSentInTimeError,
    CfBillingOutcomeUnknownError,
    CfBillingRateLimitError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.api.http.credentials import Sent
from airflow_provider_cfbilling.api.http.envelope import Reply, result_of
from airflow_provider_cfbilling.api.http.network import network_for
from airflow_provider_cfbilling.api.http.rate_limiter import http_date, rate_limiter_of, retry_after_seconds
from airflow_provider_cfbilling.api.http.send_tracking import (
    RequestAttempt,
    SendDeadline,
    SendTrackingAdapter,
    request_attempt,
)
from airflow_provider_cfbilling.api.http.text import Redactor, one_line
from airflow_provider_cfbilling.api.settings import Settings

READ_TOTAL_SECONDS = 120.0
BODY_LIMIT_BYTES = 4 * 1024 * 1024

# Everything that requests, urllib3, http.client and ssl raise when a connection fails, or cannot be set up.
_CONNECTION_FAILED = (OSError, ValueError, urllib3.exceptions.HTTPError, http.client.HTTPException)

_HEADERS = {
    "User-Agent": f"airflow-provider-cfbilling/{__version__}",
    "Accept": "application/json",
    # Responses are small; without compression a limit on bytes is a limit on memory.
    "Accept-Encoding": "identity",
    # An older history, from a cache in between, would hide a charge; an older `Date` would end its search.
    "Cache-Control": "no-cache",
}

_full_jitter = tenacity.wait_random_exponential(multiplier=0.5, max=15)


@dataclass(frozen=True)
class ReadResponse:
    """What a read brought.

    :param result: the envelope's ``result``.
    :param server_time: when, by Cloudflare's clock, or by ours if it did not say.
    """

    result: Any
    server_time: datetime


class Transport:
    """Sends requests for one account with one set of credentials."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limiter = rate_limiter_of(settings.base_url, settings.secret)
        self._credentials = _Credentials(settings)
        self._sent = Sent.of(settings.secret, settings.email)
        # Read once: every request goes the same way, and what is wrong with it is known before a charge.
        self._network = network_for(settings.base_url)
        self._redactor = Redactor(settings.secret, in_messages=self._network.secrets)
        self._adapter = SendTrackingAdapter()
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((CfBillingUnavailableError, CfBillingRateLimitError)),
            wait=_wait,
            stop=tenacity.stop_after_attempt(settings.max_attempts)
            | tenacity.stop_before_delay(READ_TOTAL_SECONDS),
            retry_error_callback=_give_up,
        )

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()

    def read(self, method: str, path: str, **arguments: Any) -> ReadResponse:
        """Send a request that changes nothing, again if need be.

        Bounded by the connection's ``max_attempts`` and by ``READ_TOTAL_SECONDS``. What Cloudflare says
        about when to come back (``Retry-After``, ``Ratelimit``) is obeyed, up to an hour.

        :raises CfBillingError: the last failure.
        """
        return self._retrying(self._read_once, method, path, arguments)

    def _read_once(self, method: str, path: str, arguments: dict[str, Any]) -> ReadResponse:
        self._keep_pause()
        prepared = self._prepared(method, path, **arguments)
        with request_attempt(self._settings.read_timeout) as this:
            try:
                reply = self._attempt(this, self._adapter, prepared)
            except _CONNECTION_FAILED as error:
                raise self._failure(error, this) from None
        return ReadResponse(result_of(reply), reply.server_time or datetime.now(UTC))

    def send_once(self, path: str, body: dict[str, Any], send_by: SendDeadline | None = None) -> Reply:
        """POST ``body`` over a fresh connection, one time, and return the response, whatever it is.

        :param send_by: not to be sent after this time, which is checked last.
        :raises CfBillingNotSentInTimeError: that time has passed: nothing was sent.
        :raises CfBillingRateLimitError: a pause is being kept: nothing was sent.
        :raises CfBillingUnavailableError: no byte of the request left this machine, or a pause is being
            kept that a 5xx requested: nothing was sent.
        :raises CfBillingOutcomeUnknownError: it was sent, at least in part, and has no whole response.
        """
        self._keep_pause()
        prepared = self._prepared("POST", path, json=body)
        # A kept-alive connection may be closed by the other side just as the request goes out.
        attempt = request_attempt(self._settings.read_timeout, send_by)
        with closing(SendTrackingAdapter()) as adapter, attempt as this:
            try:
                return self._attempt(this, adapter, prepared)
            except CfBillingNotSentInTimeError:
                raise
            except Exception as error:  # whatever it is, it must not hide what is known of the charge
                failure = self._failure(error, this)
                if this.nothing_sent:
                    raise failure.extended("Nothing was sent") from None
                raise CfBillingOutcomeUnknownError(
                    f"{failure.message}. Whether it was carried out is not known"
                ) from None

    def _prepared(self, method: str, path: str, **arguments: Any) -> requests.PreparedRequest:
        settings = self._settings
        request = requests.Request(
            method, settings.base_url + path, headers=_HEADERS, auth=self._credentials, **arguments
        )
        try:
            return request.prepare()
        except Exception as error:  # of any kind: it may show the headers
            raise CfBillingInvalidRequestError(
                f"No request can be made of the API base URL {settings.base_url} ({type(error).__name__}). "
                "Nothing was sent"
            ) from None

    def _attempt(
        self, this: RequestAttempt, adapter: SendTrackingAdapter, prepared: requests.PreparedRequest
    ) -> Reply:
        settings = self._settings
        # Without a session, which would follow a redirect, with X-Auth-Key, or, if not, read all of its
        # body and its address, however long and strange they are; and keep every cookie.
        response = adapter.send(
            prepared,
            timeout=(settings.connect_timeout, settings.read_timeout),
            verify=self._network.verify,
            stream=True,
            proxies=self._network.proxies,
        )
        with response:
            self._limiter.update_from_response(response.status_code, response.headers)
            body = _limited_body(response)
            if this.expired:  # a response without a length seems whole wherever it is cut
                raise TimeoutError
            return Reply(
                status=response.status_code,
                body=body,
                request_id=self._shown(response.headers.get("cf-ray", ""), 64) or None,
                server_time=http_date(response.headers.get("Date", "")),
                retry_after_seconds=retry_after_seconds(response.headers),
                redactor=self._redactor,
                sent=self._sent,
            )

    def _keep_pause(self) -> None:
        pause = self._limiter.cooldown_remaining()
        if pause > 0 and self._limiter.is_unavailable:
            raise CfBillingUnavailableError(
                f"Cloudflare is unavailable and requested a pause: {pause:.0f} s left. Not sent",
                retry_after_seconds=pause,
            )
        if pause > 0:
            raise CfBillingRateLimitError(
                f"Rate limited: {pause:.0f} s of Retry-After left. Not sent",
                retry_after_seconds=pause,
            )

    def _failure(self, error: Exception, this: RequestAttempt) -> CfBillingError:
        """Return what an attempt that brought no whole response stands for."""
        where = self._settings.base_url
        way = f"{where} through {self._network.via}" if self._network.via else where
        if this.expired:
            seconds = self._settings.read_timeout
            return CfBillingUnavailableError(f"{where} gave no whole response within {seconds:g} s")
        if isinstance(error, CfBillingError):
            return error
        if isinstance(error, ValueError) and this.nothing_sent:
            # Something of URL or proxy that the checks have let pass. Its text may show a part of them.
            kind = type(error).__name__
            return CfBillingInvalidRequestError(f"No connection can be set up to {way}: {kind}")
        reason = _root(error)
        said = self._shown(str(reason))  # it may hold what the server or a proxy has sent
        return CfBillingUnavailableError(f"No response from {way}: {type(reason).__name__}: {said}")

    def _shown(self, text: str, longest: int = 300) -> str:
        return one_line(self._redactor.redacted_message(text), longest)


class _Credentials(requests.auth.AuthBase):
    """Sets the credentials' headers. As an ``auth`` object, so that no ``.netrc`` replaces them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._settings.email is None:
            request.headers["Authorization"] = f"Bearer {self._settings.secret}"
        else:
            request.headers["X-Auth-Email"] = self._settings.email
            request.headers["X-Auth-Key"] = self._settings.secret
        return request


def _limited_body(response: requests.Response) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise CfBillingMalformedResponseError("The response is compressed, which was not requested")
    body = bytearray()
    while chunk := response.raw.read(64 * 1024):
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise CfBillingMalformedResponseError(f"The response is larger than {BODY_LIMIT_BYTES} bytes")
    return bytes(body)


def _wait(state: tenacity.RetryCallState) -> float:
    """Wait as long as Cloudflare requests, and a little more so that callers do not come back all at once."""
    error = _failure(state)
    return (error.retry_after_seconds or 0.0) + _full_jitter(state)


def _give_up(state: tenacity.RetryCallState) -> NoReturn:
    error = _failure(state)
    requested = error.retry_after_seconds
    if requested and state.upcoming_sleep > READ_TOTAL_SECONDS - (state.seconds_since_start or 0):
        raise error.extended(
            f"To wait {requested:.0f} s more, as Cloudflare requests, would exceed the "
            f"{READ_TOTAL_SECONDS:.0f} s that one read may take"
        )
    raise error.extended(f"Tried {state.attempt_number} times" if state.attempt_number > 1 else "")


def _failure(state: tenacity.RetryCallState) -> CfBillingError:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, CfBillingError):
        raise TypeError("only failures of the API are retried") from error
    return error


def _root(error: BaseException) -> BaseException:
    """Return what really happened below the layers of requests and urllib3."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
        if not isinstance(inner, BaseException) or inner is error:
            return error
        error = inner
