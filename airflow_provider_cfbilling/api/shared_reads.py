"""Reads for those who wait: all of one event loop who ask the same of the same account share one request.

Requests are made in threads, in the turns that the credentials' rate budget gives them, so that no number of
waits can use up what Cloudflare allows. A 429 makes all of them pause, and fails none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.rate_budget import rate_budget_of
from airflow_provider_cfbilling.api.settings import Settings
from airflow_provider_cfbilling.api.sharing import Outcome, shared
from airflow_provider_cfbilling.api.transport import Transport

_ANY_ACCOUNT = "0" * 32


async def shared_read(
    settings: Settings, ask: Callable[..., Any], *arguments: Hashable, max_age: float
) -> Outcome:
    """Return what ``ask(client, *arguments)`` has come to, not longer than ``max_age`` seconds ago.

    Waits for as long as Cloudflare asks to pause.

    :param ask: reads, with a client of the account. Together with ``arguments`` it says what is asked.
    """
    key = (settings, ask, *arguments)
    return await shared().outcome(key, partial(_in_turn, settings, ask, *arguments), max_age=max_age)


async def _in_turn(settings: Settings, ask: Callable[..., Any], *arguments: Hashable) -> Any:
    budget = rate_budget_of(settings.base_url, settings.secret)
    await asyncio.sleep(budget.turn())
    while budget.pause_left() > 0:  # somebody else was told to pause in the meantime
        await asyncio.sleep(budget.turn())
    # Who waits asks again anyway; and a thread that sleeps between two attempts serves nobody.
    settings = replace(settings, max_attempts=1)
    client = CfBillingClient(settings, _transport(replace(settings, account_id=_ANY_ACCOUNT)))
    return await shared().in_thread(ask, client, *arguments)


@lru_cache(maxsize=64)
def _transport(settings: Settings) -> Transport:
    """Return the connections that all accounts of the same credentials share."""
    return Transport(settings)
