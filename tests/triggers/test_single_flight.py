"""However many wait in one event loop, Cloudflare sees one request, and never too many in a time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingRateLimitError, CfBillingUnavailableError
from airflow_provider_cfbilling.api.http import rate_limiter
from airflow_provider_cfbilling.api.http.rate_limiter import RateLimiter
from airflow_provider_cfbilling.api.settings import Settings
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.triggers.single_flight import PollResult, shared_poll, single_flight
from tests.charging.virtual import VirtualTime
from tests.raw_servers import ACCOUNT_ID, Peer, RawServer, fresh_token, http, ok

ANOTHER_ACCOUNT_ID = "f" * 32
balance = CfBillingClient.get_credit_balance


@pytest.fixture
def settings(sandbox: Sandbox) -> Settings:
    token = fresh_token()
    sandbox.configure(token=token)
    sandbox.configure(ANOTHER_ACCOUNT_ID, token=token)
    return Settings(sandbox.account_id, token, base_url=sandbox.base_url, max_attempts=5)


def of_another_account(settings: Settings) -> Settings:
    return Settings(ANOTHER_ACCOUNT_ID, settings.secret, base_url=settings.base_url)


def play(story: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        return await asyncio.wait_for(story(), timeout=30)

    return asyncio.run(run())


def test_concurrent_polls_share_one_request(sandbox: Sandbox, settings: Settings):
    async def story() -> list[PollResult]:
        return await asyncio.gather(*(shared_poll(settings, balance, max_age=60) for _ in range(1000)))

    results = play(story)
    assert {result.value.balance_cents for result in results} == {sandbox.balance_cents()}
    assert len(sandbox.requests()) == 1


def test_latecomer_gets_a_fresh_enough_result(sandbox: Sandbox, settings: Settings):
    async def story() -> list[PollResult]:
        first = await shared_poll(settings, balance, max_age=60)
        fresh = await shared_poll(settings, balance, max_age=60)
        return [first, fresh, await shared_poll(settings, balance, max_age=0)]

    first, fresh, polled_again = play(story)
    assert fresh is first
    assert polled_again is not first
    assert len(sandbox.requests()) == 2


@pytest.mark.parametrize(
    "other",
    [
        lambda settings: (of_another_account(settings), balance),
        lambda settings: (settings, CfBillingClient.get_topup_config),
        lambda settings: (settings, CfBillingClient.get_invoice_history, "manual"),
    ],
    ids=["another account", "another query", "another query with arguments"],
)
def test_another_query_gets_its_own_result(
    sandbox: Sandbox, settings: Settings, other: Callable[[Settings], Any]
):
    async def story() -> tuple[PollResult, PollResult]:
        return await asyncio.gather(
            shared_poll(settings, balance, max_age=60), shared_poll(*other(settings), max_age=60)
        )

    one, another = play(story)
    assert one.error is another.error is None
    assert one.value is not another.value
    assert len(sandbox.requests()) == 2


def test_accounts_of_one_token_share_their_connections(settings: Settings):
    peers: list[Peer] = []

    def serve(peer: Peer) -> None:
        peers.append(peer)
        for _ in range(2):
            peer.request()
            peer.send(http(ok({"amount": 1, "threshold": 2, "currency": "usd"})))

    async def story() -> None:
        for account_id in (ACCOUNT_ID, ANOTHER_ACCOUNT_ID):
            account = Settings(account_id, settings.secret, base_url=server.url)
            result = await shared_poll(account, CfBillingClient.get_topup_config, max_age=60)
            assert result.error is None

    with RawServer(serve) as server:
        play(story)
    assert len(peers) == 1


def test_failure_is_shared_without_a_new_poll(sandbox: Sandbox, settings: Settings):
    sandbox.fault("getCreditBalance", "status", status=502, html=True)

    async def story() -> list[PollResult]:
        results = await asyncio.gather(*(shared_poll(settings, balance, max_age=60) for _ in range(10)))
        return [*results, await shared_poll(settings, balance, max_age=60)]

    results = play(story)
    assert {type(result.error) for result in results} == {CfBillingUnavailableError}
    assert len(sandbox.requests()) == 1


def test_rate_limit_pauses_all_and_fails_none(sandbox: Sandbox, settings: Settings):
    sandbox.fault("getCreditBalance", "status", status=429, headers={"retry-after": "2"})

    async def story() -> list[PollResult]:
        limited = await shared_poll(settings, balance, max_age=60)
        assert isinstance(limited.error, CfBillingRateLimitError)
        return await asyncio.gather(
            shared_poll(settings, balance, max_age=0),
            shared_poll(of_another_account(settings), balance, max_age=0),
        )

    results = play(story)
    assert [result.error for result in results] == [None, None]
    limited, *later = sandbox.requests()
    assert len(later) == 2
    assert all(request.at >= limited.at + 1.9 for request in later)


def test_others_get_the_result_when_the_first_leaves(sandbox: Sandbox, settings: Settings):
    async def story() -> PollResult:
        first = asyncio.create_task(shared_poll(settings, balance, max_age=60))
        second = asyncio.create_task(shared_poll(settings, balance, max_age=60))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert play(story).value.balance_cents == sandbox.balance_cents()
    assert len(sandbox.requests()) == 1


def test_slow_response_does_not_block_the_event_loop(settings: Settings):
    def hang(peer: Peer) -> None:
        peer.request()
        peer.hang()

    async def story() -> int:
        slow = Settings(ACCOUNT_ID, fresh_token(), base_url=server.url, read_timeout=0.5)
        reading = asyncio.create_task(shared_poll(slow, balance, max_age=60))
        ticks = 0
        while not reading.done():
            await asyncio.sleep(0.001)
            ticks += 1
        assert isinstance(reading.result().error, CfBillingUnavailableError)
        return ticks

    with RawServer(hang) as server:
        assert play(story) > 20


def test_result_that_is_no_longer_requested_is_forgotten(
    sandbox: Sandbox, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    async def story() -> int:
        await shared_poll(settings, balance, max_age=60)
        monkeypatch.setattr("airflow_provider_cfbilling.triggers.single_flight._KEPT_SECONDS", 0.0)
        await shared_poll(of_another_account(settings), balance, max_age=60)
        return len(single_flight()._calls)

    assert play(story) == 1


def rate(turns: Callable[[], float], virtual: VirtualTime, seconds: float) -> list[float]:
    """Return when polls come if one is always wanted."""
    polls = []
    while virtual.passed < seconds:
        wait = turns()
        polls.append(virtual.passed + wait)
        virtual.passed = max(virtual.passed, polls[-1])
    return polls


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    virtual = VirtualTime()
    monkeypatch.setattr(rate_limiter, "time", virtual)
    return virtual


def test_polls_stay_within_half_of_what_cloudflare_allows(virtual: VirtualTime):
    polls = rate(RateLimiter().reserve, virtual, seconds=1200)
    most = max(sum(start <= poll < start + 300 for poll in polls) for start in polls)
    assert 580 < most <= 600 + 21


@pytest.mark.parametrize("triggerers", [1, 2, 5])
@pytest.mark.parametrize("others_per_second", [0, 2])
def test_all_with_one_token_stay_within_the_limit(
    virtual: VirtualTime, triggerers: int, others_per_second: float
):
    """Each process knows of the others only what Cloudflare says is left."""
    budgets = [RateLimiter() for _ in range(triggerers)]
    next_at = [0.0] * triggerers
    used, most = 0.0, 0.0
    while virtual.passed < 290:
        virtual.passed += 0.05
        used += others_per_second * 0.05
        for number, limiter in enumerate(budgets):
            if virtual.passed < next_at[number]:
                continue
            used += 1
            left = max(0, 1200 - int(used))
            limiter.update_from_response(
                200, {"Ratelimit": f'"default";r={left};t={int(300 - virtual.passed)}'}
            )
            next_at[number] = virtual.passed + limiter.reserve()
        most = max(most, used)
    assert most <= 1200


def test_turn_comes_after_the_pause(virtual: VirtualTime):
    limiter = RateLimiter()
    limiter.update_from_response(429, {"Retry-After": "120"})
    assert limiter.reserve() == pytest.approx(120)


def test_low_quota_delays_only_until_its_renewal(virtual: VirtualTime):
    limiter = RateLimiter()
    limiter.update_from_response(200, {"Ratelimit": '"default";r=10;t=60'})
    turns = [limiter.reserve() for _ in range(1000)]
    assert turns == sorted(turns)
    assert len([turn for turn in turns if turn < 60]) <= 1
    assert turns[-1] == pytest.approx(60 + 1000 / 2, abs=2)


def test_some_polls_may_come_at_once(virtual: VirtualTime):
    limiter = RateLimiter()
    assert [limiter.reserve() for _ in range(20)] == [0.0] * 20
    assert limiter.reserve() > 0
