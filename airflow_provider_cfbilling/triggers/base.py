"""How triggers poll. All that watch one account in one triggerer share each request, see
:mod:`airflow_provider_cfbilling.triggers.single_flight`.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Hashable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingPermissionError,
)
from airflow_provider_cfbilling.errors import described_error
from airflow_provider_cfbilling.polling import Outage
from airflow_provider_cfbilling.triggers.single_flight import PollResult, shared_poll, single_flight

if TYPE_CHECKING:
    from airflow_provider_cfbilling.api.settings import Settings

_MIN_PAUSE_SECONDS = 0.05

# They bring `requests`: 50 ms and more, for which the event loop would stand still.
_SLOW_IMPORTS = (
    "airflow.providers.common.compat.connection",
    "airflow_provider_cfbilling.hooks.cfbilling",
)
# How long a connection that was read serves those who start later.
_CONNECTION_SECONDS = 10.0

Query = tuple[Callable[..., Any], *tuple[Hashable, ...]]
"""A function that reads with a client, and its further arguments."""


class CfBillingBaseTrigger(BaseTrigger):
    """What all triggers of this provider share: the connection, the account and the polling.

    :param cfbilling_conn_id: the Airflow connection.
    :param account_id: the account to use in place of the connection's, 32 hex digits.
    :param poll_interval: seconds between two polls. All that watch one account poll together.
    """

    def __init__(self, cfbilling_conn_id: str, account_id: str | None, poll_interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.cfbilling_conn_id = cfbilling_conn_id
        self.account_id = account_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments as plain JSON."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.arguments()

    def arguments(self) -> dict[str, Any]:
        """Return the arguments. They are stored: a trigger of an older version must still be understood."""
        return {
            "cfbilling_conn_id": self.cfbilling_conn_id,
            "account_id": self.account_id,
            "poll_interval": self.poll_interval,
        }

    async def _settings(self, account_id: str | None, max_age: float = _CONNECTION_SECONDS) -> Settings:
        """Read the connection: once for all that start at about the same time.

        :raises Exception: the connection cannot be read or used.
        """
        key = ("settings", self.cfbilling_conn_id, account_id)
        read = partial(_read_settings, self.cfbilling_conn_id, account_id)
        result = await single_flight().result(key, read, max_age=max_age)
        if result.error:
            raise result.error
        settings: Settings = result.value
        return settings

    async def _poll(
        self, settings: Settings, query: Query, *, max_age: float | None = None, outage: Outage | None = None
    ) -> AsyncIterator[PollResult]:
        """Poll for ever, and yield each result: a value, or an error that the next poll may not meet.

        :param max_age: how old a result may be that another wait has fetched; ``poll_interval``.
        :raises CfBillingError: polling again will not help, or has not helped for too long.
        """
        outage, started = outage or Outage(), time.monotonic()
        age = self.poll_interval if max_age is None else max_age
        while True:
            result = await shared_poll(settings, *query, max_age=age)
            pause = 0.0
            match result.error:
                case None:
                    outage.end()
                case error if self.is_too_early(error, time.monotonic() - started):
                    self.log.info("Not known yet, polling again: %s", error)
                case CfBillingAuthenticationError() | CfBillingPermissionError() if (
                    renewed := await self._renewed(settings, result)
                ):
                    settings = renewed
                    continue
                case error:
                    pause = outage.failed(error)
                    self.log.warning("Poll failed (%d in a row), retrying: %s", outage.failures, error)
            yield result
            # Another wait's result that is older than this pause is the one that has failed.
            age = pause or (self.poll_interval if max_age is None else max_age)
            await asyncio.sleep(self.pause_seconds(pause, result.age))

    async def _renewed(self, settings: Settings, refused: PollResult) -> Settings | None:
        """Return what the connection says since its credentials were refused; None: the same."""
        try:
            latest = await self._settings(settings.account_id, max_age=refused.age)
        except Exception as error:  # what was refused says more
            self.log.warning("The connection cannot be read again: %s", described_error(error))
            return None
        if latest == settings:
            return None
        self.log.info("The connection has changed, polling with what it says now.")
        return latest

    def is_too_early(self, error: Exception, waited_seconds: float) -> bool:
        """Return whether ``error`` is to be expected so soon after the wait began, and no failure."""
        return False

    def pause_seconds(self, failure_pause: float, age: float) -> float:
        """Return how long to wait until the next poll; not all until the same instant.

        :param failure_pause: what the failed poll requests; 0 if it has not.
        :param age: how old the latest result is, in seconds.
        """
        jitter = random.uniform(0, min(1.0, self.poll_interval / 10))  # noqa: S311 (no secret)
        return max(_MIN_PAUSE_SECONDS, (failure_pause or self.poll_interval) - age) + jitter


class CfBillingWaitTrigger(CfBillingBaseTrigger):
    """Waits until something holds, and fires once.

    :param ends_task: end the task here, with its result, so that it needs no worker. A failure always goes
        through a worker: there it is logged, and retried as the task says.
    """

    def __init__(
        self, cfbilling_conn_id: str, account_id: str | None, poll_interval: float, ends_task: bool
    ) -> None:
        super().__init__(cfbilling_conn_id, account_id, poll_interval)
        self.ends_task = ends_task

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "ends_task": self.ends_task}

    @abstractmethod
    def query(self) -> Query:
        """Return what to read."""

    @abstractmethod
    def evaluate(self, value: Any) -> dict[str, Any] | None:
        """Return the task's result, or None if what is waited for does not hold yet."""

    @abstractmethod
    def describe(self, value: Any) -> str:
        """Return what was read, for the log."""

    def validate(self) -> str | None:
        """Read the arguments, before any request. Return why there is nothing to wait for, if so.

        :raises ValueError: naming what is invalid.
        """
        return None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until it holds, and end with one event."""
        try:
            nothing = self.validate()
        except ValueError as error:
            yield _failed(str(error), retry=False)
            return
        if nothing:
            yield TriggerEvent({"status": "skipped", "message": nothing})
            return
        try:
            settings = await self._settings(self.account_id)
        except Exception as error:  # whatever it is, the task can still wait itself
            yield TriggerEvent({"status": "trigger_error", "message": described_error(error)})
            return
        try:
            async for polled in self._poll(settings, self.query()):
                result = None if polled.error else self.evaluate(polled.value)
                if result is not None:
                    yield self._success(result)
                    return
        except CfBillingError as error:
            yield _failed(str(error), retry=error.retryable)

    def _success(self, result: dict[str, Any]) -> TriggerEvent:
        if self.ends_task:
            return TaskSuccessEvent(xcoms={"return_value": result})
        return TriggerEvent({"status": "success", "result": result})


def _failed(message: str, *, retry: bool) -> TriggerEvent:
    return TriggerEvent({"status": "failed", "message": message, "retry": retry})


async def _read_settings(cfbilling_conn_id: str, account_id: str | None) -> Settings:
    for module in _SLOW_IMPORTS:
        await single_flight().in_thread(import_module, module)
    from airflow.providers.common.compat.connection import get_async_connection

    from airflow_provider_cfbilling.hooks.cfbilling import connection_id, settings_from_connection

    connection = await get_async_connection(connection_id(cfbilling_conn_id))
    return settings_from_connection(connection, account_id)
