"""A real Airflow and a real HTTP server for every test that wants them."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    from tests.airflow_runs import DagFolder
    from tests.mailbox import Mailbox

# Before anything imports airflow: its home is read once.
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="cfbilling-airflow-"))
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)
for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]
os.environ |= {
    "AIRFLOW_HOME": str(AIRFLOW_HOME),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    "NO_PROXY": "127.0.0.1,localhost",
}

from airflow_provider_cfbilling.sandbox import Sandbox  # noqa: E402

# How many inputs hypothesis tries: few while one works (make test), more in make test-all.
settings.register_profile("dev", max_examples=50, deadline=None, database=None)
settings.register_profile("all", max_examples=400, deadline=None, database=None)
settings.load_profile("dev")

# Whole Airflows, Airflow's commands, the fault lab: minutes. All else is the fast tier.
SLOW = (
    "demo/",
    "docs/test_commands.py",
    "docs/test_code_blocks.py",
    "faults/",
    "operators/test_tasks_test.py",
    "real_airflow/",
)
# Those that kill processes, or wait until Airflow takes one for dead: on a busy machine it is late, or wrong.
ALONE = (
    "faults/",
    "real_airflow/test_alerts.py",
    "real_airflow/test_catchup.py",
    "real_airflow/test_kills.py",
    "real_airflow/test_stories.py",
    "real_airflow/test_waiting.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        if path.startswith(SLOW):
            item.add_marker("slow")
        if path.startswith(ALONE):
            item.add_marker("alone")


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    with Sandbox(settle_seconds=0.2) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A fresh sandbox that the connection ``cfbilling_default`` points at."""
    running_sandbox.reset()
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", running_sandbox.connection_uri())
    return running_sandbox


@pytest.fixture
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits polls again soon after a failure."""
    monkeypatch.setattr("airflow_provider_cfbilling.polling._MAX_BACKOFF_SECONDS", 0.1)


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> "Iterator[Mailbox]":
    """A mailbox whose server the connection ``smtp_default`` points at."""
    from tests.mailbox import mail_server

    with mail_server() as (mailbox, uri):
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", uri)
        yield mailbox


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """This process's metadata database: migrated once for all, since that takes seconds, and copied."""
    ours = tmp_path_factory.getbasetemp()
    shared = ours if worker_id == "master" else ours.parent
    with FileLock(shared / "airflow.lock"):
        if not (shared / "airflow.db").exists():
            command = (sys.executable, "-m", "airflow", "db", "migrate")
            subprocess.run(command, check=True, capture_output=True)
            shutil.copy(AIRFLOW_HOME / "airflow.db", shared)
    return shutil.copy(shared / "airflow.db", AIRFLOW_HOME / "airflow.db")


@pytest.fixture(scope="session")
def dag_folder(airflow_database: Path) -> "DagFolder":
    """Airflow's Dag folder, in front of a migrated metadata database."""
    # It imports Airflow, which takes seconds: not for tests that need none.
    from tests.airflow_runs import DagFolder

    return DagFolder(airflow_database)
