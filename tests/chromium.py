"""A real browser, and the pictures that are taken with it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# A browser in a sandbox of root's does not start; and one in a test has nothing to ask its makers.
_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_PATIENCE_MS = 30_000
_SCREENSHOTS = os.environ.get("CFBILLING_SCREENSHOTS")
_LOOKED_AT = os.environ.get("CFBILLING_LOOK_AT")

needs_chromium = pytest.mark.skipif(
    not _CHROMIUM and "CI" not in os.environ,  # there it must not go unnoticed
    reason="no Chromium is here: on Debian and Ubuntu, apt-get install chromium",
)
expect.set_options(timeout=_PATIENCE_MS)


@contextmanager
def browser(width: int, height: int, **options: Any) -> Iterator[BrowserContext]:
    """Start a browser whose windows are of one size."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_CHROMIUM, args=_OPTIONS)
        try:
            context = chromium.new_context(viewport={"width": width, "height": height}, **options)
            context.set_default_timeout(_PATIENCE_MS)
            yield context
        finally:
            chromium.close()


def keep_screenshot(page: Page, name: str, *, only_to_look_at: bool = False) -> None:
    """Keep a picture for the documentation if requested, or beside it for whoever changes the page."""
    folder = _LOOKED_AT if only_to_look_at else _SCREENSHOTS
    if folder:
        page.screenshot(path=Path(folder, f"{name}.png"), animations="disabled")
