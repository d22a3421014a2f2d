"""The commands of each page are typed, one after the other, in one shell: as someone does who follows it.

In place of Cloudflare stands a sandbox. What installs or builds is not done again here, where it has been:
``pip install`` and ``make`` only have to accept their arguments.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import metadata
from pathlib import Path
from urllib.parse import quote

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder
from tests.docs.pages import ROOT, blocks
from tests.real_airflow.deployment import free_port

SECONDS = 240
PAGES = sorted({block.page for block in blocks("console")})
PAGES_THAT_RUN_DAGS = {block.page for block in blocks("console") if "airflow dags test" in block.text}
# A typed line, with the lines that a backslash joins to it.
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)$", re.M)
DISTRIBUTION = "airflow-provider-cfbilling"
SERVES = "python -m airflow_provider_cfbilling.sandbox"
SHELL = """
set -euo pipefail
make() { command make --dry-run "$@" > /dev/null; }
pip() { [[ $1 == install && " $INSTALLABLE " == *" $2 "* ]]; }
"""


@pytest.mark.timeout(SECONDS + 30)
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_work(sandbox: Sandbox, dag_folder: DagFolder, tmp_path: Path, page: str) -> None:
    sandbox.configure(settle_seconds=0)
    port = free_port()
    type_in(list(commands_of(page, sandbox, port)), port, environment(page, dag_folder, tmp_path))


@pytest.mark.timeout(SECONDS + 30)
@pytest.mark.parametrize("page", [page for page in PAGES if page in PAGES_THAT_RUN_DAGS])
def test_commands_work_with_a_stored_connection_and_deferral(
    sandbox: Sandbox, dag_folder: DagFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    """Within `airflow dags test` a trigger cannot read a stored connection, on Airflow 3.3."""
    sandbox.configure(settle_seconds=0.5)
    monkeypatch.delenv("AIRFLOW_CONN_CFBILLING_DEFAULT")
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    port = free_port()
    store = (
        "airflow connections add cfbilling_default --conn-type cfbilling "
        f"--conn-login {sandbox.account_id} --conn-password {sandbox.token} --conn-host {sandbox.base_url}"
    )
    elsewhere = ("AIRFLOW_CONN_CFBILLING_DEFAULT", "airflow connections add cfbilling_default")
    commands = [
        command
        for command in commands_of(page, sandbox, port)
        if not any(text in command for text in elsewhere)
    ]
    type_in([store, *commands], port, environment(page, dag_folder, tmp_path))


def type_in(commands: Sequence[str], port: int, environment: dict[str, str]) -> None:
    script = [SHELL]
    for command in commands:
        script.append(f"echo {shlex.quote(f'$ {command}')}")
        if SERVES in command:
            command += f" --port {port} --settle-seconds 0 &\ntrap 'kill $(jobs -p)' EXIT\n"
            command += f"until (exec 3<> /dev/tcp/127.0.0.1/{port}) 2> /dev/null; do sleep 0.1; done"
        script.append(command)
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        # What is written stays in this test's own folder; what is made, is made in a clone.
        cwd=ROOT if any(command.startswith("make ") for command in commands) else environment["AIRFLOW_HOME"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout[-6000:]


def commands_of(page: str, sandbox: Sandbox, port: int) -> Iterator[str]:
    """Yield what is typed on a page, with a sandbox in Cloudflare's place."""
    mail_port = free_port()
    instead = {
        "my-token@": f"{sandbox.token}@{quote(sandbox.base_url, safe='')}",
        "--conn-password my-token": f"--conn-password {sandbox.token} --conn-host {sandbox.base_url}",
        "8765": str(port),
        "8025": str(mail_port),
    }
    for block in blocks("console"):
        if block.page == page:
            typed = COMMAND.findall(block.text)
            assert typed, f"nothing is typed in {block}"
            for command in typed:
                for written, meant in instead.items():
                    command = command.replace(written, meant)
                yield command


def environment(page: str, dag_folder: DagFolder, home: Path) -> dict[str, str]:
    """Return that of a shell in front of an Airflow whose Dag folder holds the Dags of the page."""
    dags = home / "dags"
    # Both define it: so that each can be read alone.
    home_of_the_dag = page if page == "README.md" else "index.md"
    shutil.copytree(ROOT / "example_dags", dags)
    for block in blocks("python"):
        if block.page == home_of_the_dag and "with DAG(" in block.text:
            (dags / f"{Path(block.page).stem}_{block.number}.py").write_text(block.text)
    dag_folder.copy_database(home)
    extras = metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "INSTALLABLE": " ".join(
            [DISTRIBUTION, "aiosmtpd", *(f"{DISTRIBUTION}[{extra}]" for extra in extras)]
        ),
    }
