"""What `make ui` runs: a whole Airflow with the credits page, and a sandbox with three accounts.

It needs this package with its extra `sandbox`, listens on loopback only, and writes only below `.demo`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from run import REPOSITORY, Airflow, DemoError, open_sandbox, shown

from airflow_provider_cfbilling.sandbox import SandboxClient

# Every user's password is the user's name.
ROLES = {"admin": "admin", "viewer": "viewer"}
PORT = 8080
START_TIMEOUT = 180.0
END_TIMEOUT = 20.0
DAY = 86_400

RESEARCH = "0123456789abcdef0123456789abcdf0"
SUPPORT_BOT = "0123456789abcdef0123456789abcdf1"


class AirflowWithUi(Airflow):
    """An Airflow that a browser can visit."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.home = home / f"airflow-ui-{self.version}"
        self.database = self.home / "airflow.db"
        self.log = home / "airflow-ui.log"
        self.port = free_port(PORT)
        self.url = f"http://127.0.0.1:{self.port}"

    def connect(self, conn_id: str, uri: str) -> None:
        """Store a connection, in place of that of an earlier run."""
        self._run("connections", "delete", conn_id, may_fail=True)
        self._run("connections", "add", conn_id, "--conn-uri", uri)

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run all components; at the end none of them is left."""
        passwords = self.home / "passwords.json"
        passwords.write_text(json.dumps({name: name for name in ROLES}))
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "standalone"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process, which ends them in order
            )
        try:
            yield process
        finally:
            end(process)

    def wait_until_it_serves(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/api/v2/version", timeout=5):  # noqa: S310
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise DemoError(f"Airflow does not serve its pages.\n{self.end_of_log()}")

    def _environment(self) -> dict[str, str]:
        environment = super()._environment()
        # `airflow standalone` starts the components by that name.
        environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
        return environment | {
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{n}:{role}" for n, role in ROLES.items()),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit status."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(description="Serve the credits page, with a sandbox.")
    parser.add_argument("--home", type=Path, default=REPOSITORY / ".demo", help="folder to work in")
    home = parser.parse_args(arguments).home.resolve()
    # SIGINT too: a shell starts what it puts in the background with Ctrl-C ignored.
    for ends in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ends, signal.default_int_handler)
    try:
        serve(home)
    except DemoError as error:
        print(f"\nIt failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
    return 0


def serve(home: Path) -> None:
    airflow = AirflowWithUi(home)
    with open_sandbox(home, accounts=3) as sandbox:
        print(f"1. A sandbox stands in for Cloudflare, at {sandbox.url} (this machine only).")
        fill(sandbox)
        airflow.prepare()
        print("3. Storing three connections, and running the weekly top-up once, some 20 seconds ...")
        airflow.connect("cfbilling_default", sandbox.connection_uri())
        airflow.connect("research", sandbox.connection_uri(RESEARCH))
        airflow.connect("support_bot", sandbox.connection_uri(SUPPORT_BOT))
        run = airflow.run_dag()
        if run.state != "success":
            raise DemoError(f"The top-up's Dag run is {run.state}.\n{airflow.end_of_log()}")
        print("4. Starting Airflow ...")
        with airflow.running() as process:
            airflow.wait_until_it_serves(process)
            print(f"\n   Page      {airflow.url}/plugin/ai-gateway-credits (menu Browse, AI Gateway credits)")
            print("   Login     admin, password admin; viewer, password viewer, may not read connections")
            print(f"   Sandbox   {sandbox.url}/ with switches for faults")
            print(f"   Log       {shown(airflow.log)}")
            print("\nCtrl-C stops it.")
            process.wait()
            raise DemoError(f"Airflow has ended.\n{airflow.end_of_log()}")


def fill(sandbox: SandboxClient) -> None:
    """Give one account weeks of credits, one few days, and one a broken automatic top-up; 40 days of it."""
    now = time.time()
    sandbox.configure(balance_cents=9640.19)
    sandbox.configure(RESEARCH, balance_cents=712.5)
    sandbox.configure(SUPPORT_BOT, balance_cents=3120, default_payment_method="pm_sandbox_second")
    for account_id, every, amount_cents in ((None, 6, 2500), (RESEARCH, 4, 1500), (SUPPORT_BOT, 9, 4000)):
        for number, days_ago in enumerate(range(40, 0, -every)):
            sandbox.add_invoice(
                amount_cents,
                account_id,
                amount_due_cents=round(amount_cents * 1.05),
                created=now - days_ago * DAY,
                origin="auto" if number % 3 else "manual",
            )
    sandbox.add_invoice(
        4000, SUPPORT_BOT, amount_due_cents=4200, created=now - 7200, origin="auto", status="uncollectible"
    )
    sandbox.auto_topup("break", SUPPORT_BOT, last_failed_at=now - 7200)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started: they are in one session."""
    for impatient in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C would leave them
        signal.signal(impatient, signal.SIG_IGN)
    for sent in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            break
        try:
            process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def free_port(wanted: int = 0) -> int:
    """Return a port that nothing listens on: the wanted one if it is free."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
