"""What many workers and triggerers request of Cloudflare with one token, in virtual time.

The rate limiter of each process is the real one, and so is the sandbox's rate limit. Workers, triggerers and
the network are simulated: Airflow starts each try as a process, which knows no response of the others.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from requests.structures import CaseInsensitiveDict

from airflow_provider_cfbilling.api.http import rate_limiter
from airflow_provider_cfbilling.api.http.rate_limiter import RateLimiter
from airflow_provider_cfbilling.api.http.transport import READ_TOTAL_SECONDS
from airflow_provider_cfbilling.sandbox import auth
from airflow_provider_cfbilling.sandbox.auth import RequestQuota
from benchmarks.tables import markdown

QUOTA, WINDOW_SECONDS = 1_200, 300.0
# What Airflow and Cloudflare take; longer times would mean fewer requests.
START_SECONDS, REQUEST_SECONDS = 1.0, 0.2
SLOTS_PER_WORKER = 16
POLL_SECONDS = 30.0
RETRY_DELAY_SECONDS = 300.0
# Before the settlement is polled: balance, limits, history, top-up. Each poll of a pending one is two.
REQUESTS_TO_CHARGE, REQUESTS_WHILE_PENDING = 4, 2
_HOURS = 3 * 3600.0


@dataclass(frozen=True)
class Scene:
    """What uses the token.

    :param accounts: each is topped up once, all at the same time, and watched if there is an interval.
    :param pool: how many top-ups may be under way at once; None: as many as the workers have slots.
    :param settle_seconds: from a charge to its settlement.
    :param watch_seconds: interval of the sensor on each account; None: none is watched.
    """

    accounts: int
    workers: int = 2
    pool: int | None = None
    settle_seconds: float = 10.0
    triggerers: int = 2
    watch_seconds: float | None = None
    topup: bool = True

    @property
    def slots(self) -> int:
        slots = self.workers * SLOTS_PER_WORKER
        return slots if self.pool is None else min(slots, self.pool)


# Pools count deferred tasks too. The same at first with nothing else, then with what may come with it.
TOP_UPS = [
    *(Scene(accounts, workers=10) for accounts in (10, 100, 1_000)),
    *(Scene(accounts, workers=10, pool=8) for accounts in (10, 100, 1_000)),
    *(Scene(1_000, workers=workers, pool=8) for workers in (2, 100)),
    *(Scene(accounts, workers=10, pool=8, watch_seconds=600.0) for accounts in (10, 100, 1_000)),
    Scene(1_000, workers=10, pool=8, watch_seconds=300.0),
    *(Scene(1_000, workers=10, pool=pool, settle_seconds=0.0) for pool in (8, 1)),
]


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Cloudflare:
    """Counts the requests of one token."""

    clock: Clock
    requested_at: list[float] = field(default_factory=list)
    refused: int = 0

    def __post_init__(self) -> None:
        self._limiter = RequestQuota(QUOTA, WINDOW_SECONDS)

    def request(self, limiter: RateLimiter) -> bool:
        """Return whether a request is accepted; its process learns what the response says of the limit."""
        self.requested_at.append(self.clock.now)
        headers, refusal = self._limiter.count("token")
        if refusal is None:
            limiter.update_from_response(200, CaseInsensitiveDict(headers))
            return True
        self.refused += 1
        limiter.update_from_response(429, CaseInsensitiveDict({**headers, **refusal.headers}))
        return False

    def worst(self) -> int:
        """Return the most requests in any five minutes."""
        most, first = 0, 0
        for last, at in enumerate(self.requested_at):
            while self.requested_at[first] <= at - WINDOW_SECONDS:
                first += 1
            most = max(most, last - first + 1)
        return most


class Simulation:
    """One scene, played to the end of its top-ups, or of three hours."""

    def __init__(self, scene: Scene, clock: Clock) -> None:
        self._scene = scene
        self._clock = clock
        self.cloudflare = Cloudflare(clock)
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Iterator[float]]] = []
        self._to_topup = deque((0.0, account) for account in range(scene.accounts if scene.topup else 0))
        self.left = len(self._to_topup)
        self._triggerers = [RateLimiter() for _ in range(scene.triggerers)]
        self._settled_at: dict[int, float] = {}
        self.failed_tries = 0
        self.polls = 0
        self.done_at = 0.0

    def run(self) -> None:
        for _ in range(self._scene.slots if self._scene.topup else 0):
            self._start(self._slot())
        for account in range(self._scene.accounts if self._scene.watch_seconds else 0):
            self._start(self._watch(account))
        while self._due and (self.left or not self._scene.topup) and self._due[0][0] < _HOURS:
            self._clock.now, _, actor = heapq.heappop(self._due)
            seconds = next(actor, None)
            if seconds is not None:
                self._start(actor, seconds)

    def _start(self, actor: Iterator[float], seconds: float = 0.0) -> None:
        heapq.heappush(self._due, (self._clock.now + seconds, next(self._numbers), actor))

    def _slot(self) -> Iterator[float]:
        """Run tries, one after the other: a slot of a worker, or of the pool."""
        while self.left:
            if not self._to_topup or self._to_topup[0][0] > self._clock.now:
                yield START_SECONDS
                continue
            _, account = self._to_topup.popleft()
            if (yield from self._try(account)):
                self.left -= 1
                self.done_at = self._clock.now
            else:
                self.failed_tries += 1
                self._to_topup.append((self._clock.now + RETRY_DELAY_SECONDS, account))

    def _try(self, account: int) -> Iterator[float]:
        """Top up in a new process, or go on with what an earlier try has charged; defer while it is pending.

        Returns whether that ended well.
        """
        yield START_SECONDS
        limiter = RateLimiter()
        if account not in self._settled_at:
            if not (yield from self._act(limiter, REQUESTS_TO_CHARGE)):
                return False
            self._settled_at[account] = self._clock.now + self._scene.settle_seconds
        while self._settled_at[account] > self._clock.now:
            if not (yield from self._act(limiter, REQUESTS_WHILE_PENDING)):
                return False
            yield POLL_SECONDS
            yield from self._poll(self._triggerer(account))
            yield START_SECONDS
            limiter = RateLimiter()
        return (yield from self._act(limiter, 1))

    def _act(self, limiter: RateLimiter, requests: int) -> Iterator[float]:
        """Send requests as a task does: it waits for no turn, and fails if a pause would be too long."""
        for _ in range(requests):
            yield REQUEST_SECONDS
            while not self.cloudflare.request(limiter):
                pause = limiter.cooldown_remaining()
                if pause > READ_TOTAL_SECONDS:
                    return False
                yield pause
        return True

    def _watch(self, account: int) -> Iterator[float]:
        """Poll an account as a trigger does."""
        assert self._scene.watch_seconds
        yield self._scene.watch_seconds * account / self._scene.accounts
        while True:
            polled_at = self._clock.now
            yield from self._poll(self._triggerer(account))
            self.polls += 1
            yield max(0.0, polled_at + self._scene.watch_seconds - self._clock.now)

    def _poll(self, limiter: RateLimiter) -> Iterator[float]:
        """Wait for a turn and send a request, as a triggerer does, until one is accepted."""
        accepted = False
        while not accepted:
            yield limiter.reserve()
            while limiter.cooldown_remaining() > 0:
                yield limiter.reserve()
            yield REQUEST_SECONDS
            accepted = self.cloudflare.request(limiter)

    def _triggerer(self, account: int) -> RateLimiter:
        return self._triggerers[account % len(self._triggerers)]


@contextmanager
def virtual_time() -> Iterator[Clock]:
    """Run the rate limiter and the rate limit on a virtual clock."""
    clock, real = Clock(), rate_limiter.time
    rate_limiter.time = auth.time = clock  # type: ignore[assignment]
    try:
        yield clock
    finally:
        rate_limiter.time = auth.time = real


def played(scene: Scene) -> Simulation:
    with virtual_time() as clock:
        simulation = Simulation(scene, clock)
        simulation.run()
        return simulation


def table() -> str:
    return "\n".join([_table_of_topups(), _table_of_waits()])


def _table_of_topups() -> str:
    rows = []
    for scene in TOP_UPS:
        simulation = played(scene)
        rows.append(
            (
                f"{scene.accounts:,}",
                scene.workers,
                scene.pool or "none",
                f"{scene.settle_seconds:g}",
                f"{scene.watch_seconds:g}" if scene.watch_seconds else "none",
                f"{simulation.cloudflare.worst():,}",
                f"{simulation.cloudflare.refused:,}",
                f"{simulation.failed_tries:,}",
                f"over {_HOURS / 60:.0f}" if simulation.left else f"{simulation.done_at / 60:.0f}",
            )
        )
    header = ("accounts", "workers", "pool", "settles after (s)", "watched every (s)")
    header += ("requests in the worst 5 min", "refused", "failed tries", "all done (min)")
    return markdown("Top-ups of all accounts at once", header, rows)


def _table_of_waits() -> str:
    rows = []
    for accounts, triggerers in itertools.product((10, 100, 1_000), (1, 2, 4)):
        scene = Scene(accounts, triggerers=triggerers, watch_seconds=60.0, topup=False)
        simulation = played(scene)
        worst, refused = simulation.cloudflare.worst(), simulation.cloudflare.refused
        interval = _HOURS * accounts / simulation.polls
        rows.append((f"{accounts:,}", triggerers, f"{worst:,}", f"{refused:,}", f"{interval:.0f}"))
    header = ("accounts", "triggerers", "requests in the worst 5 min", "refused", "interval it becomes (s)")
    return markdown("A sensor on each account, every 60 seconds", header, rows)
