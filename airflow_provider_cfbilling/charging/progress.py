"""How far one try of a top-up has come: plain JSON, so that another process can resume it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.charging.journal import ChargeIntent, Record
from airflow_provider_cfbilling.charging.reconcile import find_candidate_invoices
from airflow_provider_cfbilling.charging.settlement import is_settled

# For so long after the search should have ended, Cloudflare's clock may stand still.
STANDING_SECONDS = 60.0

Phase = Literal["lookback", "charge", "reconcile", "settle", "done"]


@dataclass(frozen=True)
class Progress:
    """How far one try has come.

    :param record: what the journal says, or ought to say.
    :param phase: what comes next: ``lookback`` (there is no record, and earlier tries may have charged),
        ``charge``, ``reconcile`` (find out what became of a charge), ``settle`` (wait for the payment) or
        ``done``.
    :param outcome: ``charged``, ``adopted``, ``resumed`` or ``already_completed``, once there is a top-up.
    :param lookback_from: of ``lookback``: when the Dag run began, in Unix seconds of this machine's clock.
        Any charge since then may be an earlier try's.
    :param reconcile_deadline: until when a lost charge is searched for, in Unix seconds by Cloudflare's
        clock.
    :param reconcile_deadline_here: the same, by the workers' clocks. Both must have passed.
    :param seen_at: the latest time by Cloudflare's clock that a search has seen, in Unix seconds.
    :param seen_here: when that was, by the workers' clocks.
    :param settlement_deadline: until when the settlement is waited for, in Unix seconds.
    :param not_found_deadline: until when Cloudflare may not know the accepted top-up, in Unix seconds.
    :param recharges: how often this try has charged again after a charge that proved not to have been made.
    :param should_wait: nothing new was seen: poll again later.
    """

    record: Record
    phase: Phase
    outcome: str | None = None
    lookback_from: float | None = None
    reconcile_deadline: float | None = None
    reconcile_deadline_here: float | None = None
    seen_at: float | None = None
    seen_here: float | None = None
    settlement_deadline: float | None = None
    not_found_deadline: float | None = None
    recharges: int = 0
    should_wait: bool = False

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Progress:
        return cls(
            record=Record.from_json(value["record"]),
            phase=value["phase"],
            outcome=value["outcome"],
            lookback_from=value["lookback_from"],
            reconcile_deadline=value["reconcile_deadline"],
            reconcile_deadline_here=value["reconcile_deadline_here"],
            seen_at=value["seen_at"],
            seen_here=value["seen_here"],
            settlement_deadline=value["settlement_deadline"],
            not_found_deadline=value["not_found_deadline"],
            recharges=value["recharges"],
            should_wait=value["should_wait"],
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "record": self.record.to_json(),
            "phase": self.phase,
            "outcome": self.outcome,
            "lookback_from": self.lookback_from,
            "reconcile_deadline": self.reconcile_deadline,
            "reconcile_deadline_here": self.reconcile_deadline_here,
            "seen_at": self.seen_at,
            "seen_here": self.seen_here,
            "settlement_deadline": self.settlement_deadline,
            "not_found_deadline": self.not_found_deadline,
            "recharges": self.recharges,
            "should_wait": self.should_wait,
        }

    @property
    def account_id(self) -> str | None:
        """The account that was charged, or None if that is the task's."""
        return self.record.intent.account_id if self.record.intent else None

    @property
    def is_settlement_overdue(self) -> bool:
        return self.settlement_deadline is not None and time.time() >= self.settlement_deadline

    @property
    def is_overdue(self) -> bool:
        """Whether the task has to decide, though nothing can be read."""
        deadline = self.settlement_deadline if self.phase == "settle" else self.reconcile_deadline_here
        return deadline is not None and time.time() >= deadline

    @property
    def may_be_unknown_yet(self) -> bool:
        """Whether Cloudflare may not know the accepted top-up everywhere yet."""
        return self.not_found_deadline is not None and time.time() < self.not_found_deadline

    def seconds_until_next_poll(self, poll_interval: float) -> float:
        """Return how many seconds to wait before the next step: no longer than until a deadline."""
        deadlines = (self.reconcile_deadline, self.reconcile_deadline_here, self.settlement_deadline)
        # A deadline by Cloudflare's clock may be past by ours; that is no reason to poll without a pause.
        least = min(poll_interval, 1.0)
        ends = [max(least, end - time.time()) for end in deadlines if end is not None and end > time.time()]
        return min([poll_interval, *ends])

    def poll_query(self) -> tuple[Callable[..., bool], *tuple[Hashable, ...]]:
        """Return what says whether the next step would now do more than wait, deadlines aside.

        A function that reads with a client of :attr:`account_id`, and its further arguments. It raises a
        ``CfBillingError`` if it could not read, or if the payment has failed.
        """
        if self.phase == "settle":
            return is_settled, topup_of(self.record)["payment_intent_id"]
        return _has_news, self


def _has_news(client: CfBillingClient, progress: Progress) -> bool:
    if progress.phase == "lookback":
        client.get_invoice_history("manual")
        return True
    found = find_candidate_invoices(client, intent_of(progress.record))
    is_over = is_search_over(progress, found.at) or is_time_standing(progress, found.at)
    return bool(found.living_candidates) or is_over


def is_search_over(progress: Progress, at: float) -> bool:
    """Return whether a lost charge has been searched for long enough.

    :param at: the time by Cloudflare's clock, in Unix seconds.
    """
    by_cloudflare = at >= (progress.reconcile_deadline or 0)
    return by_cloudflare and time.time() >= (progress.reconcile_deadline_here or 0)


def is_time_standing(progress: Progress, at: float) -> bool:
    """Return whether Cloudflare's clock seems to stand still, long after the search should have ended.

    Its responses come from a cache, say. Without this the search would never end.

    :param at: the time by Cloudflare's clock, in Unix seconds.
    """
    if progress.seen_at is None or progress.seen_here is None or at > progress.seen_at:
        return False
    return time.time() > max(progress.reconcile_deadline_here or 0, progress.seen_here) + STANDING_SECONDS


def intent_of(record: Record) -> ChargeIntent:
    """Return the intent of a record that has come so far as to have one."""
    if record.intent is None:
        raise ValueError(f"a top-up that is {record.state} has no intent")
    return record.intent


def topup_of(record: Record) -> dict[str, Any]:
    """Return what is recorded of the top-up that Cloudflare accepted."""
    if record.topup is None:
        raise ValueError(f"a top-up that is {record.state} has no id")
    return record.topup
