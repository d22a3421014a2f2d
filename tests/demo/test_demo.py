"""`demo/run.py`, run as `make demo` runs it."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox

DEMO = Path(__file__).parents[2] / "demo" / "run.py"

# The same demo with a sandbox whose account has a card that is declined.
DECLINED = """
import runpy, sys
from airflow_provider_cfbilling.sandbox import Sandbox

enter = Sandbox.__enter__
def enter_declining(sandbox):
    enter(sandbox).configure(topup_outcome="declined")
    return sandbox
Sandbox.__enter__ = enter_declining

sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all demos of this module, as there is one for a person."""
    return tmp_path_factory.mktemp("demo")


def run_demo(home: Path, *program: str) -> subprocess.CompletedProcess[str]:
    # A deployment of one's own in the environment: the demo must leave it alone.
    elsewhere = {
        "AIRFLOW_HOME": "/nonexistent",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nonexistent/airflow.db",
        "AIRFLOW_CONN_CFBILLING_DEFAULT": "cfbilling://wrong",
    }
    return subprocess.run(
        [sys.executable, *program, str(DEMO), "--home", str(home / ".demo")],
        cwd=home,
        env=os.environ | elsewhere,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_demo_charges_once_and_says_so(home: Path) -> None:
    demo = run_demo(home)
    said = demo.stdout
    assert demo.returncode == 0, said + demo.stderr
    with Sandbox(database=home / ".demo" / "sandbox.db") as sandbox:
        (charge,) = sandbox.charges()
        assert (charge.amount_cents, charge.status, charge.origin) == (2500, "paid", "manual")
        assert len(sandbox.requests("createTopup")) == 1
        assert len(sandbox.requests()) == len(re.findall(r"^ +(GET|POST) +\S+  200$", said, re.MULTILINE))
    assert f"Airflow {version('apache-airflow')} makes its database" in said
    assert "| All checks passed. Charging 2500 cents ($25.00)." in said
    for line in (
        "Dag run   success",
        "Charge    $25.00, paid",
        "Card      visa ending in 4242",
        f"Invoice   {charge.invoice_id}",
        "Balance   $6.40 before, $31.40 after",
        "The ledger holds exactly one charge, and the Dag run is green.",
    ):
        assert line in said
    assert "  .demo/dags-test.log\n" in said
    assert f"{charge.invoice_id}; it charges visa" in (home / ".demo" / "dags-test.log").read_text()
    assert "--database .demo/sandbox.db" in said
    assert demo.stderr == ""


def test_demo_reuses_its_database_and_fails_without_a_charge(home: Path) -> None:
    demo = run_demo(home, "-c", DECLINED)
    assert f"Airflow {version('apache-airflow')} uses the database of the last demo" in demo.stdout
    assert demo.returncode == 1
    assert "Dag run   failed" in demo.stdout
    assert demo.stdout.count("card_declined") == 1
    assert "The ledger holds 0 charges, not exactly one." in demo.stderr
    assert "Traceback" not in demo.stderr
    with Sandbox(database=home / ".demo" / "sandbox.db") as sandbox:
        assert sandbox.charges() == []
