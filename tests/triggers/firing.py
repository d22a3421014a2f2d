"""Triggers to fire, in an event loop of their own in front of the sandbox."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from importlib import import_module
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_cfbilling.charging.progress import Progress
from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.triggers.cfbilling import (
    CfBillingCreditBalanceTrigger,
    CfBillingRunwayTrigger,
    CfBillingTopupCompletedTrigger,
    CfBillingTopupConfigErrorTrigger,
    CfBillingTopupTrigger,
)

CONN_ID = "cfbilling_default"
COMMON: dict[str, Any] = {"cfbilling_conn_id": CONN_ID, "account_id": None, "poll_interval": 0.1}


def broken(**arguments: Any) -> CfBillingTopupConfigErrorTrigger:
    return CfBillingTopupConfigErrorTrigger(**{**COMMON, "wait_for": "error", "since": None} | arguments)


def low(below_cents: Any = 2000, **arguments: Any) -> CfBillingCreditBalanceTrigger:
    lines = {"below_cents": below_cents, "at_least_cents": None}
    return CfBillingCreditBalanceTrigger(**{**COMMON, **lines} | arguments)


def short(below_days: Any = 5, **arguments: Any) -> CfBillingRunwayTrigger:
    return CfBillingRunwayTrigger(**{**COMMON, "below_days": below_days} | arguments)


def completed(payment_intent_id: str, **arguments: Any) -> CfBillingTopupCompletedTrigger:
    return CfBillingTopupCompletedTrigger(**{**COMMON, "payment_intent_id": payment_intent_id} | arguments)


def of_a_topup(progress: Progress) -> CfBillingTopupTrigger:
    return CfBillingTopupTrigger(**COMMON, progress=progress.to_json())


def revived(trigger: BaseTrigger) -> Any:
    """Return the trigger as another triggerer has it, after a restart."""
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))


async def first_event(trigger: BaseTrigger) -> TriggerEvent:
    async with aclosing(aiter(trigger.run())) as events:  # type: ignore[type-var]
        return await anext(events)


def fire(
    *triggers: BaseTrigger, meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> list[Any]:
    """Run triggers side by side, as they are after a restart, and return what each fires with."""

    async def run() -> list[Any]:
        waiting = [asyncio.create_task(first_event(revived(trigger))) for trigger in triggers]
        if meanwhile:
            await meanwhile()
        return list(await asyncio.wait_for(asyncio.gather(*waiting), timeout=30))

    return asyncio.run(run())


async def wait_for_polls(sandbox: Sandbox, count: int) -> None:
    """Wait until Cloudflare was polled so often."""
    while len(await asyncio.to_thread(sandbox.requests)) < count:
        await asyncio.sleep(0.02)


def pending(sandbox: Sandbox, settle_seconds: float = 3600) -> str:
    """Top up, and return the id of what has not settled."""
    sandbox.configure(settle_seconds=settle_seconds)
    return CfBillingHook(CONN_ID).create_topup(2500).payment_intent_id
