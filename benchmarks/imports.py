"""What an import costs a process that has imported ``airflow.sdk``, as every parse of a Dag has."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from benchmarks.tables import markdown

ROUNDS = 7
OURS = "airflow_provider_cfbilling"
FLOOR = "airflow.providers.standard.operators.bash"
MODULES = {
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
__import__(sys.argv[1])
print(json.dumps([(time.perf_counter() - began) * 1000, "requests" in sys.modules]))
"""
# What `import airflow` does for each provider; by file, since to import the package above has done it.
_PROVIDER_INFO = """
import importlib.util, json, sys, time
began = time.perf_counter()
spec = importlib.util.spec_from_file_location("provider_info", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.get_provider_info()
print(json.dumps([(time.perf_counter() - began) * 1000, "requests" in sys.modules]))
"""
PROVIDER_INFOS = {
    "provider info": ("airflow-provider-cfbilling", f"{OURS}/get_provider_info.py"),
    "standard: provider info": (
        "apache-airflow-providers-standard",
        "airflow/providers/standard/get_provider_info.py",
    ),
    "http: provider info": ("apache-airflow-providers-http", "airflow/providers/http/get_provider_info.py"),
}


def table() -> str:
    cases = {name: (_PROVIDER_INFO, _file(*place)) for name, place in PROVIDER_INFOS.items()}
    cases |= {name: (_IMPORT, module) for name, module in MODULES.items()}
    measured: dict[str, list[float]] = {name: [] for name in cases}
    brings_requests = {}
    for _ in range(ROUNDS):  # in turns, so that a busy time hits all alike
        for name, (script, argument) in cases.items():
            milliseconds, brings_requests[name] = _run(script, argument)
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


def _file(distribution: str, path: str) -> str:
    """Return where a file is; this package's may be installed or worked on."""
    return path if Path(path).exists() else str(metadata.distribution(distribution).locate_file(path))


def _run(script: str, argument: str) -> tuple[float, bool]:
    command = [sys.executable, "-W", "ignore", "-c", script, argument]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    milliseconds, brings_requests = json.loads(done.stdout.splitlines()[-1])
    return milliseconds, brings_requests
