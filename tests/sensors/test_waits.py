"""Sensors for the balance and for a top-up, and sensors that start in the triggerer, in real Dag runs."""

import time
from collections.abc import Callable
from threading import Thread

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sensors.cfbilling import (
    CfBillingCreditBalanceSensor,
    CfBillingTopupCompletedSensor,
)
from tests.airflow_runs import DagFolder, Run
from tests.raw_servers import PATIENCE

MODES = ["mode='poke'", "mode='reschedule'", "deferrable=True", "start_from_trigger=True"]

TOPUP = """\
topup = CfBillingCreateTopupOperator(task_id='topup', amount_cents=2500, wait_for_completion=False)
topup_id = topup.output['payment_intent_id']
"""


def wait(dag_folder: DagFolder, sensor: str, arguments: str) -> Run:
    return dag_folder.run(f"{sensor}(task_id='task', poke_interval=0.2, timeout=20, {arguments})")


def after_polls(
    sandbox: Sandbox,
    operation: str,
    act: Callable[[], object],
    count: int = 2,
    status: int | None = None,
) -> Thread:
    """Do something once there were so many more polls, with ``status`` if that matters."""

    def polls() -> int:
        return sum(status in (None, request.status) for request in sandbox.requests(operation))

    def run() -> None:
        deadline = time.monotonic() + PATIENCE
        last = count + (polls() if status else 0)
        while polls() < last and time.monotonic() < deadline:
            time.sleep(0.05)
        act()

    thread = Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("line", "before", "after"),
    [("below_cents=2000", 2000, 1999.5), ("at_least_cents='{{ 2000 }}'", 1999.9, 2000)],
)
def test_sensor_waits_until_the_balance_crosses_the_line(
    sandbox: Sandbox, dag_folder: DagFolder, mode: str, line: str, before: float, after: float
) -> None:
    if "start_from" in mode:
        line = line.replace("'{{ 2000 }}'", "2000")
    sandbox.configure(balance_cents=before)
    crossing = after_polls(sandbox, "getCreditBalance", lambda: sandbox.configure(balance_cents=after))
    run = wait(dag_folder, "CfBillingCreditBalanceSensor", f"{line}, {mode}")
    crossing.join()
    assert run.state == "success"
    assert run.result()["balance_cents"] == after


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("days", ["5", "'{{ 5 }}'"])
def test_sensor_waits_until_the_credits_last_for_less(
    sandbox: Sandbox, dag_folder: DagFolder, mode: str, days: str
) -> None:
    line = f"below_days={'5' if 'start_from' in mode else days}"
    sandbox.configure(balance_cents=1500, spend_per_day_cents=240)
    crossing = after_polls(sandbox, "getUsageHistory", lambda: sandbox.configure(balance_cents=1000))
    run = wait(dag_folder, "CfBillingRunwaySensor", f"{line}, {mode}")
    crossing.join()
    assert run.state == "success"
    assert (run.result()["balance_cents"], run.result()["observed_days"]) == (1000, 7)
    assert 4 < run.result()["days_left"] < 5


@pytest.mark.parametrize("mode", MODES[:3])
def test_days_that_are_none_fail_without_a_request(
    sandbox: Sandbox, dag_folder: DagFolder, mode: str
) -> None:
    run = wait(dag_folder, "CfBillingRunwaySensor", f"below_days='{{{{ -1 }}}}', {mode}")
    assert run.state == "failed"
    assert "below_days must be a number of days above 0; got '-1'" in run.ends
    assert sandbox.requests() == []


@pytest.mark.parametrize("mode", MODES[:3])
def test_sensor_waits_until_a_topup_has_settled(sandbox: Sandbox, dag_folder: DagFolder, mode: str) -> None:
    sandbox.configure(settle_seconds=1.5)
    run = dag_folder.run(
        f"{TOPUP}CfBillingTopupCompletedSensor(task_id='task', payment_intent_id=topup_id,"
        f" poke_interval=0.2, timeout=20, {mode})"
    )
    (charge,) = sandbox.charges()
    assert run.state == "success"
    assert run.result("topup")["status"] == "pending"
    assert run.result() == {"payment_intent_id": charge.invoice_id, "status": "completed"}


@pytest.mark.parametrize("mode", MODES[:3])
def test_unknown_topup_is_waited_for(sandbox: Sandbox, dag_folder: DagFolder, mode: str) -> None:
    sandbox.configure(settle_seconds=0, status_lag_seconds=6)  # longer than the second task takes to start
    run = dag_folder.run(
        f"{TOPUP}CfBillingTopupCompletedSensor(task_id='task', payment_intent_id=topup_id,"
        f" poke_interval=0.2, timeout=20, {mode})"
    )
    assert run.state == "success"
    assert 404 in [request.status for request in sandbox.requests("checkTopupStatus")]


@pytest.mark.parametrize("mode", MODES[:3])
def test_failed_payment_ends_the_wait_without_retry(
    sandbox: Sandbox, dag_folder: DagFolder, mode: str
) -> None:
    sandbox.configure(topup_outcome="void", settle_seconds=0)
    run = dag_folder.run(
        f"{TOPUP}CfBillingTopupCompletedSensor(task_id='task', payment_intent_id=topup_id,"
        f" poke_interval=0.2, timeout=20, retries=3, retry_delay=0.01, {mode})"
    )
    assert run.tasks == {"topup": "success", "task": "failed"}
    assert "its invoice is void" in run.ends
    assert len(sandbox.requests("checkTopupStatus")) == 1


def test_wait_in_the_triggerer_that_fails_says_why(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token="not-the-token"))
    run = wait(dag_folder, "CfBillingCreditBalanceSensor", "below_cents=2000, start_from_trigger=True")
    assert run.state == "failed"
    assert "The API token must be valid" in run.ends or "refused" in run.ends.lower()


def test_mapped_sensors_wait_each_for_their_own(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    run = dag_folder.run(
        "CfBillingCreditBalanceSensor.partial(task_id='task', poke_interval=0.2, timeout=20,"
        " start_from_trigger=True).expand(below_cents=[999_999, 888_888])"
    )
    assert run.tasks == {"task[0]": "success", "task[1]": "success"}


def test_bad_line_is_refused_before_any_request(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    run = wait(dag_folder, "CfBillingCreditBalanceSensor", "below_cents='{{ ds }}'")
    assert run.state == "failed"
    assert "below_cents must be a number of cents above 0 (1000 is $10.00)" in run.ends
    assert sandbox.requests() == []


@pytest.mark.parametrize("lines", [{}, {"below_cents": 1, "at_least_cents": 2}])
def test_exactly_one_line_is_required_at_parse_time(lines: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Give either below_cents or at_least_cents"):
        CfBillingCreditBalanceSensor(task_id="task", **lines)


def test_start_from_trigger_refuses_another_tasks_output() -> None:
    with DAG("dag", schedule=None):
        topup = CfBillingCreateTopupOperator(task_id="topup", amount_cents=2500).output["payment_intent_id"]
        CfBillingTopupCompletedSensor(task_id="deferred", payment_intent_id=topup, deferrable=True)
        with pytest.raises(ValueError, match="payment_intent_id must be known when the Dag is parsed"):
            CfBillingTopupCompletedSensor(task_id="task", payment_intent_id=topup, start_from_trigger=True)
