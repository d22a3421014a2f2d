"""Polls that all who want the same share: one is made in an event loop, however many wait for it.

Requests are made in threads, in the turns that the credentials' rate limit gives them, so that no number of
waits can use up what Cloudflare allows. A 429 makes all of them pause, and fails none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from airflow_provider_cfbilling.api.client import CfBillingClient
    from airflow_provider_cfbilling.api.http.transport import Transport
    from airflow_provider_cfbilling.api.settings import Settings

_THREADS = 8
# So many are woken in one go: the event loop serves others in between.
_WOKEN_AT_ONCE = 50
# How long the result of a call that is no longer made is kept.
_KEPT_SECONDS = 600.0
_ANY_ACCOUNT = "0" * 32


@dataclass(frozen=True)
class PollResult:
    """What a call has come to.

    :param at: when, in monotonic seconds.
    :param value: what it returned.
    :param error: what it raised. Not raised here: many share the same one.
    """

    at: float
    value: Any = None
    error: Exception | None = None

    @property
    def age(self) -> float:
        return time.monotonic() - self.at


@dataclass(frozen=True)
class Combined:
    """A query of several polls, each of which is shared with those who want only that one.

    :param combine: makes one value of what the parts have read.
    """

    parts: tuple[Callable[[CfBillingClient], Any], ...]
    combine: Callable[..., Any]

    def __call__(self, client: CfBillingClient) -> Any:
        return self.combine(*(part(client) for part in self.parts))


class SingleFlight:
    """The calls of one event loop; :func:`single_flight` returns those of the running one."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, _Call] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cfbilling")

    async def result(
        self, key: Hashable, call: Callable[[], Awaitable[Any]], *, max_age: float
    ) -> PollResult:
        """Return what the call that ``key`` names has come to, not longer than ``max_age`` seconds ago."""
        if key not in self._calls:
            self._forget()
            self._calls[key] = _Call()
        return await self._calls[key].result(call, max_age)

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what blocks."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    def _forget(self) -> None:
        for key, call in list(self._calls.items()):
            if call.is_stale():
                del self._calls[key]


class _Call:
    """One call, and all who wait for it."""

    def __init__(self) -> None:
        self._latest: PollResult | None = None
        self._waiting: list[asyncio.Future[PollResult]] = []
        self._task: asyncio.Task[None] | None = None

    def is_stale(self) -> bool:
        """Return whether no wait uses it, and none has for long."""
        return self._task is None and self._latest is not None and self._latest.age > _KEPT_SECONDS

    async def result(self, call: Callable[[], Awaitable[Any]], max_age: float) -> PollResult:
        if self._latest and self._latest.age < max_age:
            return self._latest
        future: asyncio.Future[PollResult] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        # A task of its own: the one that called first may be cancelled while others wait.
        self._task = self._task or asyncio.create_task(self._run(call))
        return await future

    async def _run(self, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            value = await call()
            result = PollResult(time.monotonic(), value)
        except Exception as error:
            result = PollResult(time.monotonic(), error=error)
        woken, self._waiting, self._latest, self._task = self._waiting, [], result, None
        for number, future in enumerate(woken, 1):
            if not future.done():
                future.set_result(result)
            if number % _WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, SingleFlight] = WeakKeyDictionary()


def single_flight() -> SingleFlight:
    """Return what all of the running event loop share."""
    loop = asyncio.get_running_loop()
    if loop not in _of_loops:
        _of_loops[loop] = SingleFlight()
    return _of_loops[loop]


async def shared_poll(
    settings: Settings, query: Callable[..., Any], *arguments: Hashable, max_age: float
) -> PollResult:
    """Return what ``query(client, *arguments)`` has come to, not longer than ``max_age`` seconds ago.

    Waits for as long as Cloudflare requests a pause.

    :param query: reads, with a client of the account. Together with ``arguments`` it names what is read.
    """
    if isinstance(query, Combined):
        polls = (shared_poll(settings, part, max_age=max_age) for part in query.parts)
        results = await asyncio.gather(*polls)
        if failed := next((result for result in results if result.error), None):
            return failed
        oldest = min(result.at for result in results)
        return PollResult(oldest, query.combine(*(result.value for result in results)))
    key = (settings, query, *arguments)
    call = partial(_rate_limited_read, settings, query, *arguments)
    return await single_flight().result(key, call, max_age=max_age)


async def _rate_limited_read(settings: Settings, query: Callable[..., Any], *arguments: Hashable) -> Any:
    from airflow_provider_cfbilling.api.client import CfBillingClient
    from airflow_provider_cfbilling.api.http.rate_limiter import rate_limiter_of

    limiter = rate_limiter_of(settings.base_url, settings.secret)
    await asyncio.sleep(limiter.reserve())
    while limiter.cooldown_remaining() > 0:  # another poll got a pause in the meantime
        await asyncio.sleep(limiter.reserve())
    # A wait polls again anyway; and a thread that sleeps between two attempts serves no other poll.
    settings = replace(settings, max_attempts=1)
    flight = single_flight()
    transport = await flight.in_thread(_transport, replace(settings, account_id=_ANY_ACCOUNT))
    return await flight.in_thread(query, CfBillingClient(settings, transport), *arguments)


@lru_cache(maxsize=64)
def _transport(settings: Settings) -> Transport:
    """Return the connections that all accounts of the same credentials share."""
    from airflow_provider_cfbilling.api.http.transport import Transport

    return Transport(settings)
