"""Serve a sandbox until stopped: ``python -m airflow_provider_cfbilling.sandbox``."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.models import GLOBAL_API_KEY, GLOBAL_EMAIL, READ_TOKEN

_DEFAULT_PORT = 8765
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_INSTALL = "The sandbox needs its extra: pip install 'airflow-provider-cfbilling[sandbox]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        sandbox = Sandbox(**vars(options))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        return _fail(_INSTALL)
    except OSError as error:
        return _fail(f"Cannot listen on {options.host}, port {options.port}: {error}")
    with sandbox:
        _introduce(sandbox, options.host)
        stop.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_cfbilling.sandbox",
        description="A stand-in for Cloudflare's AI Gateway Billing API. It charges no card.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to bind to")
    add("--port", type=int, default=_DEFAULT_PORT, help="0: a free one")
    add("--database", metavar="PATH", help="SQLite file of the ledger; without it, nothing is kept")
    add("--settle-seconds", type=float, default=2.0, help="from a top-up to its settlement")
    add("--accounts", type=int, default=1, metavar="N", help="how many accounts there are")
    add("--rate-quota", type=int, default=1_200, help="requests per window and token")
    add("--rate-window-seconds", type=float, default=300.0, help="length of the window")
    return parser


def _introduce(sandbox: Sandbox, host: str) -> None:
    print("A sandbox of Cloudflare's AI Gateway Billing API. No card is charged.\n")
    print(f"  Page      {sandbox.url}/")
    print(f"  API       {sandbox.base_url}")
    print(f"  Contract  {sandbox.url}/openapi.yaml\n")
    print("Airflow connections, one for each account:\n")
    for number, account_id in enumerate(sandbox.state()["accounts"]):
        name = f"CFBILLING_{number + 1}" if number else "CFBILLING_DEFAULT"
        print(f"  export AIRFLOW_CONN_{name}='{sandbox.connection_uri(account_id)}'")
    print(f"\nOther credentials: {READ_TOKEN} (reads only), {GLOBAL_EMAIL} with the key {GLOBAL_API_KEY}.")
    if host in _LOOPBACK:
        print("Only this machine can reach it.")
    else:
        print(f"Warning: everyone who reaches {host} can change everything in this sandbox.", file=sys.stderr)
    print("Stop it with Ctrl-C.", flush=True)


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
