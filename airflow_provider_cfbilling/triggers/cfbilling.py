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


async def _client(cfbilling_conn_id: str, account_id: str | None) -> CfBillingClient:
    from airflow.providers.common.compat.connection import get_async_connection

    from airflow_provider_cfbilling.api.client import CfBillingClient
    from airflow_provider_cfbilling.hooks.cfbilling import settings_from_connection

    connection = await get_async_connection(cfbilling_conn_id)
    return CfBillingClient(settings_from_connection(connection, account_id))
