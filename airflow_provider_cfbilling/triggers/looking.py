"""How triggers look, and look again. All that watch one account in one triggerer share one request, see
:mod:`airflow_provider_cfbilling.api.sharing`.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Hashable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_cfbilling.api.errors import CfBillingError, CfBillingRateLimitError
from airflow_provider_cfbilling.api.sharing import Outcome, shared

if TYPE_CHECKING:
    from airflow_provider_cfbilling.api.settings import Settings

# How many looks in a row may fail before the task is told. They come ever more slowly, so that whatever the
# interval, Cloudflare may be away for five minutes.
MAX_FAILURES = 10
_LONGEST_BACKOFF_SECONDS = 60.0
_LEAST_PAUSE_SECONDS = 0.05

# They bring `requests`: 50 ms and more, for which the event loop would stand still.
_SLOW_IMPORTS = (
    "airflow.providers.common.compat.connection",
    "airflow_provider_cfbilling.hooks.cfbilling",
    "airflow_provider_cfbilling.api.shared_reads",
)
# How long a connection that was looked up serves those who start later.
_CONNECTION_SECONDS = 10.0


class CfBillingBaseTrigger(BaseTrigger):
    """What all triggers of this provider share: the connection, the account and the looking.

    :param cfbilling_conn_id: the Airflow connection.
    :param account_id: the account to use in place of the connection's, 32 hex digits.
    :param poll_interval: seconds between two looks. All who watch one account look together.
    """

    def __init__(self, cfbilling_conn_id: str, account_id: str | None, poll_interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.cfbilling_conn_id = cfbilling_conn_id
        self.account_id = account_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments as plain JSON."""
        arguments = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def _settings(self, account_id: str | None) -> Settings:
        """Look the connection up: once for all who start at about the same time.

        :raises CfBillingError: the connection cannot be used.
        """
        key = ("settings", self.cfbilling_conn_id, account_id)
        look_up = partial(_settings, self.cfbilling_conn_id, account_id)
        outcome = await shared().outcome(key, look_up, max_age=_CONNECTION_SECONDS)
        if outcome.error:
            raise outcome.error
        settings: Settings = outcome.value
        return settings

    async def _look(
        self, settings: Settings, ask: Callable[..., Any], *arguments: Hashable, max_age: float
    ) -> Outcome:
        from airflow_provider_cfbilling.api.shared_reads import shared_read

        return await shared_read(settings, ask, *arguments, max_age=max_age)

    async def _answers(
        self, settings: Settings, ask: Callable[..., Any], *arguments: Hashable
    ) -> AsyncIterator[Any]:
        """Look every ``poll_interval`` seconds, for ever.

        :raises CfBillingError: no further look will help, or too many in a row have failed.
        """
        failures, started = 0, time.monotonic()
        while True:
            outcome = await self._look(settings, ask, *arguments, max_age=self.poll_interval)
            match outcome.error:
                case None:
                    failures = 0
                    yield outcome.value
                case CfBillingRateLimitError() as error:  # the next poll waits for as long as it must
                    self.log.warning("Poll failed, retrying: %s", error)
                case error if self.is_too_early(error, time.monotonic() - started):
                    self.log.info("Not known yet, polling again: %s", error)
                case error:
                    failures += 1
                    if not getattr(error, "retryable", False) or failures >= MAX_FAILURES:
                        raise error
                    self.log.warning("Poll failed (%d in a row), retrying: %s", failures, error)
            await self._pause(outcome.age, failures)

    def is_too_early(self, error: Exception, waited_seconds: float) -> bool:
        """Tell whether ``error`` is to be expected so soon after the wait began, and no failure."""
        return False

    async def _pause(self, age: float, failures: int = 0) -> None:
        """Wait until the latest answer is too old; not all at the same moment."""
        backoff = min(_LONGEST_BACKOFF_SECONDS, 2.0**failures) if failures else 0.0
        jitter = random.uniform(0, min(1.0, self.poll_interval / 10))  # noqa: S311 (no secret)
        await asyncio.sleep(max(_LEAST_PAUSE_SECONDS, max(self.poll_interval, backoff) - age) + jitter)


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

    @abstractmethod
    def question(self) -> tuple[Callable[..., Any], *tuple[Hashable, ...]]:
        """Return what to ask: a function that reads with a client, and its further arguments."""

    @abstractmethod
    def result(self, answer: Any) -> dict[str, Any] | None:
        """Return the task's result, or None where what is waited for does not hold yet."""

    @abstractmethod
    def described(self, answer: Any) -> str:
        """Return what was seen, for the log."""

    def check(self) -> None:
        """Refuse what cannot be meant, before any request.

        :raises ValueError: naming it.
        """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until it holds, and end with one event."""
        try:
            self.check()
        except ValueError as error:
            yield TriggerEvent({"status": "failed", "message": str(error), "retry": False})
            return
        try:
            settings = await self._settings(self.account_id)
        except Exception as error:  # whatever it is, the task can still wait itself
            yield TriggerEvent({"status": "trigger_error", "message": described_error(error)})
            return
        try:
            async for answer in self._answers(settings, *self.question()):
                result = self.result(answer)
                if result is not None:
                    yield self._success(result)
                    return
        except CfBillingError as error:
            yield TriggerEvent({"status": "failed", "message": str(error), "retry": error.retryable})

    def _success(self, result: dict[str, Any]) -> TriggerEvent:
        if self.ends_task:
            return TaskSuccessEvent(xcoms={"return_value": result})
        return TriggerEvent({"status": "success", "result": result})


def described_error(error: Exception) -> str:
    """Return what an error says if it is one of ours or of Airflow's, which hold no secret; else its kind."""
    if isinstance(error, CfBillingError | AirflowException):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__


async def _settings(cfbilling_conn_id: str, account_id: str | None) -> Settings:
    for module in _SLOW_IMPORTS:
        await shared().in_thread(import_module, module)
    from airflow.providers.common.compat.connection import get_async_connection

    from airflow_provider_cfbilling.hooks.cfbilling import settings_from_connection

    connection = await get_async_connection(cfbilling_conn_id)
    return settings_from_connection(connection, account_id)
