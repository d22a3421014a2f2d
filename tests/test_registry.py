"""The registry lists what the package has, and nothing else."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

PACKAGE = "airflow_provider_cfbilling"
REGISTRY = yaml.safe_load((Path(__file__).parents[1] / ".astro-registry.yaml").read_text())


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "triggers"])
def test_every_class_that_users_use_is_listed(kind: str) -> None:
    module = importlib.import_module(f"{PACKAGE}.{kind}.cfbilling")
    classes = [
        value
        for name, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__ == module.__name__ and not name.startswith("_")
    ]
    bases = {base for value in classes for base in value.__mro__[1:]}
    used = {f"{module.__name__}.{value.__name__}" for value in classes if value not in bases}
    assert {entry["module"] for entry in REGISTRY[kind]} == used


def test_nothing_else_is_listed() -> None:
    assert REGISTRY["package-name"] == "airflow-provider-cfbilling"
    assert set(REGISTRY) <= {
        "package-name",
        "display-name",
        "docs-url",
        "hooks",
        "operators",
        "sensors",
        "triggers",
    }
