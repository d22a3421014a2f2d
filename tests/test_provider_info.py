"""What Airflow reads about the package, and what an import costs."""

import importlib
import json
import subprocess
import sys
from importlib.metadata import entry_points, requires
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager

from airflow_provider_cfbilling.get_provider_info import get_provider_info
from tests.new_process import in_new_process
from tests.real_airflow.deployment import AIRFLOW_VERSION, HAS_API_SERVER

PACKAGE = "airflow_provider_cfbilling"
INFO = get_provider_info()
# Airflow 3.0 and 3.1 read the hook's form only if Flask-AppBuilder is installed.
HAS_FORMS = AIRFLOW_VERSION >= (3, 2) or not HAS_API_SERVER


def test_info_fits_the_schema_of_this_airflow() -> None:
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def test_entry_point_is_the_one_airflow_finds() -> None:
    (found,) = [e for e in entry_points(group="apache_airflow_provider") if e.value.startswith(PACKAGE)]
    assert found.load()() == INFO


def test_everything_named_can_be_imported() -> None:
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in INFO[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)
    (connection_type,) = INFO["connection-types"]
    for path in [*INFO["extra-links"], connection_type["hook-class-name"]]:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_airflow_offers_the_connection_type_and_its_form() -> None:
    manager = ProvidersManager()
    assert manager.hooks["cfbilling"].hook_name == "Cloudflare AI Gateway Billing"
    if HAS_FORMS:
        form = manager.field_behaviours["cfbilling"]
        assert form["relabeling"] == {"login": "Account ID", "password": "API token", "host": "API base URL"}
    assert f"{PACKAGE}.links.CfBillingDashboardLink" in manager.extra_links_class_names


def test_info_imports_nothing() -> None:
    module = Path(importlib.import_module(f"{PACKAGE}.get_provider_info").__file__ or "")
    code = f"import sys; before = set(sys.modules); import {module.stem}; print(set(sys.modules) - before)"
    code = f"import sys; sys.path.insert(0, {str(module.parent)!r}); from typing import Any; {code}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "{'get_provider_info'}"


@pytest.mark.parametrize("module", ["operators", "sensors", "triggers"])
def test_parsing_a_dag_does_not_import_requests(module: str) -> None:
    """What Airflow's own bases bring along is not ours."""
    _, imported = in_new_process(f"""
import sys
from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator
import airflow.triggers.base
before = set(sys.modules)
import {PACKAGE}.{module}.cfbilling
result = set(sys.modules) - before""")
    assert f"{PACKAGE}.{module}.cfbilling" in imported
    assert "requests" not in imported
    assert f"{PACKAGE}.hooks.cfbilling" not in imported


def test_nothing_deprecated_is_imported() -> None:
    everything = ", ".join(
        f"{PACKAGE}.{kind}.cfbilling" for kind in ("hooks", "operators", "sensors", "triggers")
    )
    _, warned = in_new_process(
        "import warnings\n"
        "with warnings.catch_warnings(record=True, action='always') as seen:\n"
        f"    import {everything}, {PACKAGE}.links\n"
        "result = [f'{warning.filename}: {warning.message}' for warning in seen]"
    )
    assert [warning for warning in warned if PACKAGE in warning] == []


def test_runtime_dependencies_are_these_four() -> None:
    needed = [line for line in requires("airflow-provider-cfbilling") or [] if "extra ==" not in line]
    names = {line.split(">")[0].strip() for line in needed}
    assert names == {"apache-airflow", "apache-airflow-providers-common-compat", "requests", "tenacity"}


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("api", ("airflow.", "airflow_provider_cfbilling.charging", "airflow_provider_cfbilling.hooks")),
        (
            "charging",
            ("airflow.", "airflow_provider_cfbilling.hooks", "airflow_provider_cfbilling.operators"),
        ),
        ("sandbox", ("airflow.", "airflow_provider_cfbilling.api", "airflow_provider_cfbilling.charging")),
    ],
)
def test_imports_only_go_down(room: str, forbidden: tuple[str, ...]) -> None:
    for source in files(PACKAGE).joinpath(room).iterdir():
        if source.name.endswith(".py"):
            for line in source.read_text().splitlines():
                words = line.split()
                if words[:1] in (["import"], ["from"]):
                    assert not words[1].startswith(forbidden), f"{source}: {line}"
                    assert words[1] != "airflow", f"{source}: {line}"
