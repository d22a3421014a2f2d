"""What is written down about a top-up, so that whoever runs the task next knows what was done.

``started`` -> ``intent`` (before the charge is sent) -> ``submitted`` (accepted) -> ``completed`` (paid), and
``not_charged`` (proven).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

State = Literal["started", "intent", "submitted", "completed", "not_charged"]


@dataclass(frozen=True)
class Intent:
    """A charge that is about to be sent.

    :param at: when, in Unix seconds of Cloudflare's clock.
    :param known_invoices: ids of invoices from about that time on that were there before.
    :param late_by: at most how many seconds after ``at`` it was written down.
    """

    account_id: str
    amount_cents: int
    at: float
    known_invoices: tuple[str, ...] = ()
    late_by: float = 0.0

    @property
    def latest_at(self) -> float:
        """From when on it was certainly written down."""
        return self.at + self.late_by

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Intent:
        return cls(**{**value, "known_invoices": tuple(value.get("known_invoices", ()))})

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "known_invoices": list(self.known_invoices)}


@dataclass(frozen=True)
class Record:
    """All that is known of one top-up.

    :param intent: the latest intent.
    :param first_intent: the first one: a charge that comes to light late is younger than this.
    :param posts: how often a charge was sent, or is about to be.
    :param topup: what Cloudflare said of the top-up it accepted: id, card.
    """

    state: State
    intent: Intent | None = None
    first_intent: Intent | None = None
    posts: int = 0
    topup: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Record:
        if value["state"] not in get_args(State):  # of a later release: what it allows is not known
            raise ValueError(f"the journal says {value['state']!r:.60}, which is not known here")
        intents = {
            name: Intent.from_json(value[name]) if value.get(name) else None
            for name in ("intent", "first_intent")
        }
        return cls(**{**value, **intents})

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "intent": self.intent.to_json() if self.intent else None,
            "first_intent": self.first_intent.to_json() if self.first_intent else None,
        }


class Journal(Protocol):
    """Where the record of one task of one Dag run is kept. Both methods may raise whatever they like."""

    def read(self) -> Record | None:
        """Return the latest record, or None where there is none, or no place to keep one."""

    def write(self, record: Record) -> None:
        """Keep ``record``. When this returns, it is safe."""


class NoJournal:
    """Where nothing can be kept: then only Cloudflare's invoice history tells what was done."""

    def read(self) -> Record | None:
        return None

    def write(self, record: Record) -> None:
        pass
