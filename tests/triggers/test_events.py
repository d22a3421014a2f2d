"""Event triggers fire at edges, and remember what they have fired for."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import TriggerEvent

from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.triggers import cfbilling as triggers
from airflow_provider_cfbilling.triggers.cfbilling import (
    CfBillingLowBalanceEventTrigger,
    CfBillingLowRunwayEventTrigger,
    CfBillingTopupConfigErrorEventTrigger,
)
from tests.raw_servers import fresh_token
from tests.real_airflow.deployment import HAS_API_SERVER as HAS_ASSET_WATCHER

needs_asset_watcher = pytest.mark.skipif(
    not HAS_ASSET_WATCHER, reason="AssetWatcher came with Airflow 3.0; what is said before has its own test"
)
INTERVAL = 0.1
pytestmark = pytest.mark.usefixtures("short_backoff")


@pytest.fixture(autouse=True)
def own_token(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    token = fresh_token()
    sandbox.configure(token=token, balance_cents=5000)
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token=token))
    monkeypatch.setattr(triggers, "_AFTER_AN_ERROR_SECONDS", INTERVAL)


class Store:
    """What Airflow 3.3 keeps for an asset, over all restarts of the triggerer."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.is_away = False

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        if self.is_away:
            raise RuntimeError("the API server does not respond")
        self.values[key] = json.loads(json.dumps(value))


class Watch:
    """A watcher in a triggerer, and the events that it has fired."""

    def __init__(self, sandbox: Sandbox, trigger: Any, store: Store | None) -> None:
        self._sandbox = sandbox
        self._trigger = trigger
        self._trigger.asset_state_store = store
        self.events: list[TriggerEvent] = []

    async def run(self) -> None:
        async for event in self._trigger.run():
            self.events.append(event)

    async def wait_for_poll(self) -> None:
        """Wait until it has polled the current state."""
        seen = len(await asyncio.to_thread(self._sandbox.requests))
        while len(await asyncio.to_thread(self._sandbox.requests)) < seen + 3:
            await asyncio.sleep(INTERVAL / 5)


def watch(
    sandbox: Sandbox, trigger: Any, *steps: Callable[[], object], store: Store | None = None
) -> list[int]:
    """Let a trigger run and do one thing after the other; return how often it had fired after each."""

    async def story() -> list[int]:
        watch = Watch(sandbox, trigger, store)
        running = asyncio.create_task(watch.run())
        counts = []
        for step in (lambda: None, *steps):
            await asyncio.to_thread(step)
            await watch.wait_for_poll()
            counts.append(len(watch.events))
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        return counts

    return asyncio.run(asyncio.wait_for(story(), timeout=30))


def low(below_cents: float = 1000) -> CfBillingLowBalanceEventTrigger:
    return CfBillingLowBalanceEventTrigger(below_cents, poll_interval=INTERVAL)


def broken() -> CfBillingTopupConfigErrorEventTrigger:
    return CfBillingTopupConfigErrorEventTrigger(poll_interval=INTERVAL)


def balance(sandbox: Sandbox, cents: float) -> Callable[[], object]:
    return lambda: sandbox.configure(balance_cents=cents)


def failure(sandbox: Sandbox, at: float) -> Callable[[], object]:
    return lambda: sandbox.auto_topup("break", last_failed_at=at)


@needs_asset_watcher
@pytest.mark.parametrize("store", [None, Store()], ids=["no memory", "memory"])
def test_balance_fires_each_time_it_crosses_the_line(sandbox: Sandbox, store: Store | None):
    steps = [balance(sandbox, cents) for cents in (999, 998, 1000, 999.99)]
    assert watch(sandbox, low(), *steps, store=store) == [0, 1, 1, 1, 2]


@needs_asset_watcher
@pytest.mark.parametrize("store", [None, Store()], ids=["no memory", "memory"])
def test_runway_fires_again_only_once_it_has_been_clearly_longer(sandbox: Sandbox, store: Store | None):
    sandbox.configure(spend_per_day_cents=240)
    trigger = CfBillingLowRunwayEventTrigger(5, poll_interval=INTERVAL)
    steps = [balance(sandbox, cents) for cents in (1100, 1240, 1100, 2000, 1100)]
    assert watch(sandbox, trigger, *steps, store=store) == [0, 1, 1, 1, 1, 2]


@needs_asset_watcher
@pytest.mark.parametrize("store", [None, Store()], ids=["no memory", "memory"])
def test_each_new_failure_fires_once(sandbox: Sandbox, store: Store | None):
    steps = [failure(sandbox, 1000), failure(sandbox, 1000), failure(sandbox, 2000)]
    heal_and_switch_off = [lambda: sandbox.auto_topup("recover"), lambda: sandbox.auto_topup("disable")]
    counts = watch(sandbox, broken(), *steps, *heal_and_switch_off, store=store)
    assert counts == [0, 1, 1, 2, 2, 3]


@needs_asset_watcher
def test_event_has_the_account_and_what_was_seen(sandbox: Sandbox):
    async def first() -> Any:
        trigger = low()
        trigger.asset_state_store = Store()  # type: ignore[assignment]
        return (await anext(trigger.run())).payload

    sandbox.configure(balance_cents=640.19)
    payload = asyncio.run(asyncio.wait_for(first(), timeout=30))
    assert payload == {"account_id": sandbox.account_id, "balance_cents": 640.19, "below_cents": 1000.0}
    assert json.loads(json.dumps(payload)) == payload


@needs_asset_watcher
def test_restart_fires_for_nothing_again_and_misses_nothing(sandbox: Sandbox):
    store = Store()
    assert watch(sandbox, low(), balance(sandbox, 500), store=store) == [0, 1]
    assert watch(sandbox, low(), store=store) == [0]
    balance(sandbox, 5000)()
    assert watch(sandbox, low(), store=store) == [0]
    balance(sandbox, 500)()
    assert watch(sandbox, low(), store=store) == [1]


@needs_asset_watcher
def test_initial_state_fires_nothing_without_memory(sandbox: Sandbox):
    sandbox.configure(balance_cents=500)
    assert watch(sandbox, low(), balance(sandbox, 5000), balance(sandbox, 500)) == [0, 0, 1]


@needs_asset_watcher
def test_what_holds_when_the_watcher_is_new_fires(sandbox: Sandbox):
    sandbox.configure(balance_cents=500)
    assert watch(sandbox, low(), store=Store()) == [1]


@needs_asset_watcher
def test_watchers_of_one_asset_remember_apart(sandbox: Sandbox):
    store = Store()
    sandbox.configure(balance_cents=500)
    assert watch(sandbox, low(1000), store=store) == [1]
    assert watch(sandbox, low(2000), store=store) == [1]
    assert watch(sandbox, low(1000), store=store) == [0]


@needs_asset_watcher
def test_edge_fires_once_it_can_be_remembered(sandbox: Sandbox):
    store = Store()

    def away(is_away: bool) -> Callable[[], object]:
        return lambda: setattr(store, "is_away", is_away)

    steps = [away(True), balance(sandbox, 500), away(False)]
    assert watch(sandbox, low(), *steps, store=store) == [0, 0, 0, 1]


@needs_asset_watcher
def test_shared_trigger_works_without_memory(sandbox: Sandbox):
    class OfTwoAssets(Store):
        async def aget(self, key: str, default: Any = None) -> Any:
            raise ValueError("Task has 2 concrete inlets and outlets")

    sandbox.configure(balance_cents=500)
    steps = [balance(sandbox, 5000), balance(sandbox, 500)]
    assert watch(sandbox, low(), *steps, store=OfTwoAssets()) == [0, 0, 1]


@needs_asset_watcher
@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 403}, {"kind": "status", "status": 503}, {"kind": "garbage"}]
)
def test_watcher_outlives_every_failure(sandbox: Sandbox, fault: dict[str, Any]):
    def fail() -> None:
        sandbox.fault("getCreditBalance", times=2, **fault)

    assert watch(sandbox, low(), fail, balance(sandbox, 500)) == [0, 0, 1]


@needs_asset_watcher
@pytest.mark.parametrize("below_cents", [0, -1, True, "soon", None])
def test_bad_line_is_refused_at_parse_time(below_cents: Any):
    with pytest.raises(ValueError, match="below_cents must"):
        CfBillingLowBalanceEventTrigger(below_cents)


@pytest.mark.skipif(HAS_ASSET_WATCHER, reason="here it can be used")
@pytest.mark.parametrize("make", [low, broken])
def test_use_before_airflow_3_says_what_is_missing(make: Callable[[], object]):
    with pytest.raises(
        AirflowException, match=r"needs Airflow 3.0 or later: before, there is no AssetWatcher"
    ):
        make()
