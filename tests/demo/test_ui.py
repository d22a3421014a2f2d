"""`demo/ui.py`, run as `make ui` runs it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from tests.real_airflow.deployment import AIRFLOW_VERSION
from tests.real_airflow.processes import process_of

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="the credits page needs Airflow 3.1"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc"),
]

UI = Path(__file__).parents[2] / "demo" / "ui.py"


def processes_of(home: Path) -> list[str]:
    """Return the living processes that belong to an Airflow below ``home``, whatever their parent is."""
    found = []
    for entry in Path("/proc").iterdir():
        if (
            entry.name.isdecimal()
            and int(entry.name) != os.getpid()
            and (process := process_of(int(entry.name)))
        ):
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"AIRFLOW_HOME={home}".encode() in environment:
                found.append(process.title)
    return found


def ignore_ctrl_c() -> None:
    """As a shell does for what it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_page_is_served_until_ctrl_c(tmp_path: Path) -> None:
    home, said = tmp_path / ".demo", tmp_path / "said.txt"
    with said.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, str(UI), "--home", str(home)],
            cwd=tmp_path,
            env=os.environ
            | {"AIRFLOW_HOME": "/nonexistent", "AIRFLOW_CONN_CFBILLING_DEFAULT": "cfbilling://"},
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=ignore_ctrl_c,
        )
    try:
        deadline = time.monotonic() + 240
        while "Ctrl-C stops it." not in said.read_text():
            assert demo.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
        (address, base_url) = re.findall(r"Page +((http://127.0.0.1:\d+)\S+)", said.read_text())[0]
        assert address.endswith("/plugin/ai-gateway-credits")
        assert "Login     admin, password admin" in said.read_text()
        with requests.Session() as browser:
            browser.trust_env = False
            assert browser.get(address, timeout=30).ok
            assert browser.get(f"{base_url}/cfbilling/fragment", timeout=30).status_code == 401
            login = {"username": "admin", "password": "admin"}
            response = browser.post(f"{base_url}/auth/token", json=login, timeout=30)
            browser.cookies.set("_token", response.json()["access_token"])
            page = browser.get(f"{base_url}/cfbilling/fragment", timeout=30).text
        assert re.findall(r"<h2>(\w+)</h2>", page) == ["research", "support_bot", "cfbilling_default"]
        assert "card_declined" in page
        assert 'data-route="/dags/cfbilling_weekly_topup/runs/' in page
        assert len(processes_of(home)) > 4
    finally:
        demo.send_signal(signal.SIGINT)
        status = demo.wait(60)
    assert (status, said.read_text().splitlines()[-1]) == (0, "Stopped.")
    assert processes_of(home) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".demo", "said.txt"]
