"""`Retry-After` is obeyed with every response that carries it, by every call of this process."""

import json
from email.utils import formatdate

import pytest

from airflow_provider_cfbilling.api.errors import (
    CfBillingError,
    CfBillingOutcomeUnknownError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.api.http.envelope import Reply, result_of
from airflow_provider_cfbilling.api.http.rate_limiter import RateLimiter
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.raw_servers import client_of, fresh_token, refused

PAUSING_STATUSES = [408, 425, 429, 500, 502, 503, 504, 520, 529]


@pytest.mark.parametrize("html", [False, True], ids=["json", "html"])
@pytest.mark.parametrize("status", PAUSING_STATUSES)
def test_read_waits_as_long_as_retry_after_says(sandbox: Sandbox, status: int, html: bool):
    if html and status in (408, 425):
        pytest.skip("a page in place of a 4xx is not Cloudflare's API, and not tried again")
    sandbox.fault("getTopupConfig", "status", status=status, html=html, headers={"retry-after": "1"})
    with client_of(sandbox, max_attempts=2) as client:
        client.get_topup_config()
    first, second = sandbox.requests()
    assert (first.status, second.status) == (status, 200)
    assert second.at >= first.at + 1


def test_date_is_obeyed_too(sandbox: Sandbox):
    retry_after = formatdate(sandbox.state()["now"] + 2, usegmt=True)
    sandbox.fault("getTopupConfig", "status", status=503, headers={"retry-after": retry_after})
    with client_of(sandbox, max_attempts=2) as client:
        client.get_topup_config()
    first, second = sandbox.requests()
    assert second.at >= int(first.at) + 1


def test_wait_beyond_the_time_left_fails_at_once_and_says_so(sandbox: Sandbox):
    sandbox.fault("*", "status", status=503, headers={"retry-after": "300"}, times=None)
    with client_of(sandbox, max_attempts=5) as client, pytest.raises(CfBillingUnavailableError) as caught:
        client.get_topup_config()
    assert caught.value.retry_after_seconds == 300
    assert "To wait 300 s more, as Cloudflare requests, would exceed the 120 s" in str(caught.value)
    assert len(sandbox.requests()) == 1


def test_pause_of_a_5xx_holds_every_call_with_the_token(sandbox: Sandbox):
    token = fresh_token()
    sandbox.configure(token=token)
    sandbox.fault("getCreditBalance", "status", status=503, html=True, headers={"retry-after": "600"})
    with client_of(sandbox, secret=token) as one, pytest.raises(CfBillingUnavailableError):
        one.get_credit_balance()

    with client_of(sandbox, secret=token) as another, pytest.raises(CfBillingError) as caught:
        another.get_topup_config()

    assert type(caught.value) is CfBillingUnavailableError
    assert caught.value.retryable
    assert 0 < (caught.value.retry_after_seconds or 0) <= 600
    assert "Not sent" in str(caught.value)
    assert len(sandbox.requests()) == 1


def test_charge_that_is_held_back_is_not_sent(sandbox: Sandbox):
    sandbox.fault("getCreditBalance", "status", status=503, headers={"retry-after": "600"})
    with client_of(sandbox) as client:
        with pytest.raises(CfBillingUnavailableError):
            client.get_credit_balance()
        with pytest.raises(CfBillingError) as caught:
            client.create_topup(1000)

    assert type(caught.value) is CfBillingUnavailableError
    assert "Not sent" in str(caught.value)
    assert 0 < (caught.value.retry_after_seconds or 0) <= 600
    assert sandbox.requests("createTopup") == []
    assert sandbox.charges() == []


def test_charge_with_503_is_unknown_and_pauses_calls(sandbox: Sandbox):
    sandbox.fault("createTopup", "status", "after", status=503, headers={"retry-after": "600"})
    with client_of(sandbox) as client:
        with pytest.raises(CfBillingOutcomeUnknownError) as caught:
            client.create_topup(1000)
        with pytest.raises(CfBillingUnavailableError, match="Not sent"):
            client.get_invoice_history()
        with pytest.raises(CfBillingUnavailableError, match="Not sent"):
            client.create_topup(1000)
    assert caught.value.retry_after_seconds == 600
    assert len(sandbox.requests()) == len(sandbox.charges()) == 1


@pytest.mark.parametrize(
    ("first", "then", "unavailable"),
    [
        ((503, "600"), (429, "5"), True),
        ((429, "600"), (503, "5"), False),
        ((503, "5"), (429, "600"), False),
        ((429, "5"), (503, "600"), True),
    ],
)
def test_longer_pause_says_what_it_is_kept_for(
    first: tuple[int, str], then: tuple[int, str], unavailable: bool
):
    limiter = RateLimiter()
    for status, seconds in (first, then):
        limiter.update_from_response(status, {"Retry-After": seconds})
    assert limiter.cooldown_remaining() > 500
    assert limiter.is_unavailable == unavailable


@pytest.mark.parametrize("status", [*PAUSING_STATUSES, 599])
@pytest.mark.parametrize(
    ("value", "low", "high"),
    [("60", 50, 60), ("999999999", 3500, 3600), ("0", 0, 0), ("-5", 0, 0), ("soon", 0, 0), ("", 0, 0)],
)
def test_pause_is_bounded_and_needs_a_time(status: int, value: str, low: float, high: float):
    limiter = RateLimiter()
    limiter.update_from_response(status, {"Retry-After": value} if value else {})
    assert low <= limiter.cooldown_remaining() <= high
    assert low <= limiter.reserve() <= high
    assert limiter.is_unavailable == (high > 0 and status != 429)


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 402, 403, 404, 409, 413, 422, 423, 499])
def test_other_responses_do_not_pause_calls(status: int):
    limiter = RateLimiter()
    limiter.update_from_response(status, {"Retry-After": "60"})
    assert limiter.cooldown_remaining() == 0


@pytest.mark.parametrize("status", [200, 302, 400, 401, 402, 403, 404, 408, 418, 423, 425, 429, 500, 503])
@pytest.mark.parametrize("body", [json.dumps(refused()).encode(), b"<html>"], ids=["json", "html"])
def test_every_response_error_carries_its_retry_after(status: int, body: bytes):
    with pytest.raises(CfBillingError) as caught:
        result_of(Reply(status, body, retry_after_seconds=7.0))
    assert caught.value.retry_after_seconds == 7
    assert caught.value.extended("more").retry_after_seconds == 7


def test_error_without_a_response_has_no_retry_after():
    assert CfBillingError("m").retry_after_seconds is None
