"""Run the matrix: ``python -m tests.faults --trials 2000 --seed 1``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 if any trial is off."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="cfbilling-faults-") as home:
        for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
            del os.environ[name]
        # Before anything imports airflow: its home is read once.
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "NO_PROXY": "127.0.0.1"}
        return _run(options)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--trials", type=int, default=2000, help="how many, over all rows in turn")
    parser.add_argument("--seed", type=int, default=1, help="of the first trial; the next one has the next")
    parser.add_argument("--jobs", type=int, default=20, help="trials side by side; they mostly wait")
    parser.add_argument("--rows", default="", metavar="PATTERN", help="only rows whose name matches")
    parser.add_argument("--seconds", type=float, default=1800, help="begin no trial after so long")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    from tests.faults.lab import is_off, run_trials, table
    from tests.faults.matrix import all_rows, matrix

    rows = matrix(options.rows)
    if not rows:
        print("no row has such a name", file=sys.stderr)
        return 2
    began = time.monotonic()
    verdicts = []
    limits = {name: getattr(options, name) for name in ("trials", "seed", "jobs", "seconds")}
    for verdict in run_trials(rows, **limits):
        verdicts.append(verdict)
        if is_off(verdict):
            print(
                f"{verdict.judgement}: --rows '{verdict.name}' --seed {verdict.seed} --trials 1", flush=True
            )
            print(f"    {verdict.why}", flush=True)
    off = sum(map(is_off, verdicts))
    print(table(verdicts, [row.name for row in all_rows()]))
    spent = time.monotonic() - began
    print(f"{len(verdicts)} of {options.trials} trials, seeds from {options.seed}, {spent:.0f} s, {off} off")
    return 1 if off or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
