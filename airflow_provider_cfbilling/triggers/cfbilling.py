"""Triggers: wait without a worker, and start Dags. They only read; none of them ever charges."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers import base as airflow_triggers
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_cfbilling import validation
from airflow_provider_cfbilling.api.errors import CfBillingError, CfBillingNotFoundError
from airflow_provider_cfbilling.api.money import cents_and_dollars
from airflow_provider_cfbilling.errors import AFTER_KILL, described_error
from airflow_provider_cfbilling.polling import Outage
from airflow_provider_cfbilling.triggers.base import (
    CfBillingBaseTrigger,
    CfBillingWaitTrigger,
    Query,
)
from airflow_provider_cfbilling.triggers.single_flight import Combined

if TYPE_CHECKING:
    from airflow.triggers.base import BaseEventTrigger

    from airflow_provider_cfbilling.api.client import CfBillingClient
    from airflow_provider_cfbilling.api.models import CreditBalance
    from airflow_provider_cfbilling.charging.progress import Progress
    from airflow_provider_cfbilling.forecast import Runway, Spending
else:
    BaseEventTrigger = getattr(airflow_triggers, "BaseEventTrigger", BaseTrigger)  # Airflow 3.0 and later

_AFTER_AN_ERROR_SECONDS = 30.0
_RUNWAY_HYSTERESIS = 1.1


class CfBillingTopupConfigErrorTrigger(CfBillingWaitTrigger):
    """Fire when the automatic top-up is broken, or is not broken any more.

    :param wait_for: ``error`` or ``cleared``.
    :param since: ISO 8601 text with a time zone; failures older than this do not count.
    """

    def __init__(
        self,
        cfbilling_conn_id: str,
        account_id: str | None,
        poll_interval: float,
        wait_for: Literal["error", "cleared"],
        since: str | None,
        ends_task: bool = False,
    ) -> None:
        super().__init__(cfbilling_conn_id, account_id, poll_interval, ends_task)
        self.wait_for = wait_for
        self.since = since

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "wait_for": self.wait_for, "since": self.since}

    def validate(self) -> None:
        since = self._since()
        self.since = since.isoformat() if since else None

    def query(self) -> Query:
        # The balance response holds the configuration too: one request serves all who watch the account.
        return (_get_credit_balance,)

    def evaluate(self, value: CreditBalance) -> dict[str, Any] | None:
        config = value.topup_config
        return config.to_dict() if config.is_broken(self._since()) == (self.wait_for == "error") else None

    def describe(self, value: CreditBalance) -> str:
        return f"The automatic top-up is {value.topup_config.state}."

    def _since(self) -> datetime | None:
        return validation.timestamp("since", self.since)


class CfBillingCreditBalanceTrigger(CfBillingWaitTrigger):
    """Fire when the credit balance is below a line, or has come up to one.

    :param below_cents: fire when it is lower than this; a number, or its text as a template renders it.
    :param at_least_cents: fire when it is this or more.
    """

    def __init__(
        self,
        cfbilling_conn_id: str,
        account_id: str | None,
        poll_interval: float,
        below_cents: Any,
        at_least_cents: Any,
        ends_task: bool = False,
    ) -> None:
        super().__init__(cfbilling_conn_id, account_id, poll_interval, ends_task)
        self.below_cents = below_cents
        self.at_least_cents = at_least_cents

    def arguments(self) -> dict[str, Any]:
        lines = {"below_cents": self.below_cents, "at_least_cents": self.at_least_cents}
        return {**super().arguments(), **lines}

    def validate(self) -> None:
        self.below_cents = validation.cents("below_cents", self.below_cents)
        self.at_least_cents = validation.cents("at_least_cents", self.at_least_cents)
        if (self.below_cents is None) == (self.at_least_cents is None):
            raise ValueError("Give either below_cents or at_least_cents.")

    def query(self) -> Query:
        return (_get_credit_balance,)

    def evaluate(self, value: CreditBalance) -> dict[str, Any] | None:
        if self.below_cents is None:
            holds = value.balance_cents >= self.at_least_cents
        else:
            holds = value.balance_cents < self.below_cents
        return value.to_dict() if holds else None

    def describe(self, value: CreditBalance) -> str:
        return f"The balance is {cents_and_dollars(value.balance_cents)}."


class CfBillingRunwayTrigger(CfBillingWaitTrigger):
    """Fire when the credits last for less than so many days.

    :param below_days: fire when fewer days are left; a number, or its text as a template renders it.
    """

    def __init__(
        self,
        cfbilling_conn_id: str,
        account_id: str | None,
        poll_interval: float,
        below_days: Any,
        ends_task: bool = False,
    ) -> None:
        super().__init__(cfbilling_conn_id, account_id, poll_interval, ends_task)
        self.below_days = below_days

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "below_days": self.below_days}

    def validate(self) -> None:
        self.below_days = validation.required("below_days", validation.days("below_days", self.below_days))

    def query(self) -> Query:
        return (_get_runway,)

    def evaluate(self, value: Runway) -> dict[str, Any] | None:
        return value.to_dict() if value.is_below(self.below_days) else None

    def describe(self, value: Runway) -> str:
        return f"{value}."


class CfBillingTopupCompletedTrigger(CfBillingWaitTrigger):
    """Fire when a top-up is paid and its credits are there.

    :param payment_intent_id: the top-up, as ``CfBillingCreateTopupOperator`` returns it.
    """

    def __init__(
        self,
        cfbilling_conn_id: str,
        account_id: str | None,
        poll_interval: float,
        payment_intent_id: str,
        ends_task: bool = False,
    ) -> None:
        super().__init__(cfbilling_conn_id, account_id, poll_interval, ends_task)
        self.payment_intent_id: Any = payment_intent_id

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "payment_intent_id": self.payment_intent_id}

    def validate(self) -> str | None:
        self.payment_intent_id = validation.stripe_id("payment_intent_id", self.payment_intent_id)
        if self.payment_intent_id is None:
            return "payment_intent_id is empty: the top-up was a dry run, or was skipped."
        return None

    def query(self) -> Query:
        from airflow_provider_cfbilling.charging.settlement import is_settled

        return is_settled, self.payment_intent_id

    def is_too_early(self, error: Exception, waited_seconds: float) -> bool:
        from airflow_provider_cfbilling.charging.settlement import UNKNOWN_OUTCOME_WINDOW

        return isinstance(error, CfBillingNotFoundError) and waited_seconds < UNKNOWN_OUTCOME_WINDOW

    def evaluate(self, value: bool) -> dict[str, Any] | None:
        return {"payment_intent_id": self.payment_intent_id, "status": "completed"} if value else None

    def describe(self, value: bool) -> str:
        return f"Top-up {self.payment_intent_id} is {'completed' if value else 'pending'}."


class CfBillingTopupTrigger(CfBillingBaseTrigger):
    """Fire when there is news of a top-up. It decides nothing: the task checks again and acts.

    :param account_id: the task's account.
    :param progress: how far the top-up has come, with absolute deadlines.
    """

    def __init__(
        self,
        cfbilling_conn_id: str,
        account_id: str | None,
        poll_interval: float,
        progress: dict[str, Any],
    ) -> None:
        super().__init__(cfbilling_conn_id, account_id, poll_interval)
        self.progress = progress

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "progress": self.progress}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll every ``poll_interval`` seconds, and when a deadline ends; end with one event."""
        from airflow_provider_cfbilling.charging.progress import Progress

        trigger_error = None
        try:
            await self._until_news(Progress.from_json(self.progress))
        except Exception as error:  # whatever it is, the task can still wait itself
            trigger_error = described_error(error)
        # `airflow dags test` hands nothing to the task but the event.
        yield TriggerEvent({"status": "resume", "progress": self.progress, "trigger_error": trigger_error})

    async def _until_news(self, progress: Progress) -> None:
        """Wait until the task has something to do.

        :raises Exception: this trigger cannot poll.
        """
        self._progress = progress
        settings = await self._settings(progress.account_id or self.account_id)
        await asyncio.sleep(self.pause_seconds(0.0, 0.0))
        # The deadlines of the top-up end the wait, however long Cloudflare is away. A lost charge is searched
        # for as long as its window is open, also if the history is refused.
        outage = Outage(math.inf, takes_all=progress.phase != "settle")
        try:
            async for polled in self._poll(
                settings, progress.poll_query(), max_age=self.poll_interval / 2, outage=outage
            ):
                if (progress.is_overdue if polled.error else polled.value) or progress.is_settlement_overdue:
                    return
        except CfBillingError as error:
            if progress.phase != "settle":
                raise
            self.log.warning("The task will act on this: %s", error)

    def is_too_early(self, error: Exception, waited_seconds: float) -> bool:
        return isinstance(error, CfBillingNotFoundError) and self._progress.may_be_unknown_yet

    def pause_seconds(self, failure_pause: float, age: float) -> float:
        """Return how long to wait until the next poll: no longer than until a deadline."""
        return self._progress.seconds_until_next_poll(max(self.poll_interval, failure_pause))

    async def on_kill(self) -> None:
        """Say what becomes of the charge when a user ends the task."""
        self.log.warning("%s", AFTER_KILL)


class _EventTrigger(CfBillingBaseTrigger, BaseEventTrigger):
    """Fires at an edge: once when something begins to hold, not while it lasts. Never ends.

    What it has fired for is remembered in the asset's state store (Airflow 3.3 and later), so that no restart
    of the triggerer fires for it again. Below 3.3 there is no memory: what already holds at the first poll
    after a start is taken to have been fired for.
    """

    def __init__(
        self,
        cfbilling_conn_id: str = "cfbilling_default",
        account_id: str | None = None,
        poll_interval: float = 60.0,
    ) -> None:
        if BaseEventTrigger is BaseTrigger:
            raise AirflowException(
                f"{type(self).__name__} needs Airflow 3.0 or later: before, there is no AssetWatcher. Use a "
                "sensor in a scheduled Dag."
            )
        interval = validation.seconds("poll_interval", poll_interval) or 60.0
        super().__init__(cfbilling_conn_id, account_id, interval)

    def query(self) -> Query:
        """Return what to read."""
        return (_get_credit_balance,)

    @abstractmethod
    def edge(self, value: Any, known: str | None) -> str:
        """Return what to fire for, in other words for each time that it began to hold; empty for nothing.

        :param known: what it returned last.
        """

    @abstractmethod
    def payload(self, value: Any) -> dict[str, Any]:
        """Return the event's payload."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll every ``poll_interval`` seconds, and fire at each edge."""
        store = getattr(self, "asset_state_store", None)
        known: str | None = None  # nothing
        while True:
            try:
                if store and known is None:
                    store, known = await self._recalled(store)
                settings = await self._settings(self.account_id)
                async for polled in self._poll(settings, self.query()):
                    if polled.error:
                        continue
                    edge = self.edge(polled.value, known)
                    if edge == known:
                        continue
                    if store:  # before it fires: an event that comes twice may start a top-up twice
                        await store.aset(self._memory_key, edge)
                    fires, known = bool(edge) and known is not None, edge
                    if fires:
                        yield TriggerEvent({"account_id": settings.account_id, **self.payload(polled.value)})
            except Exception as error:  # nothing would start it again
                self.log.warning("Cannot watch, and will try again: %s", error)
            await asyncio.sleep(max(self.poll_interval, _AFTER_AN_ERROR_SECONDS))

    async def _recalled(self, store: Any) -> tuple[Any, str | None]:
        """Return where to remember, and what was fired for last. Both None: nowhere."""
        try:
            return store, await store.aget(self._memory_key, default="")
        except ValueError as error:  # several assets share this trigger: which one cannot be determined
            self.log.warning("What has been fired for cannot be remembered: %s", error)
            return None, None

    @property
    def _memory_key(self) -> str:
        """Name what is remembered: an asset can have several watchers."""
        path, arguments = self.serialize()
        digest = hashlib.sha256(json.dumps([path, arguments], sort_keys=True).encode())
        return f"cfbilling_{digest.hexdigest()[:16]}"


class CfBillingTopupConfigErrorEventTrigger(_EventTrigger):
    """Start Dags when the automatic top-up breaks: a charge has failed, or Cloudflare has switched it off.

    For an ``AssetWatcher`` (Airflow 3.0 and later). Fires for each new failure.

    :param cfbilling_conn_id: the Airflow connection.
    :param account_id: the account to watch in place of the connection's, 32 hex digits.
    :param poll_interval: seconds between two polls.
    """

    def edge(self, value: CreditBalance, known: str | None) -> str:
        config = value.topup_config
        return f"{config.state} {config.last_failed_at or ''}" if config.is_broken() else ""

    def payload(self, value: CreditBalance) -> dict[str, Any]:
        return {"topup_config": value.topup_config.to_dict()}


class CfBillingLowBalanceEventTrigger(_EventTrigger):
    """Start Dags when the credit balance falls below a line; again once it has been above it.

    For an ``AssetWatcher`` (Airflow 3.0 and later).

    :param below_cents: the line: 2000 is $20.00.
    :param cfbilling_conn_id: the Airflow connection.
    :param account_id: the account to watch in place of the connection's, 32 hex digits.
    :param poll_interval: seconds between two polls.
    """

    def __init__(
        self,
        below_cents: float,
        cfbilling_conn_id: str = "cfbilling_default",
        account_id: str | None = None,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__(cfbilling_conn_id, account_id, poll_interval)
        self.below_cents = validation.required("below_cents", validation.cents("below_cents", below_cents))

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "below_cents": self.below_cents}

    def edge(self, value: CreditBalance, known: str | None) -> str:
        return "low" if value.balance_cents < self.below_cents else ""

    def payload(self, value: CreditBalance) -> dict[str, Any]:
        return {"balance_cents": value.balance_cents, "below_cents": self.below_cents}


class CfBillingLowRunwayEventTrigger(_EventTrigger):
    """Start Dags when the credits last for less than so many days.

    For an ``AssetWatcher`` (Airflow 3.0 and later). Fires again once they have lasted a tenth longer than
    that: spending goes up and down, and an hour's dip is no news. Two requests for each poll, of which one
    is shared with all that watch the balance.

    :param below_days: the line, in days.
    :param cfbilling_conn_id: the Airflow connection.
    :param account_id: the account to watch in place of the connection's, 32 hex digits.
    :param poll_interval: seconds between two polls.
    """

    def __init__(
        self,
        below_days: float,
        cfbilling_conn_id: str = "cfbilling_default",
        account_id: str | None = None,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__(cfbilling_conn_id, account_id, poll_interval)
        self.below_days = validation.required("below_days", validation.days("below_days", below_days))

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "below_days": self.below_days}

    def query(self) -> Query:
        return (_get_runway,)

    def edge(self, value: Runway, known: str | None) -> str:
        line = self.below_days * (_RUNWAY_HYSTERESIS if known else 1)
        return "low" if value.is_below(line) else ""

    def payload(self, value: Runway) -> dict[str, Any]:
        return {**value.to_dict(), "below_days": self.below_days}


def _get_credit_balance(client: CfBillingClient) -> CreditBalance:
    return client.get_credit_balance()


def _get_spending(client: CfBillingClient) -> Spending:
    from airflow_provider_cfbilling.forecast import read_spending

    return read_spending(client)


def _runway(balance: CreditBalance, spending: Spending) -> Runway:
    return spending.runway(balance.balance_cents)


_get_runway = Combined((_get_credit_balance, _get_spending), _runway)
