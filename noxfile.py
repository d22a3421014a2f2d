"""What `make` runs: checks, tests on each supported Airflow, the demo. One session, one job."""

import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["check", "test"]

NEWEST = "3.3.2"
AIRFLOWS = ["2.11.2", "3.0.6", "3.1.8", "3.2.2", NEWEST]
PYTHONS = ["3.11", "3.12", "3.13"]
# The newest Python that these releases of Airflow run on is 3.12; the others run on whatever runs nox.
BEFORE_PYTHON_3_13 = {"2.11.2": "3.12", "3.0.6": "3.12"}


def constraints(airflow: str) -> str:
    return f"constraints/airflow-{airflow}.txt"


def install(session: nox.Session, airflow: str, extra: str) -> None:
    session.log(f"Installing Airflow {airflow} and this package (a minute at first, seconds after that).")
    session.install("--constraint", constraints(airflow), f"apache-airflow=={airflow}", "-e", f".[{extra}]")


@nox.session(default=False, venv_backend="none")
def pins(session: nox.Session) -> None:
    """Renew constraints/: the newest releases that each Airflow accepts, one plain name==version a line."""
    for airflow in AIRFLOWS:
        for python in PYTHONS:
            if python > BEFORE_PYTHON_3_13.get(airflow, python):
                continue
            # Later Pythons keep what earlier ones chose, so that one file serves them all.
            ...
