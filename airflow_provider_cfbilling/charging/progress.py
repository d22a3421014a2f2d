"""How far one try of a top-up has come: plain JSON, so that another process can go on with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.charging.journal import Intent, Record
from airflow_provider_cfbilling.charging.reconcile import look_for
from airflow_provider_cfbilling.charging.settlement import is_settled


@dataclass(frozen=True)
class Progress:
    """How far one try has come.

    :param record: what the journal says, or ought to say.
    :param outcome: ``charged``, ``adopted``, ``resumed`` or ``already_completed``, once there is a top-up.
    :param began_at: only where nothing is known of earlier tries: when the Dag run began, in Unix seconds of
        this machine's clock. Any charge since then may be an earlier try's.
    :param window_ends_at: until when a lost charge is looked for, in Unix seconds of Cloudflare's clock.
    :param give_up_at: until when the settlement is waited for, in Unix seconds.
    :param reposts: how often this try has charged anew after a charge that proved not to have been made.
    :param idle: nothing new was seen: look again later.
    """

    record: Record
    outcome: str | None = None
    began_at: float | None = None
    window_ends_at: float | None = None
    give_up_at: float | None = None
    reposts: int = 0
    idle: bool = False

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Progress:
        return cls(**{**value, "record": Record.from_json(value["record"])})

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "record": self.record.to_json()}


def pause(progress: Progress, poll_interval: float) -> float:
    """Return how many seconds to wait before the next step: no longer than until a deadline."""
    ends = [end for end in (progress.window_ends_at, progress.give_up_at) if end is not None]
    # A deadline by Cloudflare's clock may be past by ours; that is no reason to ask without a pause.
    least = min(poll_interval, 1.0)
    return min([poll_interval, *(max(least, end - time.time()) for end in ends)])


def question(progress: Progress) -> tuple[Callable[..., bool], *tuple[Hashable, ...]]:
    """Return what tells whether the next step would now do more than wait, deadlines aside.

    A function that reads with a client of the account that :func:`account_of` names, and its further
    arguments. It raises a ``CfBillingError`` where it could not see, or the payment has failed.
    """
    if progress.record.state == "submitted":
        return is_settled, topup_of(progress.record)["payment_intent_id"]
    return _can_go_on, progress


def is_given_up(progress: Progress) -> bool:
    """Tell whether the settlement has been waited for long enough."""
    return progress.give_up_at is not None and time.time() >= progress.give_up_at


def _can_go_on(client: CfBillingClient, progress: Progress) -> bool:
    if progress.began_at is not None:
        client.get_invoice_history("manual")
        return True
    sighting = look_for(client, intent_of(progress.record))
    return bool(sighting.matches) or sighting.at >= (progress.window_ends_at or 0)


def account_of(progress: Progress) -> str | None:
    """Return the account that was charged, or None where that is the task's."""
    return progress.record.intent.account_id if progress.record.intent else None


def intent_of(record: Record) -> Intent:
    """Return the intent of a record that has come so far as to have one."""
    if record.intent is None:
        raise ValueError(f"a top-up that is {record.state} has no intent")
    return record.intent


def topup_of(record: Record) -> dict[str, Any]:
    """Return what is known of the top-up that Cloudflare accepted."""
    if record.topup is None:
        raise ValueError(f"a top-up that is {record.state} has no id")
    return record.topup
