"""The documentation's pictures are what ``docs/draw.py`` draws, and show what there is."""

import runpy
from typing import Any, get_args
from xml.etree import ElementTree

import pytest

from airflow_provider_cfbilling.charging.journal import State
from tests.docs.pages import PAGES, ROOT

DRAW: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "draw.py"))
PICTURES: dict[str, str] = DRAW["pictures"]()


@pytest.mark.parametrize("name", PICTURES)
def test_committed_picture_is_what_is_drawn(name: str) -> None:
    assert (ROOT / "docs" / "images" / name).read_text() == PICTURES[name], "draw it again: make pictures"


def test_no_other_picture_is_there() -> None:
    assert {path.name for path in (ROOT / "docs" / "images").glob("*.svg")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_shown_and_loads_nothing(name: str) -> None:
    ElementTree.fromstring(PICTURES[name])
    loaded = PICTURES[name].replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not [word for word in ("http", "href", "url(", "@import", "<script") if word in loaded]
    assert any(f"](images/{name})" in page.read_text() for page in PAGES)


def test_states_are_those_of_the_record() -> None:
    drawn = {line.split("|")[0].strip() for line in DRAW["STATES"].strip().splitlines()}
    assert drawn - {"the task is skipped"} == set(get_args(State))
