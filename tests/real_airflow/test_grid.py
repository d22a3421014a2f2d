"""A month in the grid: which runs charged, which did not need to, and which failed can be told apart."""

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.chromium import browser, keep_screenshot, needs_chromium
from tests.real_airflow.deployment import AIRFLOW_VERSION, WITH_UI, Airflow, an_airflow_can_run_here

pytestmark = [
    *an_airflow_can_run_here(seconds=300),
    needs_chromium,
    pytest.mark.skipif(AIRFLOW_VERSION < (3, 2), reason="the grids of earlier versions are others"),
]

DAYS = 28
SPENT_A_DAY = 350  # cents
DECLINED_ON = 17
DAG_ID = "topup_when_low"
# What a person sets under "Options", and by moving the line between grid and details.
SHOW_THE_MONTH = f"""
localStorage.setItem("dag_runs_limit-{DAG_ID}", "50");
localStorage.setItem("react-resizable-panels:grid-ltr", JSON.stringify(
    {{"details-panel,main-panel": {{expandToSizes: {{}}, layout: [68, 32]}}}}));
"""
DAG = """
from datetime import UTC, datetime

from airflow.sdk import DAG
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator

start = datetime({start}, tzinfo=UTC)
with DAG("topup_when_low", schedule="@daily", start_date=start, catchup=True, max_active_runs=1):
    CfBillingCreateTopupOperator(
        task_id="topup",
        amount_cents=2500,
        only_if_balance_below_cents=1000,
        max_run_age=None,
        poll_interval=0.2,
    )
"""


def test_month_shows_what_was_charged(sandbox: Sandbox, stack: ExitStack) -> None:
    sandbox.configure(settle_seconds=0, balance_cents=2600)
    start = datetime.now(UTC) - timedelta(days=DAYS)
    dag = DAG.format(start=f"{start:%Y, %-m, %-d}")
    connection = {"AIRFLOW_CONN_CFBILLING_DEFAULT": sandbox.connection_uri()}
    airflow = stack.enter_context(Airflow(dag, [DAG_ID], connection, WITH_UI))
    over = 0

    def month_is_over() -> bool:
        nonlocal over
        ended = [state for state in airflow.task_states(DAG_ID) if state in ("success", "skipped", "failed")]
        while over < len(ended):
            over += 1
            sandbox.configure(
                balance_cents=sandbox.balance_cents() - SPENT_A_DAY,
                topup_outcome="declined" if over == DECLINED_ON else "paid",
            )
        return over >= DAYS

    airflow.wait_until("a month is over", month_is_over, seconds=240)
    states = airflow.task_states(DAG_ID)
    assert states.count("success") == len([c for c in sandbox.charges() if c.status == "paid"]) > 2
    assert states.count("skipped") > 2 * states.count("success")
    with browser(1100, 300) as context:
        context.add_init_script(SHOW_THE_MONTH)
        page = context.new_page()
        page.goto(f"{airflow.url}/dags/{DAG_ID}", wait_until="networkidle")
        expect(page.locator("a[href*='/tasks/topup']")).to_have_count(len(states))
        keep_screenshot(page, "month-in-the-grid")
