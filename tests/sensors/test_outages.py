"""The same outage has the same end, wherever a sensor waits; and so have soft_fail and never_fail."""

import re
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_cfbilling import polling
from airflow_provider_cfbilling.api.errors import (
    CfBillingInvalidRequestError,
    CfBillingRateLimitError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.polling import Outage
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sensors.cfbilling import CfBillingTopupConfigErrorSensor
from tests.airflow_runs import DagFolder, Run
from tests.charging.virtual import VirtualTime
from tests.sensors.test_waits import MODES, after_polls

UNAVAILABLE = CfBillingUnavailableError("Cloudflare could not be reached", status=503)


pytestmark = pytest.mark.usefixtures("short_backoff")


@pytest.fixture(autouse=True)
def _reads_are_sent_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", f"{sandbox.connection_uri()}?max_attempts=1")


def watch(dag_folder: DagFolder, more: str) -> Run:
    return dag_folder.run(
        f"CfBillingTopupConfigErrorSensor(task_id='task', poke_interval=0.2, timeout=30, {more})"
    )


# outages


AWAY: dict[str, Any] = {"kind": "status", "status": 503, "html": True}


@pytest.mark.parametrize(
    ("mode", "outage"),
    [
        *[(mode, AWAY) for mode in MODES],
        *[
            (mode, {"kind": kind})
            for mode in ("mode='poke'", "deferrable=True")
            for kind in ("reset", "garbage")
        ],
    ],
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
def test_short_outages_cost_no_retry(
    sandbox: Sandbox, dag_folder: DagFolder, mode: str, outage: dict[str, Any]
) -> None:
    for _ in range(3):
        sandbox.fault("getCreditBalance", **outage, times=2, skip=1)
    breaking = after_polls(sandbox, "getCreditBalance", lambda: sandbox.auto_topup("break"), count=10)
    run = watch(dag_folder, mode)
    breaking.join()
    assert run.state == "success"
    assert run.result()["state"] == "failing"
    assert run.ends == ""  # no try has failed


@pytest.mark.parametrize("mode", MODES)
def test_outage_at_the_first_poll_is_retried(sandbox: Sandbox, dag_folder: DagFolder, mode: str) -> None:
    sandbox.auto_topup("break")
    sandbox.fault("getCreditBalance", "status", status=503)
    assert watch(dag_folder, mode).state == "success"


@pytest.mark.parametrize("mode", MODES)
def test_outage_that_lasts_fails_the_try(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(polling, "MAX_OUTAGE_SECONDS", 1.0)
    sandbox.fault("getCreditBalance", "status", status=503, times=None)
    run = watch(dag_folder, mode)
    assert run.state == "failed"
    assert re.search(r"All polls of the last [1-9]\d* s have failed", run.ends)  # longer on a busy machine


def test_outage_ends_with_the_sensors_own_timeout(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.fault("getCreditBalance", "status", status=503, times=None)
    run = dag_folder.run("CfBillingTopupConfigErrorSensor(task_id='task', poke_interval=0.2, timeout=1)")
    assert "timed out" in run.ends


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    time = VirtualTime()
    time.passed = 0.0
    monkeypatch.setattr(polling, "time", time)
    monkeypatch.setattr(polling, "_MAX_BACKOFF_SECONDS", 60.0)
    return time


def test_five_minute_outage_is_outlasted_at_any_interval(time: VirtualTime) -> None:
    outage, pauses = Outage(), []
    while time.passed <= 300:
        pauses.append(outage.failed(UNAVAILABLE))
        time.passed += pauses[-1]
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60, 60]
    time.passed += 301
    with pytest.raises(CfBillingUnavailableError, match=r"All polls of the last \d+ s have failed"):
        outage.failed(UNAVAILABLE)


def test_outages_do_not_add_up(time: VirtualTime) -> None:
    outage = Outage()
    for _ in range(100):
        time.passed += outage.failed(UNAVAILABLE)
        time.passed += 300
        outage.end()


def test_rate_limit_is_no_outage(time: VirtualTime) -> None:
    outage = Outage()
    for _ in range(100):
        assert outage.failed(CfBillingRateLimitError("used up", retry_after_seconds=300)) == 300
        time.passed += 300


def test_permanent_error_ends_the_wait_at_once() -> None:
    for error in (CfBillingInvalidRequestError("refused"), KeyError("a bug")):
        with pytest.raises(type(error)):
            Outage().failed(error)


# soft_fail, never_fail, silent_fail


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("failure", ["credentials", "outage", "value"])
def test_failed_wait_is_skipped_if_so_configured(
    sandbox: Sandbox,
    dag_folder: DagFolder,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    flag: str,
    failure: str,
) -> None:
    more = ""
    if failure == "credentials":
        monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token="not-the-token"))
    elif failure == "outage":
        monkeypatch.setattr(polling, "MAX_OUTAGE_SECONDS", 0.5)
        sandbox.fault("getCreditBalance", "status", status=503, times=None)
    else:
        more = ", since='yesterday'"
    assert watch(dag_folder, f"{mode}, {flag}=True, retries=2{more}").tasks == {"task": "skipped"}


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("mode", ["mode='poke'", "mode='reschedule'"])
def test_soft_fail_skips_a_timeout_on_the_worker(
    sandbox: Sandbox, dag_folder: DagFolder, mode: str, flag: str
) -> None:
    run = dag_folder.run(
        f"CfBillingTopupConfigErrorSensor(task_id='task', poke_interval=0.2, timeout=0.5, {mode},"
        f" {flag}=True)"
    )
    assert run.tasks == {"task": "skipped"}


TIMED_OUT = ["Trigger timeout", "Trigger/execution timeout"]  # as Airflow 3 and 2 say it


@pytest.mark.parametrize("error", TIMED_OUT)
@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_soft_fail_skips_a_timeout_in_the_triggerer(flag: str, error: str) -> None:
    flags: dict[str, Any] = {flag: True}
    sensor = CfBillingTopupConfigErrorSensor(task_id="task", deferrable=True, **flags)
    with pytest.raises(AirflowSkipException, match=f"{flag}: The wait has timed out"):
        sensor.resume_execution("__fail__", {"error": error}, {})


@pytest.mark.parametrize("error", TIMED_OUT)
def test_timeout_is_the_same_in_triggerer_and_worker(error: str) -> None:
    """Airflow fails a sensor's timeout without a retry, but not, on each of its versions, a trigger's."""
    from airflow.providers.common.compat.sdk import AirflowSensorTimeout

    sensor = CfBillingTopupConfigErrorSensor(task_id="task", deferrable=True, timeout=60)
    with pytest.raises(AirflowSensorTimeout, match="timed out after 60 s"):
        sensor.resume_execution("__fail__", {"error": error}, {})


@pytest.mark.parametrize("mode", MODES)
def test_silent_fail_outlasts_a_long_outage(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(polling, "MAX_OUTAGE_SECONDS", 0.3)
    sandbox.auto_topup("break")
    sandbox.fault("getCreditBalance", "status", status=503, times=6)
    assert watch(dag_folder, f"{mode}, silent_fail=True").state == "success"


# nothing to wait for

PAIR = """\
topup = CfBillingCreateTopupOperator(task_id='topup', amount_cents=2500, {topup})
CfBillingTopupCompletedSensor(
    task_id='task', payment_intent_id=topup.output['payment_intent_id'], poke_interval=0.2, timeout=20,
    trigger_rule='none_failed', {mode},
)
"""


@pytest.mark.parametrize("mode", MODES[:3])
def test_dry_run_leaves_nothing_to_wait_for(sandbox: Sandbox, dag_folder: DagFolder, mode: str) -> None:
    run = dag_folder.run(PAIR.format(topup="dry_run=True", mode=mode))
    assert run.tasks == {"topup": "success", "task": "skipped"}
    pushed = {key: value for (task, key), value in run.xcoms.items() if task == "topup"}
    assert (pushed.get("payment_intent_id"), pushed["outcome"]) == (None, "dry_run")
    assert sandbox.charges() == []


@pytest.mark.parametrize("mode", MODES[:3])
def test_skipped_topup_leaves_nothing_to_wait_for(sandbox: Sandbox, dag_folder: DagFolder, mode: str) -> None:
    run = dag_folder.run(PAIR.format(topup="only_if_balance_below_cents=1", mode=mode))
    assert run.tasks == {"topup": "skipped", "task": "skipped"}


def test_dry_run_pushes_what_a_real_one_pushes(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(settle_seconds=0)
    topup = "CfBillingCreateTopupOperator(task_id='task', amount_cents=2500, poll_interval=0.1{})"
    real, dry = (dag_folder.run(topup.format(more)) for more in ("", ", dry_run=True"))
    assert real.result().keys() == dry.result().keys()
    assert {"payment_intent_id", "status", "amount_cents", "account_id", "outcome"} <= dry.result().keys()
    keys = [{key for _, key in run.xcoms} - {"invoice_pdf"} for run in (real, dry)]  # of a link
    unknown = {key for key, value in dry.result().items() if value is None}
    assert keys[0] - unknown == keys[1]


def test_sensor_says_why_there_is_nothing_to_wait_for(
    sandbox: Sandbox, dag_folder: DagFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    run = dag_folder.run("CfBillingTopupCompletedSensor(task_id='task', payment_intent_id='{{ None }}')")
    assert run.tasks == {"task": "skipped"}
    said = "".join(capfd.readouterr())
    assert re.search("payment_intent_id is empty: the top-up was a dry run, or was skipped", said)


def test_ever_so_many_failures_are_waited_out(time: VirtualTime) -> None:
    outage = Outage(max_seconds=float("inf"))
    assert {outage.failed(UNAVAILABLE) for _ in range(2000)} == {2, 4, 8, 16, 32, 60}
