"""A pause is shared by all callers with the same credentials in this process, and by no others."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from airflow_provider_cfbilling.api.errors import CfBillingRateLimitError
from airflow_provider_cfbilling.api.http.rate_limiter import RateLimiter, http_date, retry_after_seconds
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.raw_servers import Peer, RawServer, client_at, client_of, fresh_token, http, ok, refused

OTHER_ACCOUNT_ID = "f" * 32
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def test_clients_with_the_same_token_share_a_pause(sandbox: Sandbox):
    token = fresh_token()
    sandbox.configure(token=token)
    sandbox.configure(OTHER_ACCOUNT_ID, token=token)
    sandbox.fault("getCreditBalance", "status", status=429, headers={"retry-after": "600"})

    with client_of(sandbox, secret=token) as one, pytest.raises(CfBillingRateLimitError) as refusal:
        one.get_credit_balance()
    with (
        client_of(sandbox, secret=token, account_id=OTHER_ACCOUNT_ID) as another,
        pytest.raises(CfBillingRateLimitError, match="Not sent") as pause,
    ):
        another.get_topup_config()

    assert refusal.value.status == 429
    assert refusal.value.retry_after_seconds == 600
    assert pause.value.status is None
    assert 0 < (pause.value.retry_after_seconds or 0) <= 600
    assert len(sandbox.requests()) == 1


def test_pause_does_not_hold_another_token(sandbox: Sandbox):
    sandbox.fault("getCreditBalance", "status", status=429, headers={"retry-after": "600"})

    with client_of(sandbox) as one, pytest.raises(CfBillingRateLimitError):
        one.get_credit_balance()
    with client_of(sandbox) as another:
        assert another.get_credit_balance().has_default_payment_method


def test_pause_does_not_hold_another_server():
    def limited(peer: Peer) -> None:
        peer.request()
        peer.send(http(refused(), 429, Retry_After=600))

    def well(peer: Peer) -> None:
        peer.request()
        peer.send(http(ok({"amount": 1, "threshold": 2, "currency": "usd"})))

    token = fresh_token()
    with RawServer(limited) as first, RawServer(well) as second:
        with client_at(first.url, secret=token) as client, pytest.raises(CfBillingRateLimitError):
            client.get_topup_config()
        with client_at(second.url, secret=token) as client:
            assert client.get_topup_config().threshold_cents == 2


def test_later_callers_wait_for_a_blocked_token(sandbox: Sandbox):
    token = fresh_token()
    sandbox.configure(token=token)
    sandbox.configure_server(rate_quota=1, rate_window_seconds=1)
    with client_of(sandbox, secret=token) as one:
        one.get_credit_balance()
    with client_of(sandbox, secret=token, max_attempts=2) as later:
        later.get_credit_balance()

    first, second = sandbox.requests()
    assert (first.status, second.status) == (200, 200)
    assert second.at >= first.at + 0.9


@pytest.mark.parametrize(
    ("status", "headers", "pauses"),
    [
        (200, {}, False),
        (200, {"Ratelimit": '"default";r=1;t=60'}, False),
        (200, {"Ratelimit": '"default";r=10;t=60'}, False),
        (200, {"Ratelimit": '"default";r=0;t=60'}, True),
        (200, {"Ratelimit": '"default"; r=0; t=60'}, True),
        (200, {"Ratelimit": '"burst";r=5;t=1, "default";r=0;t=60'}, True),
        (200, {"Ratelimit": '"default";r=0;t=soon'}, False),
        (200, {"Ratelimit": '"default";r=0;t=-60'}, False),
        (200, {"Ratelimit": '"default";r=-1;t=60'}, False),
        (200, {"Ratelimit": '"default";r=\u0660;t=\u0666\u0660'}, False),
        (200, {"Ratelimit": "x" * 100_000 + ";r=0;t=60"}, False),
        (200, {"Ratelimit": ""}, False),
        (200, {"Retry-After": "60"}, False),
        (429, {"Retry-After": "60"}, True),
        (429, {"Retry-After": "0"}, False),
        (429, {"Retry-After": "later"}, False),
        (429, {}, False),
    ],
)
def test_response_decides_whether_to_pause(status: int, headers: dict[str, str], pauses: bool):
    limiter = RateLimiter()
    limiter.update_from_response(status, headers)
    assert (50 < limiter.cooldown_remaining() <= 60) == pauses
    assert pauses or limiter.cooldown_remaining() == 0


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (429, {"Retry-After": "999999999"}),
        (429, {"Retry-After": "Fri, 31 Dec 2199 23:59:59 GMT"}),
        (200, {"Ratelimit": '"default";r=0;t=999999999'}),
    ],
)
def test_no_header_pauses_for_more_than_an_hour(status: int, headers: dict[str, str]):
    limiter = RateLimiter()
    limiter.update_from_response(status, headers)
    assert 3500 < limiter.cooldown_remaining() <= 3600
    assert limiter.reserve() <= 3600


def test_waiters_go_on_once_the_quota_is_renewed():
    limiter = RateLimiter()
    limiter.update_from_response(200, {"Ratelimit": '"default";r=1;t=300'})
    turns = [limiter.reserve() for _ in range(100)]
    assert turns[50] > 200  # one for now, and the others later
    assert turns[-1] < 400


def test_shorter_pause_does_not_cut_a_longer_one():
    limiter = RateLimiter()
    for seconds in ("600", "5"):
        limiter.update_from_response(429, {"Retry-After": seconds})
    assert limiter.cooldown_remaining() > 500


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        (format_datetime(NOW + timedelta(minutes=5), usegmt=True), 300),
        (format_datetime(NOW - timedelta(minutes=5), usegmt=True), 0),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("1e9", None),
        ("9" * 5000, None),
        ("999999999", 3600),
        (format_datetime(NOW + timedelta(days=400), usegmt=True), 3600),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("1e999", None),
        ("nan", None),
        ("inf", None),
        ("\u0661\u0662", None),
        ("\xb2", None),
        ("soon", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999", None),
    ],
)
def test_retry_after_date_counts_from_the_response_date(value: str, seconds: float | None):
    headers = {"Retry-After": value, "Date": format_datetime(NOW, usegmt=True)}
    assert retry_after_seconds(headers) == seconds


def test_retry_after_date_counts_from_our_clock_without_date():
    until = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert 3500 < (retry_after_seconds({"Retry-After": until}) or 0) <= 3600


def test_http_date_is_in_utc():
    assert http_date("Sun, 01 Mar 2026 12:00:00 GMT") == NOW
    assert http_date("yesterday") is None


@pytest.mark.parametrize("year", ["0001", "1969", "2019", "2200", "9999"])
def test_http_date_of_a_broken_clock_is_none(year: str):
    assert http_date(f"Fri, 01 Mar {year} 00:00:00 -0100") is None
