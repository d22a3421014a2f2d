"""The operators that only read."""

from datetime import datetime

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder


def test_balance_is_returned_with_its_unit(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(balance_cents=640.19)
    run = dag_folder.run("CfBillingGetCreditBalanceOperator(task_id='task')")
    assert run.state == "success"
    assert run.result()["balance_cents"] == 640.19
    assert run.result()["payment_method"] == {"brand": "visa", "last4": "4242"}


def test_runway_is_returned_with_its_units(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(balance_cents=2400, spend_per_day_cents=240)
    run = dag_folder.run("CfBillingGetRunwayOperator(task_id='task')")
    assert run.state == "success"
    runway = run.result()
    assert (runway["balance_cents"], runway["observed_days"]) == (2400, 7)
    assert runway["days_left"] == pytest.approx(10, rel=0.05)
    assert datetime.fromisoformat(runway["ends_at"]).tzinfo is not None


@pytest.mark.parametrize(
    ("action", "state"),
    [("recover", "active"), ("break", "failing"), ("disable", "disabled"), ("unset", "unset")],
)
def test_configuration_is_returned_with_its_state(
    sandbox: Sandbox, dag_folder: DagFolder, action: str, state: str
) -> None:
    sandbox.auto_topup(action)
    run = dag_folder.run("CfBillingGetTopupConfigOperator(task_id='task')")
    assert run.state == "success"
    assert run.result()["state"] == state


def test_unknown_connection_setting_is_refused_by_name(
    sandbox: Sandbox,
    dag_folder: DagFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", f"{sandbox.connection_uri()}?retries=3")
    run = dag_folder.run("CfBillingGetCreditBalanceOperator(task_id='task', retries=1, retry_delay=0.01)")
    assert run.state == "failed"
    assert "Connection 'cfbilling_default' cannot be used" in run.ends
    assert "extra holds 'retries'; it may hold only email, connect_timeout, read_timeout" in run.ends
    assert sandbox.requests() == []
