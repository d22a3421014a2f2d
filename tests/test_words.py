"""Code, tests and documentation use the words of Airflow, Stripe and Cloudflare."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What is not used, and what is written in its place.
SWEPT = {
    r"answer(s|ed|ing)?": "response, respond",
    r"look(s|ed|ing)?": "poll (repeatedly), check or query (once), search (invoices)",
    r"asks?|asked|asking": "request, call",
    r"[A-Z_]*(MOST|LONGEST|LEAST|SHORTEST)_[A-Z_]+": "MAX_, MIN_",
    r"moments?": "time, timestamp, deadline",
    r"told|cannot be meant|can be meant": "reported, recorded; is invalid",
    r"anew": "again; a new",
    r"somebody|nobody|whoever|anybody": "you, another process, or the passive",
    r"comes to light|lives with|lets be|says no": "appears late; retries; leaves; rejects",
    r"[Mm]end(s|ed|ing)?": "fix; works again",
    r"licence|authoris(e|es|ed|ing|ation)": "license, authorize",
}
# Where the word means what it says everywhere else.
ALLOWED = re.compile(r"[Aa]sk the card's bank|asks you")


def texts() -> Iterator[Path]:
    for folder in ("airflow_provider_cfbilling", "benchmarks", "demo", "docs", "example_dags", "tests"):
        yield from (path for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))
    yield from (ROOT / "docs").glob("*.md")
    yield from (ROOT / ".github").rglob("*.yml")
    yield from (ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))
    yield from (ROOT / name for name in ("Makefile", "noxfile.py", "pyproject.toml", ".ci/run"))


@pytest.mark.parametrize(("words", "write"), SWEPT.items(), ids=SWEPT.values())
def test_swept_words_stay_out(words: str, write: str) -> None:
    pattern = re.compile(rf"(?<![A-Za-z])({words})(?![A-Za-z])")  # in names with underscores too
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(ALLOWED.sub("", line))
    ]
    assert not found, f"write {write}:\n" + "\n".join(found)


def test_identifiers_say_topup() -> None:
    """Prose says "top-up" and "top up"; names have one spelling."""
    found = [str(path) for path in texts() if re.search(r"top_up|TopUp", path.read_text())]
    assert found == []


def test_no_two_classes_or_functions_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for path in sorted((ROOT / "airflow_provider_cfbilling").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
