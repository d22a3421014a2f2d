"""Every message is found in the docs by searching for its first words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

PACKAGE = ROOT / "airflow_provider_cfbilling"
# What they raise is the second half of a message that another module begins.
SECOND_HALVES = {"envelope.py", "network.py", "reader.py", "send_tracking.py"}
# Programming errors, and what comes after words that are found.
NOT_SEARCHED_FOR = {
    "only failures of the API are retried",
    "the record of this try cannot be read",
    "the record of try",
    "what was written is not what is read back",
    "The task will act on this",
}
FIRST_WORDS = 20  # characters


def messages() -> Iterator[tuple[str, list[str]]]:
    """Yield where a message is raised or logged as a warning, and its texts between what varies."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name in SECOND_HALVES or "sandbox" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            logs = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if isinstance(node, ast.Raise) or (logs and node.func.attr in {"warning", "error"}):
                texts = [text for text in texts_of(node) if text not in NOT_SEARCHED_FOR]
                if texts:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", texts


def texts_of(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            for text in re.split(r"%[-.\d]*[a-z]", part.value):
                text = text.strip(" .,:;()`'\"")
                if len(text) >= FIRST_WORDS or text.count(" ") > 2:
                    yield text


MESSAGES = dict(messages())
DOCS = " ".join(" ".join(page.read_text() for page in Path(ROOT, "docs").glob("*.md")).lower().split())


@pytest.mark.parametrize("where", MESSAGES)
def test_message_is_found(where: str) -> None:
    assert any(text[:FIRST_WORDS].lower() in DOCS for text in MESSAGES[where]), MESSAGES[where]
