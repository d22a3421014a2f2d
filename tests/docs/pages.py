"""The README, the pages of the documentation and of CONTRIBUTING, and the blocks of code on them."""

import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S)


def as_on_this_airflow(text: str) -> str:
    """Return a block as the pages say to write it on Airflow 2."""
    if version("apache-airflow").startswith("2."):
        return text.replace("from airflow.sdk import DAG", "from airflow import DAG")
    return text


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, counted from 1.

    :param language: as the page names it; empty where it does not.
    """

    page: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page} {self.number}"


BLOCKS = [
    Block(page.name, number, found["language"], as_on_this_airflow(dedent(found["text"])))
    for page in PAGES
    for number, found in enumerate(_BLOCK.finditer(page.read_text()), 1)
]


def blocks(*languages: str) -> list[Block]:
    """Return the blocks in these languages, in the order in which they stand."""
    return [block for block in BLOCKS if block.language in languages]
