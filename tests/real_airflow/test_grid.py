"""A month in the grid: runs that charged, that did not need to, and that failed can be distinguished."""

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
DAG_ID = "topup_when_low"
# As a person does who moves the line between grid and details.
WIDE_GRID = """
localStorage.setItem("react-resizable-panels:grid-ltr", JSON.stringify(
    {"details-panel,main-panel": {expandToSizes: {}, layout: [68, 32]}}));
"""
DAG = """
from datetime import UTC, datetime, timedelta

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
        retries=2,
        retry_delay=timedelta(seconds=1),
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
        states = airflow.task_states(DAG_ID)
        ended = [state for state in states if state in ("success", "skipped", "failed")]
        while over < len(ended):
            over += 1
            sandbox.configure(balance_cents=sandbox.balance_cents() - SPENT_A_DAY)
            if ended.count("success") == 2 and "failed" not in ended:
                sandbox.configure(next_topup_outcome="declined")
        return over > DAYS  # the day that it began with too

    airflow.wait_until("a month is over", month_is_over, seconds=240)
    states = airflow.task_states(DAG_ID)
    assert states.count("success") == len(sandbox.charges()) > 2
    assert states.count("failed") == 1
    assert states.count("skipped") > 2 * states.count("success")
    with browser(1200, 300) as context:
        context.add_init_script(WIDE_GRID)
        page = context.new_page()
        page.goto(f"{airflow.url}/dags/{DAG_ID}", wait_until="networkidle")
        page.get_by_role("button", name="Options").click()
        page.get_by_role("combobox").filter(has_text="10").click()
        page.get_by_role("option", name="50", exact=True).click()
        # One of each run, and the name of the task.
        expect(page.locator("a[href*='/tasks/topup']")).to_have_count(len(states) + 1)
        page.keyboard.press("Escape")
        expect(page.get_by_role("option")).to_have_count(0)
        page.get_by_role("heading").first.click()
        keep_screenshot(page, "month-in-the-grid")
