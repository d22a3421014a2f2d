from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import requests

from airflow_provider_cfbilling.sandbox import Sandbox, SandboxClient


def test_charges_are_counted_truthfully_under_parallel_clients(sandbox: Sandbox, topup):
    """Each client requests its own amount; some responses are lost, some requests before they are handled."""
    sandbox.configure(settle_seconds=0, max_cents=10_000_000)
    sandbox.configure_server(rate_quota=100_000)
    sandbox.fault("createTopup", "reset", when="after", times=20, skip=10)
    sandbox.fault("createTopup", "drop", when="before", times=20, skip=10)

    def client(number: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        for turn in range(25):
            try:
                seen[f"HTTP {topup(1000 + 100 * number + turn).status_code}"] += 1
            except requests.ConnectionError as error:
                seen["reset" if "reset by peer" in str(error) else "dropped"] += 1
        return seen

    with ThreadPoolExecutor(8) as clients:
        seen = sum(clients.map(client, range(8)), Counter())

    assert seen == {"HTTP 200": 160, "reset": 20, "dropped": 20}
    charges = sandbox.charges()
    assert len(charges) == 180
    assert len({charge.invoice_id for charge in charges}) == 180
    assert len({charge.amount_cents for charge in charges}) == 180
    assert len(sandbox.requests("createTopup")) == 200
    assert sandbox.balance_cents() == pytest.approx(640.19 + sum(charge.amount_cents for charge in charges))


def test_accounts_have_books_of_their_own(sandbox: Sandbox, topup):
    first, second = sandbox.state()["accounts"]
    sandbox.configure(settle_seconds=0)
    sandbox.configure(second, settle_seconds=0)

    topup(1000, account_id=first)
    topup(2000, account_id=second)

    assert [charge.amount_cents for charge in sandbox.charges(second)] == [2000]
    assert [invoice.amount_cents for invoice in sandbox.invoices(first)] == [1000]
    assert len(sandbox.charges()) == len(sandbox.invoices()) == 2
    assert (sandbox.balance_cents(first), sandbox.balance_cents(second)) == (1640.19, 2640.19)


def test_account_is_created_when_it_is_configured(sandbox: Sandbox, call):
    account_id = "c" * 32
    sandbox.configure(account_id, balance_cents=0.5)

    balance = call("GET", "credit-balance", account_id=account_id).json()["result"]["balance"]

    assert balance == 0.5


@pytest.mark.parametrize(
    ("switches", "complaint"),
    [
        ({"balance": 1}, "unknown key 'balance'"),
        ({"balance_cents": "1"}, "balance_cents"),
        ({"min_cents": True}, "min_cents"),
        ({"topup_outcome": "lost"}, "topup_outcome"),
        ({"default_payment_method": "pm_unknown"}, "default_payment_method"),
        ({"per_page": 0}, "per_page"),
        ({"fee_percent": -1}, "fee_percent"),
        ({"fee_percent": 101}, "fee_percent"),
        ({"credit_cents": -1}, "credit_cents"),
        ({"credit_cents": 26.25}, "credit_cents"),
        ({"status_lag_seconds": -1}, "status_lag_seconds"),
        ({"declined_leaves": "paid"}, "declined_leaves"),
        ({"page_parameter": "required"}, "page_parameter"),
    ],
)
def test_invalid_switch_is_refused_by_name(sandbox: Sandbox, switches, complaint):
    with pytest.raises(ValueError, match=complaint):
        sandbox.configure(**switches)


@pytest.mark.parametrize(
    "command",
    [
        lambda sandbox: sandbox.configure("not-an-account", balance_cents=1),
        lambda sandbox: sandbox.auto_topup("explode"),
        lambda sandbox: sandbox.auto_topup("break", "d" * 32),
        lambda sandbox: sandbox.add_invoice(1000, "d" * 32),
        lambda sandbox: sandbox.add_invoice("1000"),
        lambda sandbox: sandbox.configure_server(quota=1),
        lambda sandbox: sandbox.requests("chargeCard"),
    ],
)
def test_command_that_makes_no_sense_is_refused(sandbox: Sandbox, command):
    with pytest.raises(ValueError, match="the sandbox refused"):
        command(sandbox)


def test_other_web_pages_cannot_post_commands(sandbox: Sandbox):
    response = requests.post(
        f"{sandbox.url}/sandbox/faults",
        data='{"operation": "*", "kind": "reset"}',
        headers={"Content-Type": "text/plain"},
        timeout=5,
    )

    assert response.status_code == 400
    assert sandbox.state()["faults"] == []


def test_reset_starts_afresh(sandbox: Sandbox, topup):
    before = sandbox.state()["accounts"]
    sandbox.configure(balance_cents=1)
    sandbox.configure("c" * 32)
    sandbox.fault("*", "reset", skip=1)
    sandbox.configure_server(rate_quota=7)
    topup()

    sandbox.reset()

    state = sandbox.state()
    assert state["accounts"] == before
    assert (state["charges"], state["requests"], state["faults"]) == ([], [], [])
    assert state["server"]["rate_quota"] == 1200


def test_database_outlives_the_sandbox(tmp_path: Path):
    path = tmp_path / "ledger.sqlite"
    with Sandbox(database=path, settle_seconds=0) as sandbox:
        sandbox.configure(balance_cents=1)
        sandbox.auto_topup("perform", amount_cents=1000)
    with Sandbox(database=path) as sandbox:
        assert len(sandbox.charges()) == 1
        assert sandbox.balance_cents() == 1001

    with sqlite3.connect(path) as ledger:
        assert ledger.execute("SELECT account_id, amount_cents FROM charges").fetchall() == [
            (Sandbox.account_id, 1000)
        ]


def test_client_steers_a_sandbox_by_its_url_alone(sandbox: Sandbox):
    client = SandboxClient(sandbox.url + "/")

    client.configure(balance_cents=12.5)

    assert client.balance_cents() == sandbox.balance_cents() == 12.5
    assert client.connection_uri() == sandbox.connection_uri()
    uri = urlsplit(client.connection_uri("a" * 32, "t/k"))
    assert uri.netloc.startswith(f"{'a' * 32}:t%2Fk@http%3A%2F%2F127.0.0.1%3A")
    assert unquote(uri.netloc).endswith(f"@{sandbox.base_url}")


def test_import_does_not_load_the_web_framework():
    code = (
        "import sys, airflow_provider_cfbilling.sandbox\n"
        "assert not {'starlette', 'uvicorn', 'h11', 'requests'} & set(sys.modules), 'loaded'"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
