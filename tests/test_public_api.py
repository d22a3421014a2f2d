"""The public names and their parameters, as ``docs/reference.md`` promises them: ``tests/public_api.txt``.

A change of a line there is a change for users: say it in the changelog. To write the file again:
``python -m tests.test_public_api > tests/public_api.txt``.
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "airflow_provider_cfbilling"
MODULES = [
    "hooks.cfbilling",
    "operators.cfbilling",
    "sensors.cfbilling",
    "triggers.cfbilling",
    "links",
    "api.models",
    "api.errors",
    "sandbox",
]


def public_api() -> Iterator[str]:
    for name in MODULES:
        module = importlib.import_module(f"{PACKAGE}.{name}")
        names = getattr(module, "__all__", None) or [
            each
            for each, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module.__name__ and not each.startswith("_")
        ]
        for each in sorted(names):
            yield from members(f"{name}.{each}", getattr(module, each))


def members(path: str, kind: type) -> Iterator[str]:
    yield f"{path}{parameters(kind.__init__)}"
    for name, value in sorted(vars(kind).items()):
        if not name.startswith("_") and inspect.isfunction(value):
            yield f"{path}.{name}{parameters(value)}"


def parameters(function: object) -> str:
    """Return the parameters, and which have defaults: Airflow's settings give some of these."""
    shown = []
    for name, parameter in inspect.signature(function).parameters.items():  # type: ignore[arg-type]
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else "=..."
        shown.append(f"{stars}{name}{default}" if name != "self" else "")
    return f"({', '.join(filter(None, shown))})"


def test_public_api_is_what_it_was() -> None:
    kept = Path(__file__).with_name("public_api.txt").read_text().splitlines()
    assert list(public_api()) == kept


if __name__ == "__main__":
    print("\n".join(public_api()))
