"""Faults to inject: what they are, and whose turn it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["reset", "drop", "hang", "status", "garbage", "slow", "redirect", "truncate", "clock"]
When = Literal["before", "after", "middle", "late"]

_MAX_CLOCK_ERROR = 1e9  # seconds, some 30 years: the date can still be written


@dataclass(frozen=True)
class Fault:
    """How one operation goes wrong.

    :param operation: an operationId of the contract, or ``*`` for any.
    :param kind: ``reset`` (the connection is reset), ``drop`` (closed without a response), ``hang`` (open,
        and never a response), ``status`` (an error instead of the response), ``garbage`` (2xx with another
        body), ``slow`` (the response trickles in byte by byte), ``redirect`` (3xx), ``truncate`` (the
        connection is closed before as many bytes came as ``Content-Length`` says), ``clock`` (performed,
        whatever ``when`` is, with its usual response, whose ``Date`` alone is wrong by ``seconds``).
    :param when: ``before``: the operation is not performed; ``after``: performed, then its response is
        spoiled; ``middle``: performed, and half of the response's body arrives before the reset, drop or
        hang; ``late``: performed ``seconds`` after the spoiled response, for a hang ``seconds`` after the
        client has gone. If nothing was performed, ``slow`` and ``truncate`` spoil an error page.
    :param times: how many requests it meets; None: every one, until the faults are removed.
    :param skip: how many requests pass unharmed before.
    :param seconds: of ``late``; of ``slow``: between two bytes; of ``clock``: how far its ``Date`` is ahead,
        negative: behind.
    :param status: the response's status: of ``status`` (default 502), ``redirect`` (302), ``garbage`` (200).
    :param html: ``status`` responds with the HTML page of Cloudflare's edge instead of a JSON envelope.
    :param headers: of the response of ``status``, ``garbage`` and ``redirect``; ``date`` and the like too.
    :param body: literal body of ``status`` and ``garbage``; by default ``garbage`` sends half an envelope.
    :param size: for ``garbage``: a body of that many bytes, instead of ``body``.
    :param location: of ``redirect``.
    :param part: what ``slow`` slows down: the ``head`` (and then the body at once) or the ``body``.
    """

    operation: str
    kind: Kind
    when: When = "before"
    times: int | None = 1
    skip: int = 0
    seconds: float = 0.0
    status: int | None = None
    html: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    size: int | None = None
    location: str = "https://redirected.invalid/"
    part: Literal["head", "body"] = "body"

    def __post_init__(self) -> None:
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError("status must be from 200 to 599")
        if (self.times is not None and self.times < 1) or self.skip < 0:
            raise ValueError("times must be at least 1 (or None), skip at least 0")
        if self.kind == "clock":
            if not 0 < abs(self.seconds) <= _MAX_CLOCK_ERROR:
                raise ValueError(f"seconds of 'clock' must not be 0, nor exceed {_MAX_CLOCK_ERROR:.0e}")
            return  # whatever `when` is
        if self.seconds < 0:
            raise ValueError("seconds must not be negative, except for 'clock'")
        if self.when == "middle" and self.kind not in ("reset", "drop", "hang"):
            raise ValueError(f"when='middle' is for reset, drop and hang, not for {self.kind!r}")
        if self.when == "late" and self.kind == "slow":
            raise ValueError("when='late' is not for 'slow', whose seconds are those between two bytes")


class FaultScript:
    """The faults to come. Those of one operation have their turn one after the other, in the order given."""

    def __init__(self) -> None:
        self._turns: list[_Turn] = []

    def add(self, fault: Fault) -> None:
        self._turns.append(_Turn(fault, fault.skip, fault.times))

    def clear(self) -> None:
        self._turns.clear()

    def pending(self) -> list[Fault]:
        """What has not been used up."""
        return [turn.fault for turn in self._turns]

    def take(self, operation: str) -> Fault | None:
        """The fault that meets the next request of an operation, None: it passes unharmed."""
        for turn in self._turns:
            if turn.fault.operation in (operation, "*"):
                return self._take(turn)
        return None

    def _take(self, turn: _Turn) -> Fault | None:
        if turn.skip > 0:
            turn.skip -= 1
            return None
        if turn.times is not None:
            turn.times -= 1
            if turn.times == 0:
                self._turns.remove(turn)
        return turn.fault


@dataclass(eq=False)
class _Turn:
    fault: Fault
    skip: int
    times: int | None
