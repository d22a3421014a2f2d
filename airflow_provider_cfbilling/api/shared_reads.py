"""Reads for those who wait: all of one event loop who ask the same of the same account share one request.

Requests are made in threads, in the turns that the credentials' rate budget gives them, so that no number of
waits can use up what Cloudflare allows. A 429 makes all of them pause, and fails none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.rate_budget import RateBudget, rate_budget_of
from airflow_provider_cfbilling.api.settings import Settings
from airflow_provider_cfbilling.api.transport import Transport

_THREADS = 8
_ANY_ACCOUNT = "0" * 32
# So many are woken in one go: the event loop serves others in between.
_WOKEN_AT_ONCE = 50
# How long an answer nobody asks for any more is remembered.
_KEPT_SECONDS = 600.0


@dataclass(frozen=True)
class Outcome:
    """What a read has come to.

    :param at: when, in monotonic seconds.
    :param value: what was answered.
    :param error: why there was no answer. Not raised here: many look at the same one.
    """

    at: float
    value: Any = None
    error: Exception | None = None

    @property
    def age(self) -> float:
        return time.monotonic() - self.at


class SharedReads:
    """The reads of one event loop; :func:`shared_reads` returns those of the running one."""

    def __init__(self) -> None:
        self._reads: dict[tuple[Any, ...], _Read] = {}
        self._transports: WeakValueDictionary[Settings, Transport] = WeakValueDictionary()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cfbilling-reads")

    async def read(
        self, settings: Settings, ask: Callable[..., Any], *arguments: Any, max_age: float
    ) -> Outcome:
        """Return what ``ask(client, *arguments)`` has come to, not longer than ``max_age`` seconds ago.

        Waits for as long as Cloudflare asks to pause.

        :param ask: reads, with a client of the account. Together with ``arguments`` it says what is asked, so
            both must be hashable.
        """
        key = (settings, ask, *arguments)
        read = self._reads.get(key)
        if read is None:
            self._forget()
            budget = rate_budget_of(settings.base_url, settings.secret)
            read = _Read(self._threads, budget, partial(ask, self._client(settings), *arguments))
            self._reads[key] = read
        return await read.outcome(max_age)

    def _client(self, settings: Settings) -> CfBillingClient:
        """Return a client that shares its connections with those of other accounts."""
        # Who waits asks again anyway; and a thread that sleeps between two attempts serves nobody.
        settings = replace(settings, max_attempts=1)
        of_any_account = replace(settings, account_id=_ANY_ACCOUNT)
        transport = self._transports.setdefault(of_any_account, Transport(of_any_account))
        return CfBillingClient(settings, transport)

    def _forget(self) -> None:
        for key, read in list(self._reads.items()):
            if read.is_stale():
                del self._reads[key]


class _Read:
    """One question, and all who wait for its answer."""

    def __init__(self, threads: ThreadPoolExecutor, budget: RateBudget, look: Callable[[], Any]) -> None:
        self._threads, self._budget, self._look = threads, budget, look
        self._latest: Outcome | None = None
        self._waiting: list[asyncio.Future[Outcome]] = []
        self._task: asyncio.Task[None] | None = None

    def is_stale(self) -> bool:
        """Tell whether nobody waits for it, and nobody has for long."""
        return self._task is None and self._latest is not None and self._latest.age > _KEPT_SECONDS

    async def outcome(self, max_age: float) -> Outcome:
        if self._latest and self._latest.age < max_age:
            return self._latest
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        # A task of its own: who asked first may be cancelled while others wait.
        self._task = self._task or asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        await asyncio.sleep(self._budget.turn())
        while self._budget.pause_left() > 0:  # somebody else was told to pause in the meantime
            await asyncio.sleep(self._budget.turn())
        outcome = await self._outcome_of_a_look()
        woken, self._waiting, self._latest, self._task = self._waiting, [], outcome, None
        for number, future in enumerate(woken, 1):
            if not future.done():
                future.set_result(outcome)
            if number % _WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _outcome_of_a_look(self) -> Outcome:
        loop = asyncio.get_running_loop()
        try:
            value = await loop.run_in_executor(self._threads, self._look)
        except Exception as error:
            return Outcome(time.monotonic(), error=error)
        return Outcome(time.monotonic(), value)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedReads] = WeakKeyDictionary()


def shared_reads() -> SharedReads:
    """Return the reads that all of the running event loop share."""
    loop = asyncio.get_running_loop()
    if loop not in _of_loops:
        _of_loops[loop] = SharedReads()
    return _of_loops[loop]
