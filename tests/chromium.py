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
# As root, a browser does not start in its sandbox; and in a test it must not contact its vendor.
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
_REVIEWED = os.environ.get("CFBILLING_REVIEW")

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


def keep_screenshot(page: Page, name: str, *, only_for_review: bool = False) -> None:
    """Keep a picture for the documentation if requested, or beside it for review when the page changes."""
    folder = _REVIEWED if only_for_review else _SCREENSHOTS
    if folder:
        page.screenshot(path=Path(folder, f"{name}.png"), animations="disabled")
