"""Triggers: wait without a worker. They only read; none of them ever charges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_cfbilling.api.errors import (
    CfBillingError,
    CfBillingRateLimitError,
    CfBillingUnavailableError,
)

if TYPE_CHECKING:
    from airflow_provider_cfbilling.api.client import CfBillingClient

# How many looks in a row may fail before the task is told. A look has been retried by then.
MAX_FAILURES = 10


class CfBillingTopupConfigErrorTrigger(BaseTrigger):
    """Fire when the automatic top-up is broken, or is not broken any more.

    :param wait_for: ``error`` or ``cleared``.
    :param since: ISO 8601 text; failures older than this do not count.
    :param poll_interval: seconds between two looks.
    """

    def __init__(
        self,
        cfbilling_conn_id: str,
        account_id: str | None,
        wait_for: Literal["error", "cleared"],
        since: str | None,
        poll_interval: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.cfbilling_conn_id = cfbilling_conn_id
        self.account_id = account_id
        self.wait_for = wait_for
        self.since = since
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments as plain JSON."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "cfbilling_conn_id": self.cfbilling_conn_id,
            "account_id": self.account_id,
            "wait_for": self.wait_for,
            "since": self.since,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look every ``poll_interval`` seconds, and end with one event."""
        since = datetime.fromisoformat(self.since) if self.since else None
        failures = 0
        client: CfBillingClient | None = None
        while True:
            try:
                client = client or await _client(self.cfbilling_conn_id, self.account_id)
                config = await asyncio.to_thread(client.get_topup_config)
                failures = 0
                if config.is_broken(since) == (self.wait_for == "error"):
                    yield TriggerEvent({"status": "success", "config": config.to_dict()})
                    return
            except CfBillingRateLimitError as error:
                self.log.warning("Could not look, and will look again: %s", error)
            except CfBillingError as error:
                failures += 1
                passing = isinstance(error, CfBillingUnavailableError)
                if not passing or failures >= MAX_FAILURES:
                    yield TriggerEvent({"status": "failed", "message": str(error), "retry": passing})
                    return
                self.log.warning("Could not look (%d in a row), and will look again: %s", failures, error)
            await asyncio.sleep(self.poll_interval)


class CfBillingTopupTrigger(BaseTrigger):
    """Fire when there is news of a top-up. It decides nothing: the task looks again and acts.

    :param account_id: the task's account.
    :param progress: how far the top-up has come, with absolute deadlines.
    :param poll_interval: seconds between two looks.
    """

    def __init__(
        self,
        cfbilling_conn_id: str,
        account_id: str | None,
        progress: dict[str, Any],
        poll_interval: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.cfbilling_conn_id = cfbilling_conn_id
        self.account_id = account_id
        self.progress = progress
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments as plain JSON."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "cfbilling_conn_id": self.cfbilling_conn_id,
            "account_id": self.account_id,
            "progress": self.progress,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look every ``poll_interval`` seconds, and when a deadline ends; end with one event."""
        from airflow_provider_cfbilling.charging.progress import Progress, account_of, has_news, pause

        progress = Progress.from_json(self.progress)
        failures = 0
        client: CfBillingClient | None = None
        news = False
        while not news and failures < MAX_FAILURES:
            await asyncio.sleep(pause(progress, self.poll_interval))
            try:
                client = client or await _client(
                    self.cfbilling_conn_id, account_of(progress) or self.account_id
                )
                news = await asyncio.to_thread(has_news, client, progress)
                failures = 0
            except CfBillingRateLimitError as error:
                self.log.warning("Could not look, and will look again: %s", error)
            except CfBillingUnavailableError as error:
                failures += 1
                self.log.warning("Could not look (%d in a row): %s", failures, error)
            except CfBillingError as error:
                self.log.warning("The task will act on this: %s", error)
                news = True
        # `airflow dags test` hands nothing to the task but the event.
        yield TriggerEvent({"status": "look", "progress": self.progress})


async def _client(cfbilling_conn_id: str, account_id: str | None) -> CfBillingClient:
    from airflow.providers.common.compat.connection import get_async_connection

    from airflow_provider_cfbilling.api.client import CfBillingClient
    from airflow_provider_cfbilling.hooks.cfbilling import settings_from_connection

    connection = await get_async_connection(cfbilling_conn_id)
    return CfBillingClient(settings_from_connection(connection, account_id))
