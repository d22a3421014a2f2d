"""What an import costs a process that has imported ``airflow.sdk``, as every parse of a Dag has."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from benchmarks.tables import markdown

ROUNDS = 15
OURS = "airflow_provider_cfbilling"
FLOOR = "airflow.providers.standard.operators.bash"
MODULES = {
    "provider info": f"{OURS}.get_provider_info",
    "operators": f"{OURS}.operators.cfbilling",
    "sensors": f"{OURS}.sensors.cfbilling",
    "triggers": f"{OURS}.triggers.cfbilling",
    "hook": f"{OURS}.hooks.cfbilling",
    "standard: Bash operator (the floor)": FLOOR,
    "standard: time sensor": "airflow.providers.standard.sensors.time",
    "http: operators": "airflow.providers.http.operators.http",
    "http: sensors": "airflow.providers.http.sensors.http",
    "http: triggers": "airflow.providers.http.triggers.http",
    "http: hook": "airflow.providers.http.hooks.http",
    "dbt-cloud: operators": "airflow.providers.dbt.cloud.operators.dbt",
    "dbt-cloud: sensors": "airflow.providers.dbt.cloud.sensors.dbt",
    "dbt-cloud: triggers": "airflow.providers.dbt.cloud.triggers.dbt",
    "dbt-cloud: hook": "airflow.providers.dbt.cloud.hooks.dbt",
}
# What a Dag file has imported by the time it comes to its operators.
_IMPORT = """
import json, sys, time
from airflow.sdk import DAG, BaseHook, BaseOperator, BaseSensorOperator, task
began = time.perf_counter()
module = __import__(sys.argv[1], fromlist=["_"])
if hasattr(module, "get_provider_info"):
    module.get_provider_info()
print(json.dumps([(time.perf_counter() - began) * 1000, "requests" in sys.modules]))
"""


def table() -> str:
    measured: dict[str, list[float]] = {name: [] for name in MODULES}
    brings_requests = {}
    for _ in range(ROUNDS):  # in turns, so that a busy moment hits all alike
        for name, module in MODULES.items():
            milliseconds, brings_requests[name] = _import(module)
            measured[name].append(milliseconds)
    floor = statistics.median(measured["standard: Bash operator (the floor)"])
    return markdown(
        "Imports",
        ("module", "times the floor", "ms (median)", "ms (least)", "brings requests"),
        [
            (
                name,
                f"{statistics.median(times) / floor:.1f}",
                f"{statistics.median(times):.2f}",
                f"{min(times):.2f}",
                "yes" if brings_requests[name] else "no",
            )
            for name, times in measured.items()
        ],
    )


def _import(module: str) -> tuple[float, bool]:
    command = [sys.executable, "-W", "ignore", "-c", _IMPORT, module]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    milliseconds, brings_requests = json.loads(done.stdout.splitlines()[-1])
    return milliseconds, brings_requests
