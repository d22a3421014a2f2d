"""A part of the matrix that takes less than a minute; ``make faults`` runs all of it, many times."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TAX_IS_FORGOTTEN = """
import sys
from airflow_provider_cfbilling.charging import reconcile
from tests.faults.__main__ import main
reconcile.MAX_FEE_AND_TAX = 1.0
sys.exit(main(sys.argv[1:]))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A process of its own: the lab forks, which is not for a process that has threads.
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=110)


def test_every_task_charges_at_most_once_and_reports_it() -> None:
    ran = python("-m", "tests.faults", "--trials", "90", "--seconds", "35")
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]


def test_the_lab_sees_a_double_charge() -> None:
    ran = python("-c", TAX_IS_FORGOTTEN, "--rows", "POST lost, with fee and tax", "--trials", "2")
    assert (ran.returncode, ran.stdout.count("double: --rows")) == (1, 2), ran.stdout + ran.stderr


FENCE_IS_FORGOTTEN = """
import sys
from airflow_provider_cfbilling.charging.unfenced_journal import UnfencedJournal
from tests.faults.__main__ import main
UnfencedJournal._check_not_superseded = lambda self: None
sys.exit(main(sys.argv[1:]))
"""


def test_the_lab_sees_a_charge_of_an_orphan() -> None:
    row = r"^frozen as it queries the history, next try over \[waiting, variables\]$"
    ran = python("-c", FENCE_IS_FORGOTTEN, "--rows", row, "--trials", "2")
    assert (ran.returncode, ran.stdout.count("double: --rows")) == (1, 2), ran.stdout + ran.stderr
