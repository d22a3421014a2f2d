"""The write-ahead record of a top-up, so that the next try knows what was done.

``started`` -> ``intent`` (before the charge is sent) -> ``accepted`` -> ``completed`` (paid), and
``not_charged`` (proven). What is stored is written out field by field: changing a name needs a migration.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, get_args

from airflow_provider_cfbilling.api.money import cents_and_dollars

State = Literal["started", "intent", "accepted", "completed", "not_charged"]


@dataclass(frozen=True)
class ChargeIntent:
    """A charge that is about to be sent.

    :param amount_cents: what is charged. None: any amount may have been, by an earlier try whose record is
        gone and that was to come up to a target balance.
    :param at: when, in Unix seconds of Cloudflare's clock.
    :param written_at: when, in Unix seconds of the worker's clock.
    :param known_invoices: ids of invoices from about that time on that existed before.
    :param write_delay_seconds: at most how many seconds after ``at`` it was written.
    """

    account_id: str
    amount_cents: int | None
    at: float
    written_at: float
    known_invoices: tuple[str, ...] = ()
    write_delay_seconds: float = 0.0

    @property
    def amount(self) -> str:
        """What is charged, in words."""
        return cents_and_dollars(self.amount_cents) if self.amount_cents else "an amount that is not recorded"

    @property
    def durable_by(self) -> float:
        """From when on it was certainly written, in Unix seconds of Cloudflare's clock."""
        return self.at + self.write_delay_seconds

    @property
    def not_before(self) -> float:
        """The charge's invoice cannot be older than this. One of the two clocks may be ahead of the truth."""
        return min(self.at, self.written_at)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ChargeIntent:
        _refuse_unknown(cls, value)
        return cls(
            account_id=value["account_id"],
            amount_cents=value["amount_cents"],
            at=value["at"],
            written_at=value["written_at"],
            known_invoices=tuple(value["known_invoices"]),
            write_delay_seconds=value["write_delay_seconds"],
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "account_id": self.account_id,
            "amount_cents": self.amount_cents,
            "at": self.at,
            "written_at": self.written_at,
            "known_invoices": list(self.known_invoices),
            "write_delay_seconds": self.write_delay_seconds,
        }


@dataclass(frozen=True)
class Record:
    """All that is known of one top-up.

    :param intent: the latest intent.
    :param lost_intent: the first one whose charge was given up for lost: it may still appear. Or that of a
        declined card, whose invoice may be paid once the card works.
    :param lost_until: it is no younger than this, in Unix seconds of Cloudflare's clock.
    :param cleared: of ``started``: a user had cleared the task, and with it perhaps the records of earlier
        tries.
    :param charge_requests: how often a charge was sent, or is about to be.
    :param denied: Cloudflare has denied a charge: an invoice that is dead is what it left behind.
    :param topup: what Cloudflare said of the top-up it accepted: id, card.
    """

    state: State
    intent: ChargeIntent | None = None
    lost_intent: ChargeIntent | None = None
    lost_until: float | None = None
    cleared: bool = False
    charge_requests: int = 0
    denied: bool = False
    topup: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Record:
        if value["state"] not in get_args(State):  # of a later release: what it allows is not known
            raise ValueError(
                f"the record's state is {value['state']!r:.60}, which this release does not know"
            )
        _refuse_unknown(cls, value)
        intent, lost_intent = value["intent"], value["lost_intent"]
        return cls(
            state=value["state"],
            intent=ChargeIntent.from_json(intent) if intent else None,
            lost_intent=ChargeIntent.from_json(lost_intent) if lost_intent else None,
            lost_until=value["lost_until"],
            cleared=value["cleared"],
            charge_requests=value["charge_requests"],
            denied=value["denied"],
            topup=value["topup"],
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "intent": self.intent.to_json() if self.intent else None,
            "lost_intent": self.lost_intent.to_json() if self.lost_intent else None,
            "lost_until": self.lost_until,
            "cleared": self.cleared,
            "charge_requests": self.charge_requests,
            "denied": self.denied,
            "topup": self.topup,
        }


def _refuse_unknown(kind: type[Record | ChargeIntent], value: dict[str, Any]) -> None:
    unknown = set(value) - {field.name for field in fields(kind)}
    if unknown:  # of a later release: what it means is not known
        raise ValueError(
            f"the record holds {', '.join(sorted(unknown))!r:.60}, which this release does not know"
        )


class Journal(Protocol):
    """Where the record of one task of one Dag run is kept. Every method may raise any exception.

    :ivar is_fenced: the write of a try is refused once a later one has begun.
    """

    is_fenced: bool

    def begin(self, started: Record, takeover_seconds: float) -> Record:
        """Claim the top-up for this try, and return the record from which it goes on.

        That is ``started`` itself if there is none of earlier tries.

        :param takeover_seconds: after so long no earlier try can send any more what it has not recorded.
        """

    def write(self, record: Record) -> None:
        """Keep ``record``. When this returns, it is durable, and no later try had begun before.

        :raises SupersededError: a later try has begun: this one must not send anything. Or another exception.
        """

    def forget(self) -> None:
        """Remove what is kept, now that the task has succeeded or that nothing was sent."""
