"""CfBillingTopupConfigErrorSensor in real Dag runs."""

from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sensors.cfbilling import CfBillingTopupConfigErrorSensor
from tests.airflow_runs import DagFolder, Run

MODES = ["mode='poke'", "mode='reschedule'", "deferrable=True"]

NOW = datetime.now(UTC)


def wait(dag_folder: DagFolder, arguments: str, timeout: float = 20) -> Run:
    return dag_folder.run(
        f"CfBillingTopupConfigErrorSensor(task_id='task', poke_interval=0.2, timeout={timeout}, {arguments})"
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("action", "state"), [("break", "failing"), ("disable", "disabled")])
def test_broken_auto_topup_ends_the_wait_at_once(
    sandbox: Sandbox, dag_folder: DagFolder, mode: str, action: str, state: str
) -> None:
    sandbox.auto_topup(action)
    run = wait(dag_folder, mode)
    assert run.state == "success"
    assert run.result()["state"] == state
    assert len(sandbox.requests()) == 1


@pytest.mark.parametrize("mode", MODES)
def test_sensor_waits_until_the_auto_topup_breaks(sandbox: Sandbox, dag_folder: DagFolder, mode: str) -> None:
    breaking = Thread(target=after_polls, args=(sandbox, 2, "break"))
    breaking.start()
    run = wait(dag_folder, mode)
    breaking.join()
    assert run.state == "success"
    assert run.result()["error"] == "card_declined"
    assert len(sandbox.requests("getCreditBalance")) > 2


@pytest.mark.parametrize("mode", MODES)
def test_sensor_waits_until_the_error_is_cleared(sandbox: Sandbox, dag_folder: DagFolder, mode: str) -> None:
    sandbox.auto_topup("disable")
    healing = Thread(target=after_polls, args=(sandbox, 2, "recover"))
    healing.start()
    run = wait(dag_folder, f"wait_for='cleared', {mode}")
    healing.join()
    assert run.state == "success"
    assert run.result()["state"] == "active"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("milliseconds", [False, True])
def test_failure_older_than_since_does_not_count(
    sandbox: Sandbox, dag_folder: DagFolder, mode: str, milliseconds: bool
) -> None:
    old = (NOW - timedelta(hours=1)).timestamp()
    sandbox.auto_topup("break", last_failed_at=old, milliseconds=milliseconds)
    breaking = Thread(target=after_polls, args=(sandbox, 2, "break"))
    breaking.start()
    run = wait(dag_folder, f"since='{NOW - timedelta(minutes=1)}', {mode}")
    breaking.join()
    assert run.state == "success"
    assert datetime.fromisoformat(run.result()["last_failed_at"]) > NOW - timedelta(minutes=1)
    assert len(sandbox.requests("getCreditBalance")) > 2


def test_rate_limit_does_not_fail_the_wait(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A token of its own: the pause outlives this test.
    sandbox.configure(token="rate-limited-token")
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token="rate-limited-token"))
    sandbox.auto_topup("break")
    sandbox.fault("getCreditBalance", "status", status=429, headers={"retry-after": "121"})
    run = wait(dag_folder, "mode='poke', soft_fail=True", timeout=0.5)
    assert run.tasks == {"task": "skipped"}  # by the sensor's own timeout
    assert len(sandbox.requests()) == 1


@pytest.mark.parametrize("mode", MODES)
def test_refused_credentials_fail_without_a_retry(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token="not-the-token"))
    run = wait(dag_folder, f"retries=2, retry_delay=0.01, {mode}")
    assert run.state == "failed"
    assert len(sandbox.requests()) == 1


@pytest.mark.parametrize("since", ["yesterday", "2026-01-31T00:00:00"])
def test_bad_since_is_refused_before_any_request(sandbox: Sandbox, dag_folder: DagFolder, since: str) -> None:
    run = wait(dag_folder, f"since={since!r}, mode='poke'")
    assert run.state == "failed"
    assert (
        "since must be a datetime with a time zone, or its text such as 2026-01-31T00:00:00+00:00" in run.ends
    )
    assert f"; got {since!r}" in run.ends
    assert sandbox.requests() == []


def test_bad_wait_for_is_refused_at_parse_time() -> None:
    with pytest.raises(ValueError, match="wait_for must be one of error, cleared; got 'errors'"):
        CfBillingTopupConfigErrorSensor(task_id="task", wait_for="errors")


def after_polls(sandbox: Sandbox, count: int, action: str) -> None:
    """Do something to the auto top-up once the sensor has polled so often."""
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    while len(sandbox.requests("getCreditBalance")) < count and datetime.now(UTC) < deadline:
        pass
    sandbox.auto_topup(action)
