"""Credentials are renewed while something waits: it reads the connection again, and goes on."""

from collections.abc import Callable

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder
from tests.raw_servers import fresh_token
from tests.sensors.test_waits import MODES, after_polls


@pytest.fixture
def renew(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Update the connection, then revoke the old token."""

    def renew() -> None:
        token = fresh_token()
        monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token=token))
        sandbox.configure(token=token)

    return renew


@pytest.mark.parametrize("mode", MODES)
def test_sensor_outlives_the_token_that_it_began_with(
    sandbox: Sandbox, dag_folder: DagFolder, renew: Callable[[], None], mode: str
) -> None:
    def renew_then_break() -> None:
        for _ in range(2):
            renew()
            after_polls(sandbox, "getCreditBalance", lambda: None, count=2, status=200).join()
        sandbox.auto_topup("break")

    renewing = after_polls(sandbox, "getCreditBalance", renew_then_break)
    run = dag_folder.run(
        f"CfBillingTopupConfigErrorSensor(task_id='task', poke_interval=0.2, timeout=30, {mode})"
    )
    renewing.join()
    assert run.state == "success"
    assert run.ends == ""


@pytest.mark.parametrize("deferrable", [False, True])
def test_topup_outlives_the_token_that_it_began_with(
    sandbox: Sandbox, dag_folder: DagFolder, renew: Callable[[], None], deferrable: bool
) -> None:
    sandbox.configure(settle_seconds=2)
    renewing = after_polls(sandbox, "checkTopupStatus", renew)
    run = dag_folder.run(
        "CfBillingCreateTopupOperator(task_id='task', amount_cents=2500, poll_interval=0.2,"
        f" deferrable={deferrable})"
    )
    renewing.join()
    assert run.state == "success"
    assert run.ends == ""
    assert len(sandbox.charges()) == 1


@pytest.mark.parametrize("deferrable", [False, True])
def test_search_for_a_lost_charge_outlives_its_token(
    sandbox: Sandbox, dag_folder: DagFolder, renew: Callable[[], None], deferrable: bool
) -> None:
    sandbox.configure(settle_seconds=0, history_lag_seconds=2)
    sandbox.fault("createTopup", "reset", "after")
    renewing = after_polls(sandbox, "getInvoiceHistory", renew, count=4)
    run = dag_folder.run(
        "CfBillingCreateTopupOperator(task_id='task', amount_cents=2500, poll_interval=0.2,"
        f" deferrable={deferrable})"
    )
    renewing.join()
    assert run.result()["outcome"] == "adopted"
    assert len(sandbox.charges()) == 1


@pytest.mark.usefixtures("short_backoff")
@pytest.mark.parametrize("mode", MODES)
def test_connection_that_has_not_changed_ends_the_wait(
    sandbox: Sandbox, dag_folder: DagFolder, mode: str
) -> None:
    revoking = after_polls(sandbox, "getCreditBalance", lambda: sandbox.configure(token=fresh_token()))
    run = dag_folder.run(
        f"CfBillingTopupConfigErrorSensor(task_id='task', poke_interval=0.2, timeout=30, {mode})"
    )
    revoking.join()
    assert run.state == "failed"
    assert "refused the credentials" in run.ends


@pytest.mark.parametrize("mode", MODES)
def test_deleted_connection_ends_the_wait_with_the_refusal(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def revoke() -> None:
        monkeypatch.delenv("AIRFLOW_CONN_CFBILLING_DEFAULT")
        sandbox.configure(token=fresh_token())

    revoking = after_polls(sandbox, "getCreditBalance", revoke)
    run = dag_folder.run(
        f"CfBillingTopupConfigErrorSensor(task_id='task', poke_interval=0.2, timeout=30, {mode})"
    )
    revoking.join()
    assert run.state == "failed"
    if "reschedule" not in mode:  # which reads the connection at each poll
        assert "refused the credentials" in run.ends
