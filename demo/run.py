"""What `make demo` runs: the weekly example Dag, by real Airflow, against the sandbox. No card is charged.

It needs this package with its extra `sandbox`, listens on loopback only, and writes only below `.demo`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
DAG_FILE = REPOSITORY / "example_dags" / "weekly_topup.py"
DAG_ID = "cfbilling_weekly_topup"
TASK_ID = "topup"
TIME_LIMIT = 300.0  # seconds, of each command

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s [%(name)s]"
OUR_LINE = re.compile(r"\S+ (?:INFO|WARNING|ERROR) (.*) \[[\w.]*\bairflow_provider_cfbilling\b[\w.]*\]")
WHY_IT_FAILED = re.compile(r"(?:airflow\.(?:sdk\.)?exceptions\.)?Airflow\w+: (.*)")
HIGHLIGHTING = re.compile(r"\x1b\[[\d;]*m")  # Airflow 3.0 prints it into a pipe too, whatever NO_COLOR says


class DemoError(Exception):
    """The demonstration did not show what it should."""


@dataclass(frozen=True)
class DagRun:
    """The latest run as Airflow's database has it."""

    state: str
    result: dict[str, Any] | None
    """What the task returned."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit status."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(description="Top up in the sandbox with the weekly example Dag.")
    parser.add_argument("--home", type=Path, default=REPOSITORY / ".demo", help="folder to work in")
    home = parser.parse_args(arguments).home.resolve()
    try:
        demonstrate(home)
    except DemoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0


def demonstrate(home: Path) -> None:
    airflow = Airflow(home)
    print("Top up Cloudflare AI Gateway credits with Airflow. This is a demonstration: no card is charged.\n")
    with open_sandbox(home) as sandbox:
        print(f"1. A sandbox stands in for Cloudflare, at {sandbox.url} (this machine only).")
        airflow.prepare()
        before = sandbox.balance_cents()
        print(f"3. The account's balance is {dollars(before)}.")
        print(f"4. Running `airflow dags test {DAG_ID}`, some 10 seconds. Our task says:\n")
        run = airflow.run_dag(sandbox.connection_uri())
        charges = sandbox.charges()
        print("\nResult, from the sandbox's books and Airflow's database:\n")
        show_result(run, charges, before, sandbox.balance_cents())
        show_requests(sandbox.requests())
    wrong = what_is_wrong(run, charges)
    if wrong:
        raise DemoError(f"{wrong}\n{airflow.end_of_log()}")
    print("\nThe ledger holds exactly one charge, and the Dag run is green.")
    show_where_to_check(home, airflow.log)


def open_sandbox(home: Path, accounts: int = 1) -> Any:
    """Return a sandbox with empty books, which are kept so that you can inspect them afterwards."""
    from airflow_provider_cfbilling.sandbox import Sandbox

    home.mkdir(parents=True, exist_ok=True)
    for file in home.glob("sandbox.db*"):
        file.unlink()
    try:
        return Sandbox(database=home / "sandbox.db", accounts=accounts, settle_seconds=0)
    except ModuleNotFoundError as error:
        message = f"{error}. Install this package with its extra: airflow-provider-cfbilling[sandbox]"
        raise DemoError(message) from None


class Airflow:
    """An Airflow of the demo's own: nothing of another one in the environment is used or touched."""

    def __init__(self, home: Path) -> None:
        try:
            self.version = version("apache-airflow")
        except PackageNotFoundError:
            raise DemoError("Airflow is not installed here; `make demo` installs it.") from None
        self.home = home / f"airflow-{self.version}"
        self.database = self.home / "airflow.db"
        self.log = home / "dags-test.log"

    def prepare(self) -> None:
        """Make the metadata database, unless an earlier demo has."""
        migrated = self.home / "migrated"
        if migrated.exists() and self.database.exists():
            print(f"2. Airflow {self.version} uses the database of the last demo, {shown(self.database)}.")
            return
        print(f"2. Airflow {self.version} makes its database (SQLite, once): {shown(self.database)} ...")
        self.home.mkdir(parents=True, exist_ok=True)
        self._run("db", "migrate")
        migrated.touch()

    def run_dag(self, connection_uri: str | None = None) -> DagRun:
        """Run the Dag to its end, and show what our task logs. Without an URI with the stored connection."""
        runs_before = self._count_runs()
        self._run(
            *("dags", "test", DAG_ID),
            environment={"AIRFLOW_CONN_CFBILLING_DEFAULT": connection_uri} if connection_uri else {},
            on_line=Excerpt().show,
            may_fail=True,  # what became of the run is read from the database
        )
        if self._count_runs() == runs_before:
            raise DemoError(f"Airflow did not start a Dag run.\n{self.end_of_log()}")
        return self._latest_run()

    def end_of_log(self) -> str:
        lines = self.log.read_text(encoding="utf-8").splitlines()[-12:]
        return "\n".join([f"The last lines of {shown(self.log)}:", *(f"   | {line[:160]}" for line in lines)])

    def _run(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        on_line: Callable[[str], None] = lambda line: None,
        may_fail: bool = False,
    ) -> None:
        name = f"`airflow {' '.join(arguments)}`"
        with (
            self.log.open("w", encoding="utf-8") as log,
            subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
                [sys.executable, "-m", "airflow", *arguments],
                env=self._environment() | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            ) as process,
        ):
            stop = threading.Timer(TIME_LIMIT, process.kill)
            stop.start()
            try:
                for line in process.stdout or ():
                    log.write(line)
                    on_line(line)
            except BaseException:
                process.kill()
                raise
            finally:
                stop.cancel()
        if process.returncode < 0:
            message = f"{name} was killed; it is given {TIME_LIMIT:g} seconds."
            raise DemoError(f"{message}\n{self.end_of_log()}")
        if process.returncode and not may_fail:
            raise DemoError(f"{name} ended with status {process.returncode}.\n{self.end_of_log()}")

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        # Without their compiled form Airflow's thousand modules take seconds longer to start, each time.
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        return kept | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FILE.parent),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "AIRFLOW__LOGGING__LOG_FORMAT": LOG_FORMAT,
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "COLUMNS": "1000",  # Airflow 3.0 breaks what it prints of an exception into lines of that length
            "NO_COLOR": "1",
            "NO_PROXY": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",
        }

    def _count_runs(self) -> int:
        ((count,),) = self._rows("SELECT count(*) FROM dag_run WHERE dag_id = ?", DAG_ID)
        return int(count)

    def _latest_run(self) -> DagRun:
        ((run_id, state),) = self._rows(
            "SELECT run_id, state FROM dag_run WHERE dag_id = ? ORDER BY id DESC LIMIT 1", DAG_ID
        )
        results = self._rows(
            "SELECT value FROM xcom WHERE dag_id = ? AND run_id = ? AND task_id = ? AND key = 'return_value'",
            *(DAG_ID, run_id, TASK_ID),
        )
        return DagRun(state, json.loads(results[0][0]) if results else None)

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute(query, values).fetchall()


class Excerpt:
    """Of Airflow's log, what our task says. Airflow logs an exception several times; it is shown once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def show(self, line: str) -> None:
        line = HIGHLIGHTING.sub("", line)
        match = OUR_LINE.match(line) or WHY_IT_FAILED.match(line)
        if match and match[1] not in self._seen:
            self._seen.add(match[1])
            print(f"   | {match[1]}")


def show_result(run: DagRun, charges: Sequence[Any], before: float, after: float) -> None:
    print(f"   Dag run   {run.state}")
    for charge in charges:
        paid = dollars(charge.amount_due_cents)
        print(f"   Charge    {dollars(charge.amount_cents)}, {charge.status}; {paid} with Cloudflare's fee")
        print(f"   Invoice   {charge.invoice_id}")
    if run.result:
        print(f"   Card      {run.result['brand']} ending in {run.result['last4']}")
    print(f"   Balance   {dollars(before)} before, {dollars(after)} after")


def show_requests(requests: Sequence[Any]) -> None:
    print("   Requests")
    for request in requests:
        # Below the account: the part that distinguishes the requests.
        what = request.path.partition("/billing/")[2] or request.path
        query = f"?{request.query}" if request.query else ""
        print(f"      {request.method:<4} {what}{query}  {request.status}")


def show_where_to_check(home: Path, log: Path) -> None:
    serve = f"{shown(Path(sys.executable))} -m airflow_provider_cfbilling.sandbox"
    print("\nWhat to see next:\n")
    print(f"   The Dag        {shown(DAG_FILE)}, and others beside it")
    print(f"   Airflow's log  {shown(log)}")
    print("   The books      as a page, with switches for faults; it prints a connection for your Airflow:")
    print(f"                  {serve} --database {shown(home / 'sandbox.db')}")
    print("   The manual     README.md and docs/")


def what_is_wrong(run: DagRun, charges: Sequence[Any]) -> str | None:
    """Return a sentence, or None if one charge was made and paid and Airflow knows of it."""
    if len(charges) != 1:
        return f"The ledger holds {len(charges)} charges, not exactly one."
    if run.state != "success":
        return f"The Dag run is {run.state!r}, not 'success'."
    (charge,) = charges
    if charge.status != "paid":
        return f"The charge is {charge.status!r}, not 'paid'."
    if not run.result or run.result["payment_intent_id"] != charge.invoice_id:
        return f"Airflow has {run.result} as the task's result, but the invoice is {charge.invoice_id}."
    return None


def shown(path: Path) -> str:
    """Return a path as short as it can be typed from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def dollars(cents: float) -> str:
    return f"${cents / 100:,.2f}"


if __name__ == "__main__":
    sys.exit(main())
