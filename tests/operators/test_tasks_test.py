"""`airflow tasks test`, which gives a task the try number 0."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder

SOURCE = """\
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator

with DAG("tried_by_hand", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    CfBillingCreateTopupOperator(task_id="topup", amount_cents=2500, poll_interval=0.1)
"""


@pytest.mark.timeout(150)
def test_task_tested_by_hand_charges_and_adopts_nothing(
    sandbox: Sandbox, dag_folder: DagFolder, tmp_path: Path
) -> None:
    other = sandbox.add_invoice(2500, amount_due_cents=2625)  # of another Dag run, just now
    # An Airflow of its own: another process at this one's database would take its journal away.
    dag_folder.copy_database(tmp_path)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "tried_by_hand.py").write_text(SOURCE)
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "tasks", "test", "tried_by_hand", "topup", "2026-01-31"],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    (charge,) = sandbox.charges()
    assert charge.invoice_id != other.id
    assert f"Top-up {charge.invoice_id} is completed" in done.stdout
