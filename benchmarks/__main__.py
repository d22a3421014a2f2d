"""Measure everything: ``python -m benchmarks``, and print the tables of ``docs/performance.md``,
``docs/performance-waits.md`` and ``docs/rate-limit-simulated.md``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from importlib.metadata import version

PARTS = ("imports", "reads", "topups", "waits", "scaling")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="just this part")
    parser.add_argument("--seconds", type=float, default=60.0, help="to measure each number of waits")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cfbilling-bench-") as home:
        for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
            del os.environ[name]
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "NO_PROXY": "127.0.0.1"}
        return run(options)


def run(options: argparse.Namespace) -> int:
    from benchmarks import imports, reads, scaling, topups, waits

    print(
        f"Airflow {version('apache-airflow')}, Python {platform.python_version()}, "
        f"{os.cpu_count()} processors, requests {version('requests')}, cloudflare {version('cloudflare')}, "
        f"http provider {version('apache-airflow-providers-http')}, "
        f"dbt-cloud provider {version('apache-airflow-providers-dbt-cloud')}\n"
    )
    parts = {
        "imports": imports.table,
        "reads": reads.table,
        "topups": topups.table,
        "waits": lambda: waits.table(options.seconds),
        "scaling": scaling.table,
    }
    for name in options.only or PARTS:
        print(parts[name](), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
