"""Catch-up and backfill do not charge a card for each period that was missed, unless that is requested."""

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.real_airflow.deployment import Airflow, an_airflow_can_run_here

pytestmark = an_airflow_can_run_here(seconds=300)

TIMEOUT = 120.0
NOW = datetime.now(UTC)
TODAY = NOW.date()
DAYS, HOURS = 4, 5
DAGS = """
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator


def dag(name, start, schedule="@daily", catchup=True, **options):
    with DAG(name, schedule=schedule, start_date=start, catchup=catchup, max_active_runs=3):
        CfBillingCreateTopupOperator(
            task_id="topup", cfbilling_conn_id=name, amount_cents=2500, poll_interval=0.5, **options
        )


days_ago = datetime({days_ago}, tzinfo=UTC)
dag("caught_up", days_ago)
dag("requested", days_ago, max_run_age=None)
dag("hours_missed", datetime({hours_ago}, tzinfo=UTC), schedule="{minute} * * * *")
dag("filled", datetime(2020, 1, 1, tzinfo=UTC), catchup=False)
dag("once", days_ago, schedule="@once")
"""
NAMES = ["caught_up", "requested", "hours_missed", "filled", "once"]


def test_missed_periods_are_charged_only_on_request(stack: ExitStack) -> None:
    sandboxes = {name: stack.enter_context(Sandbox(settle_seconds=0.2)) for name in NAMES}
    days_ago, hours_ago = TODAY - timedelta(days=DAYS), NOW - timedelta(hours=HOURS)
    dags = DAGS.format(
        days_ago=f"{days_ago:%Y, %-m, %-d}",
        hours_ago=f"{hours_ago:%Y, %-m, %-d, %-H, %-M}",
        minute=(NOW.minute + 30) % 60,  # half an hour from now, so that no run comes due meanwhile
    )
    environment = {f"AIRFLOW_CONN_{name.upper()}": sandboxes[name].connection_uri() for name in NAMES}
    airflow = stack.enter_context(Airflow(dags, NAMES, environment))

    def all_runs_have_succeeded(name: str) -> bool:
        states = airflow.run_states(name)
        return len(states) >= min(DAYS, HOURS) and set(states) == {"success"}

    for name in ("caught_up", "requested", "hours_missed"):
        airflow.wait_until(f"{name} is up to date", lambda name=name: all_runs_have_succeeded(name), TIMEOUT)
    for name in ("caught_up", "hours_missed"):
        assert airflow.task_states(name)[-1] == "success"
        assert set(airflow.task_states(name)[:-1]) == {"skipped"}
        assert len(sandboxes[name].charges()) == 1
    assert set(airflow.task_states("requested")) == {"success"}
    assert len(sandboxes["requested"].charges()) == len(airflow.run_states("requested"))

    airflow.wait_until("the one run is over", lambda: airflow.run_states("once") == ["success"], TIMEOUT)
    assert len(sandboxes["once"].charges()) == 1

    airflow.backfill("filled", TODAY - timedelta(days=30), TODAY - timedelta(days=27))
    # And one run for the latest period, which the schedule wants of a Dag that is switched on.
    airflow.wait_until("the gap is filled", lambda: airflow.run_states("filled") == ["success"] * 5, TIMEOUT)
    assert sorted(airflow.task_states("filled")) == ["skipped"] * 4 + ["success"]
    assert len(sandboxes["filled"].charges()) == 1
