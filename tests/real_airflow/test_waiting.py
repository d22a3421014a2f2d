"""Waits that hold no worker, and Dags that the balance or a broken top-up starts, in a real Airflow."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.raw_servers import fresh_token
from tests.real_airflow.deployment import (
    HAS_API_SERVER,
    HAS_TASK_STATE_STORE,
    STARTS_TASKS_IN_THE_TRIGGERER,
    Airflow,
    an_airflow_can_run_here,
)

pytestmark = an_airflow_can_run_here(seconds=300)

EXAMPLES = Path(__file__).parents[2] / "example_dags"
TIMEOUT = 90.0
HOUR = 3600.0

WAITS = """
import time
from datetime import UTC, datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, BaseOperator
from airflow_provider_cfbilling.sensors.cfbilling import (
    CfBillingCreditBalanceSensor,
    CfBillingTopupCompletedSensor,
    CfBillingTopupConfigErrorSensor,
)


class Occupy(BaseOperator):
    def execute(self, context):
        while not Path("{free}").exists():
            time.sleep(0.1)


def dag(name):
    return DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))


with dag("occupied"):
    Occupy(task_id="topup")
common = dict(task_id="topup", poke_interval=0.5, timeout=120, start_from_trigger=True)
with dag("balance"):
    CfBillingCreditBalanceSensor(below_cents=20_000, **common)
with dag("broken"):
    CfBillingTopupConfigErrorSensor(**common)
with dag("completed"):
    CfBillingTopupCompletedSensor(payment_intent_id="{topup}", **common)
"""

RESCHEDULED = """
from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow_provider_cfbilling.sensors.cfbilling import (
    CfBillingCreditBalanceSensor,
    CfBillingTopupCompletedSensor,
    CfBillingTopupConfigErrorSensor,
)


def dag(name):
    return DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))


# Airflow 3.0 fails a task whose next poll is due before the scheduler has noted the end of this one.
common = dict(task_id="topup", mode="reschedule", poke_interval=4)
common |= dict(retries=2, retry_delay=timedelta(seconds=1))
with dag("balance"):
    CfBillingCreditBalanceSensor(below_cents=20_000, timeout=200, **common)
with dag("broken"):
    CfBillingTopupConfigErrorSensor(timeout=200, **common)
with dag("completed"):
    CfBillingTopupCompletedSensor(payment_intent_id="{topup}", timeout=200, **common)
with dag("impatient"):
    CfBillingCreditBalanceSensor(below_cents=1, timeout=5, **common)
with dag("impatient_softly"):
    CfBillingCreditBalanceSensor(below_cents=1, timeout=5, soft_fail=True, **common)
with dag("refused"):
    CfBillingTopupConfigErrorSensor(timeout=200, cfbilling_conn_id="refused", **common)
"""


@contextmanager
def airflow_with(dags: str, dag_ids: list[str], sandbox: Sandbox, **settings: object) -> Iterator[Airflow]:
    environment = {"AIRFLOW_CONN_CFBILLING_DEFAULT": sandbox.connection_uri()}
    environment |= {f"AIRFLOW__{name}": str(value) for name, value in settings.items()}
    with Airflow(dags, dag_ids, environment) as airflow:
        yield airflow


def result(airflow: Airflow, dag_id: str) -> Any:
    """Return what a wait that ended in the triggerer left. Airflow 3 keeps it as JSON in JSON."""
    value = airflow.xcoms(dag_id)["return_value"]
    return json.loads(value) if isinstance(value, str) else value


def test_waits_end_well_while_every_worker_is_taken(
    sandbox: Sandbox, stack: ExitStack, tmp_path: Path
) -> None:
    """From beginning to end in the triggerer, results included.

    Airflow 3.1 and 3.2 take a worker for the first poll and for the end: every worker is taken in between.
    """
    sandbox.configure(settle_seconds=HOUR, balance_cents=50_000)
    topup = CfBillingHook().create_topup(2500).payment_intent_id
    free = tmp_path / "free"
    dags = WAITS.format(free=free, topup=topup)
    names = ["balance", "broken", "completed"]
    airflow = stack.enter_context(airflow_with(dags, ["occupied", *names], sandbox, CORE__PARALLELISM=1))

    def take_the_slot() -> None:
        airflow.trigger("occupied")
        airflow.wait_until("the slot is taken", lambda: airflow.task("occupied").state == "running", TIMEOUT)

    def start_to_wait() -> None:
        for name in names:
            airflow.trigger(name)
        airflow.wait_until(
            "all wait", lambda: {airflow.task(name).state for name in names} == {"deferred"}, TIMEOUT
        )

    begin = [take_the_slot, start_to_wait]
    for step in begin if STARTS_TASKS_IN_THE_TRIGGERER else reversed(begin):
        step()
    sandbox.configure_server(clock_offset_seconds=HOUR)
    sandbox.configure(balance_cents=1500)
    sandbox.auto_topup("break")
    if not STARTS_TASKS_IN_THE_TRIGGERER:
        airflow.wait_until(
            "all want a worker",
            lambda: {airflow.task(name).state for name in names} <= {"scheduled", "queued"},
            TIMEOUT,
        )
        free.touch()
    airflow.wait_until(
        "all have ended", lambda: {airflow.run_state(name) for name in names} == {"success"}, TIMEOUT
    )
    if STARTS_TASKS_IN_THE_TRIGGERER:
        assert airflow.task("occupied").state == "running"
        free.touch()
    results = {name: result(airflow, name) for name in names}
    assert results["balance"]["balance_cents"] < 20_000
    assert results["broken"]["state"] == "failing"
    assert results["completed"] == {"payment_intent_id": topup, "status": "completed"}
    airflow.wait_until("the slot is free", lambda: airflow.run_state("occupied") == "success", TIMEOUT)


def test_waits_that_reschedule_themselves_outlive_outages_and_tokens(
    sandbox: Sandbox, stack: ExitStack
) -> None:
    """Each poll is a task process of its own. None of them is a try of its own."""
    sandbox.configure(settle_seconds=HOUR, balance_cents=50_000)
    topup = CfBillingHook().create_topup(2500).payment_intent_id
    ends = dict.fromkeys(("balance", "broken", "completed", "impatient_softly"), "success")
    ends |= {"impatient": "failed", "refused": "failed"}
    waits = {"balance", "broken", "completed"}
    airflow = stack.enter_context(Airflow(RESCHEDULED.format(topup=topup), ends, {}))
    airflow.connect("cfbilling_default", sandbox.connection_uri())
    airflow.connect("refused", sandbox.connection_uri(token="not-the-token"))
    for name in ends:
        airflow.trigger(name)

    def all_poll_again() -> None:
        rescheduled: set[str] = set()

        def have() -> bool:
            states = {name: airflow.task(name).state for name in waits}
            assert set(states.values()).isdisjoint({"failed", "up_for_retry"}), airflow.log_tails()
            rescheduled.update(name for name in waits if states[name] == "up_for_reschedule")
            return rescheduled == waits

        airflow.wait_until("all have polled, and wait without a worker", have, TIMEOUT)

    all_poll_again()
    token = fresh_token()
    airflow.reconnect("cfbilling_default", sandbox.connection_uri(token=token))
    sandbox.configure(token=token)
    for operation in ("getCreditBalance", "checkTopupStatus"):
        sandbox.fault(operation, "status", status=503, times=2)
    all_poll_again()
    sandbox.configure_server(clock_offset_seconds=HOUR)
    sandbox.configure(balance_cents=1500)
    sandbox.auto_topup("break")
    airflow.wait_until(
        "all have ended", lambda: {name: airflow.run_state(name) for name in ends} == ends, TIMEOUT
    )
    assert airflow.task("impatient_softly").state == "skipped"
    assert {airflow.task(name).try_number for name in ends} == {1}
    assert airflow.xcoms("balance")["return_value"]["balance_cents"] < 20_000
    assert airflow.xcoms("broken")["return_value"]["state"] == "failing"
    assert airflow.xcoms("completed")["return_value"] == {"payment_intent_id": topup, "status": "completed"}


@pytest.mark.skipif(not HAS_API_SERVER, reason="AssetWatcher came with Airflow 3.0")
def test_edges_start_dag_runs_once_each(sandbox: Sandbox, stack: ExitStack) -> None:
    """The example Dags. What lasts starts nothing, and no restart of the triggerer starts anything again."""
    names = ["topup_on_low_balance", "topup_on_broken_auto_topup"]
    low, broken = dag_ids = [f"cfbilling_{name}" for name in names]
    sources = [(EXAMPLES / f"{name}.py").read_text() for name in names]
    dags = "\n".join(source.replace("poll_interval=60", "poll_interval=0.5") for source in sources)
    assert dags.count("poll_interval=0.5") == 2
    sandbox.configure(balance_cents=5000, settle_seconds=0)
    airflow = stack.enter_context(airflow_with(dags, dag_ids, sandbox))

    def polls() -> None:
        seen = len(sandbox.requests("getCreditBalance"))
        airflow.wait_until("it polls", lambda: len(sandbox.requests("getCreditBalance")) > seen + 4, TIMEOUT)

    def started(dag_id: str, runs: int) -> None:
        airflow.wait_until(
            f"{dag_id} has run {runs} times",
            lambda: airflow.run_states(dag_id) == ["success"] * runs,
            TIMEOUT,
        )
        polls()
        assert airflow.run_states(dag_id) == ["success"] * runs

    polls()
    assert airflow.run_states(low) == airflow.run_states(broken) == []
    sandbox.configure(balance_cents=500)
    started(low, 1)
    assert [charge.amount_cents for charge in sandbox.charges()] == [2500]

    sandbox.auto_topup("break", last_failed_at=1_700_000_000)
    started(broken, 1)
    message = airflow.xcoms(broken)["return_value"]
    assert message == "The automatic top-up is failing: card_declined."

    sandbox.configure(topup_outcome="declined", balance_cents=500)
    airflow.wait_until("it fires", lambda: len(airflow.run_states(low)) == 2, TIMEOUT)
    with airflow.without("triggerer"):
        pass
    polls()
    assert len(airflow.run_states(low)) == 2
    assert airflow.run_states(broken) == ["success"]

    sandbox.auto_topup("break", last_failed_at=1_700_000_600)
    airflow.wait_until("it fires", lambda: len(airflow.run_states(broken)) == 2, TIMEOUT)
    assert len(sandbox.charges()) == 1


@pytest.mark.skipif(not HAS_TASK_STATE_STORE, reason="the asset state store came with Airflow 3.3")
def test_edge_without_a_triggerer_is_not_missed(sandbox: Sandbox, stack: ExitStack) -> None:
    name = "topup_on_low_balance"
    dags = (EXAMPLES / f"{name}.py").read_text().replace("poll_interval=60", "poll_interval=0.5")
    sandbox.configure(balance_cents=5000, settle_seconds=0)
    airflow = stack.enter_context(airflow_with(dags, [f"cfbilling_{name}"], sandbox))
    airflow.wait_until("it polls", lambda: len(sandbox.requests("getCreditBalance")) > 2, TIMEOUT)
    with airflow.without("triggerer"):
        sandbox.configure(balance_cents=500)
    airflow.wait_until(
        "it has started a run", lambda: airflow.run_states(f"cfbilling_{name}") == ["success"], TIMEOUT
    )
    assert len(sandbox.charges()) == 1
