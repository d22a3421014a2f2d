"""The example Dags, each run by Airflow against the sandbox and judged by the sandbox's ledger."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder, Run
from tests.real_airflow.deployment import HAS_API_SERVER

EXAMPLES = Path(__file__).parents[2] / "example_dags"
SECOND_ACCOUNT = "0123456789abcdef0123456789abcdf0"
A_DAY = 86_400
# They need Airflow 3.0, and are run by a real triggerer, in tests/real_airflow.
STARTED_BY_EVENTS = {"topup_on_broken_auto_topup", "topup_on_low_balance"}
IMPATIENT = {"timedelta(minutes=15)": "timedelta(seconds=0.1)", "timedelta(days=365)": "timedelta(seconds=1)"}

# Imports each file, after Airflow itself, with every deprecation as an error, and prints what it defines.
PARSE = """
import json, runpy, sys, warnings
import airflow.providers.common.compat.sdk as sdk
import airflow.triggers.base
sdk.DAG, sdk.BaseOperator, sdk.BaseSensorOperator, sdk.task, sdk.Param
for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
    warnings.simplefilter("error", category)
found = {}
for path in sys.argv[1:]:
    dag = runpy.run_path(path)["dag"]
    dag.validate()
    found[path] = {
        "dag_id": dag.dag_id, "doc": dag.doc_md, "tags": sorted(dag.tags), "tasks": sorted(dag.task_ids),
        "catchup": dag.catchup, "max_active_runs": dag.max_active_runs,
    }
print(json.dumps(found))
"""


@pytest.fixture(autouse=True)
def settled_at_once(sandbox: Sandbox) -> None:
    """The examples poll every 30 seconds, as in production: so the first poll finds it done."""
    sandbox.configure(settle_seconds=0)


def run(dag_folder: DagFolder, name: str, replacing: dict[str, str] | None = None) -> Run:
    """Run an example, with some of its text replaced."""
    source = (EXAMPLES / f"{name}.py").read_text()
    for old, new in (replacing or {}).items():
        assert source.count(old) == 1
        source = source.replace(old, new)
    return dag_folder.run_source(f"cfbilling_{name}", source)


def amounts(sandbox: Sandbox, account_id: str | None = None) -> list[int]:
    return [charge.amount_cents for charge in sandbox.charges(account_id)]


def test_weekly_topup_charges_25_dollars(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    before = sandbox.balance_cents()
    weekly = run(dag_folder, "weekly_topup")
    (charge,) = sandbox.charges()
    assert (weekly.state, weekly.tasks) == ("success", {"topup": "success"})
    assert (charge.amount_cents, charge.status) == (2500, "paid")
    assert sandbox.balance_cents() == pytest.approx(before + 2500)
    result = weekly.result("topup")
    assert (result["payment_intent_id"], result["status"]) == (charge.invoice_id, "completed")


def test_topup_when_low_charges_50_dollars_below_10_dollars(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(balance_cents=999.99)
    low = run(dag_folder, "topup_when_low")
    assert (low.state, low.tasks) == ("success", {"topup": "success"})
    assert amounts(sandbox) == [5000]
    assert low.result("topup")["amount_cents"] == 5000


def test_topup_when_low_is_skipped_at_10_dollars(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(balance_cents=1000)
    enough = run(dag_folder, "topup_when_low")
    assert (enough.state, enough.tasks) == ("success", {"topup": "skipped"})
    assert enough.result("topup") is None
    assert sandbox.requests("createTopup") == []
    assert amounts(sandbox) == []


def test_topup_when_low_may_spend_105_dollars_a_month(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.add_invoice(5250, origin="auto")
    low = run(dag_folder, "topup_when_low")
    assert (low.state, low.tasks) == ("success", {"topup": "success"})
    assert amounts(sandbox) == [5000]


def test_topup_when_low_never_exceeds_105_dollars_a_month(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.add_invoice(5251, origin="auto")
    low = run(dag_folder, "topup_when_low")
    assert (low.state, low.tasks) == ("failed", {"topup": "failed"})
    assert sandbox.requests("createTopup") == []
    assert amounts(sandbox) == []
    assert "The budget is 10500 cents ($105.00) a month" in low.ends


def test_keep_two_weeks_buys_what_is_missing_to_100_dollars(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(balance_cents=3000, spend_per_day_cents=300)
    assert run(dag_folder, "keep_two_weeks").tasks == {"topup": "success"}
    assert amounts(sandbox) == [7000]


def test_keep_two_weeks_is_skipped_while_they_are_there(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(balance_cents=4500, spend_per_day_cents=300)
    assert run(dag_folder, "keep_two_weeks").tasks == {"topup": "skipped"}
    assert amounts(sandbox) == []


def test_keep_two_weeks_may_use_up_200_dollars_a_month(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(balance_cents=3000, spend_per_day_cents=300)
    sandbox.add_invoice(12_651, origin="auto")
    two_weeks = run(dag_folder, "keep_two_weeks")
    assert two_weeks.tasks == {"topup": "failed"}
    assert amounts(sandbox) == []
    assert "The budget is 20000 cents ($200.00) a month" in two_weeks.ends


def test_watchdog_tops_up_by_hand_and_notifies(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.auto_topup("break", error="card_declined", last_failed_at=time.time() - A_DAY / 2)
    watchdog = run(dag_folder, "auto_topup_watchdog")
    (charge,) = sandbox.charges()
    assert watchdog.state == "success"
    assert set(watchdog.tasks.values()) == {"success"}
    assert charge.amount_cents == 2500
    assert watchdog.result("auto_topup_is_broken")["error"] == "card_declined"
    assert watchdog.result("notify") == (
        "The automatic top-up is failing (card_declined). "
        f"Topped up by hand: $25.00, invoice {charge.invoice_id}."
    )


def test_watchdog_notifies_without_charging_while_enough_is_left(
    sandbox: Sandbox, dag_folder: DagFolder
) -> None:
    sandbox.configure(balance_cents=1000)
    sandbox.auto_topup("disable", reason="too_many_failures")
    watchdog = run(dag_folder, "auto_topup_watchdog")
    assert watchdog.state == "success"
    assert watchdog.tasks["topup_by_hand"] == "skipped"
    assert amounts(sandbox) == []
    assert watchdog.result("notify") == (
        "The automatic top-up is disabled (too_many_failures). Nothing was charged: $10.00 or more are left."
    )


def test_watchdog_whose_topup_is_declined_fails(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.auto_topup("break")
    sandbox.configure(topup_outcome="declined")
    watchdog = run(dag_folder, "auto_topup_watchdog")
    assert watchdog.state == "failed"
    assert watchdog.tasks["topup_by_hand"] == "failed"
    assert watchdog.tasks["notify"] == "upstream_failed"
    assert amounts(sandbox) == []


@pytest.mark.parametrize("broken_days_ago", [None, 2])
def test_watchdog_waits_while_nothing_has_broken_since_yesterday(
    sandbox: Sandbox, dag_folder: DagFolder, broken_days_ago: int | None
) -> None:
    if broken_days_ago:
        sandbox.auto_topup("break", last_failed_at=time.time() - broken_days_ago * A_DAY)
    watchdog = run(dag_folder, "auto_topup_watchdog", IMPATIENT)
    assert watchdog.tasks["auto_topup_is_broken"] == "failed"  # its patience, a year in the file, has ended
    assert len(sandbox.requests("getCreditBalance")) > 1
    assert amounts(sandbox) == []


def test_many_accounts_charges_each_its_amount(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(SECOND_ACCOUNT, settle_seconds=0)
    many = run(dag_folder, "many_accounts")
    assert many.state == "success"
    assert amounts(sandbox, sandbox.account_id) == [2500]
    assert amounts(sandbox, SECOND_ACCOUNT) == [10_000]
    results = [many.result(f"topup[{index}]") for index in range(2)]
    assert [result["account_id"] for result in results] == [sandbox.account_id, SECOND_ACCOUNT]


def test_many_accounts_go_on_without_a_declined_one(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(topup_outcome="declined")
    sandbox.configure(SECOND_ACCOUNT, settle_seconds=0)
    many = run(dag_folder, "many_accounts")
    assert many.state == "failed"
    assert many.tasks == {"topups": "success", "topup[0]": "failed", "topup[1]": "success"}
    assert amounts(sandbox, sandbox.account_id) == []
    assert amounts(sandbox, SECOND_ACCOUNT) == [10_000]


def test_examples_parse_without_deprecations_and_are_documented() -> None:
    paths = sorted(
        str(path) for path in EXAMPLES.glob("*.py") if HAS_API_SERVER or path.stem not in STARTED_BY_EVENTS
    )
    parsed = subprocess.run(
        [sys.executable, "-c", PARSE, *paths],
        env=os.environ | {"AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert parsed.returncode == 0, parsed.stderr
    found = json.loads(parsed.stdout.splitlines()[-1])
    assert list(found) == paths
    for path, dag in found.items():
        assert dag["dag_id"] == f"cfbilling_{Path(path).stem}"
        assert 2 <= dag["doc"].count(".\n") + dag["doc"].count(". ") <= 8
        assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)
        assert "cloudflare" in dag["tags"]
