"""The command line and the page."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import pytest
import requests

from airflow_provider_cfbilling.sandbox import Sandbox, SandboxClient
from airflow_provider_cfbilling.sandbox.models import Account

COMMAND = [sys.executable, "-m", "airflow_provider_cfbilling.sandbox"]


@contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command line's process, and what it printed up to its last line of greeting."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        greeting = ""
        for line in process.stdout:
            greeting += line
            if line.startswith("Stop it"):
                break
        yield process, greeting
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_line_serves_until_stopped(number, tmp_path):
    with served("--accounts", "2", "--settle-seconds", "0", "--database", str(tmp_path / "books")) as (
        process,
        greeting,
    ):
        uris = re.findall(r"='(cfbilling://[^']+)'", greeting)
        assert len(uris) == 2
        base_url = unquote(uris[0].rpartition("@")[2])
        client = SandboxClient(base_url.removesuffix("/client/v4"))
        assert uris[0] == client.connection_uri()
        client.auto_topup("perform", amount_cents=1000)
        assert client.balance_cents() == 1640.19
        client.fault("createTopup", "hang")

        process.send_signal(number)

        _, errors = process.communicate(timeout=10)
        assert (process.returncode, errors) == (0, "")
        assert (tmp_path / "books").exists()


def test_command_line_binds_to_loopback_and_says_so():
    with served() as (_, greeting):
        assert "http://127.0.0.1:" in greeting
        assert "Only this machine can reach it." in greeting


def test_command_line_warns_on_another_host():
    with served("--host", "0.0.0.0") as (process, greeting):
        assert "Only this machine" not in greeting
        process.terminate()
        assert "everyone who reaches 0.0.0.0 can change everything" in process.communicate(timeout=10)[1]


def test_command_line_names_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finished = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, timeout=30)

    assert finished.returncode == 1
    assert f"Cannot listen on 127.0.0.1, port {port}" in finished.stderr


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_missing_extra_is_named_by_the_command_line(missing):
    code = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "from airflow_provider_cfbilling.sandbox.__main__ import main\n"
        "sys.exit(main(['--port', '0']))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert finished.returncode == 1
    assert finished.stderr.strip().endswith("pip install 'airflow-provider-cfbilling[sandbox]'")


def test_page_is_self_contained(sandbox: Sandbox):
    response = requests.get(sandbox.url, timeout=5)

    assert response.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "//" not in re.sub(r"^// .*$", "", response.text, flags=re.MULTILINE)
    assert not re.search(r"innerHTML|insertAdjacent|document\.write|\bsrc=", response.text)


def test_page_uses_only_known_switches(sandbox: Sandbox):
    page = requests.get(sandbox.url, timeout=5).text

    for action in re.findall(r'autoTopup\("(\w+)"\)', page):
        sandbox.auto_topup(action)
    switches = [from_javascript(each) for each in re.findall(r"configure\((\{.*?\})\)", page)]
    (usual,) = (from_javascript(each) for each in re.findall(r"const USUAL = (\{.*?\});", page))
    for each in (*switches, usual):
        sandbox.configure(**each)
    faults = [
        {"operation": operation, "kind": kind, **from_javascript(details)}
        for operation, kind, details in re.findall(r'fault\("(\S+)", "(\w+)", (\{.*?\})\)', page)
    ]
    for each in faults:
        sandbox.fault(**each)
    for name in re.findall(r"\bstate\.(\w+)", page):
        assert name in sandbox.state()
    assert {"next_topup_outcome": "declined", "declined_leaves": "void"} in switches
    assert usual == {name: getattr(Account(), name) for name in usual}
    assert {name for each in switches for name in each} >= set(usual)
    assert len(faults) == 6
    assert [each["operation"] for each in faults if each.get("times", 1) is None] == [
        "getTopupEligibility",
        "getTopupLimits",
    ]


def from_javascript(literal: str) -> dict[str, object]:
    """An object written as in JSON, except for the quotes around its keys."""
    return json.loads(re.sub(r"(\w+):", r'"\1":', literal))


def test_page_uses_only_known_charge_fields(sandbox: Sandbox):
    sandbox.auto_topup("perform")
    (charge,) = sandbox.state()["charges"]

    page = requests.get(sandbox.url, timeout=5).text

    shown = set(re.findall(r"\bcharge\.(\w+)", page))
    assert shown <= set(charge)
    assert {"amount_cents", "amount_due_cents"} <= shown
