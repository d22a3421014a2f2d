"""Calls that all who want the same share: one is made in an event loop, however many wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

_THREADS = 8
# So many are woken in one go: the event loop serves others in between.
_WOKEN_AT_ONCE = 50
# How long the outcome of a call that nobody makes any more is remembered.
_KEPT_SECONDS = 600.0


@dataclass(frozen=True)
class Outcome:
    """What a call has come to.

    :param at: when, in monotonic seconds.
    :param value: what it returned.
    :param error: what it raised. Not raised here: many look at the same one.
    """

    at: float
    value: Any = None
    error: Exception | None = None

    @property
    def age(self) -> float:
        return time.monotonic() - self.at


class Shared:
    """The calls of one event loop; :func:`shared` returns those of the running one."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, _Call] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cfbilling")

    async def outcome(self, key: Hashable, call: Callable[[], Awaitable[Any]], *, max_age: float) -> Outcome:
        """Return what the call that ``key`` names has come to, not longer than ``max_age`` seconds ago."""
        if key not in self._calls:
            self._forget()
            self._calls[key] = _Call()
        return await self._calls[key].outcome(call, max_age)

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
        self._latest: Outcome | None = None
        self._waiting: list[asyncio.Future[Outcome]] = []
        self._task: asyncio.Task[None] | None = None

    def is_stale(self) -> bool:
        """Tell whether nobody waits for it, and nobody has for long."""
        return self._task is None and self._latest is not None and self._latest.age > _KEPT_SECONDS

    async def outcome(self, call: Callable[[], Awaitable[Any]], max_age: float) -> Outcome:
        if self._latest and self._latest.age < max_age:
            return self._latest
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        # A task of its own: who asked first may be cancelled while others wait.
        self._task = self._task or asyncio.create_task(self._run(call))
        return await future

    async def _run(self, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            value = await call()
            outcome = Outcome(time.monotonic(), value)
        except Exception as error:
            outcome = Outcome(time.monotonic(), error=error)
        woken, self._waiting, self._latest, self._task = self._waiting, [], outcome, None
        for number, future in enumerate(woken, 1):
            if not future.done():
                future.set_result(outcome)
            if number % _WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Shared] = WeakKeyDictionary()


def shared() -> Shared:
    """Return what all of the running event loop share."""
    loop = asyncio.get_running_loop()
    if loop not in _of_loops:
        _of_loops[loop] = Shared()
    return _of_loops[loop]
