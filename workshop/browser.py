"""The system's Chromium, driven by Playwright: diagrams, pages of decks, JupyterLab."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import WorkshopError

ARGUMENTS = (
    "--no-sandbox",  # in a container the person is root, and Chromium's sandbox refuses root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


def chromium() -> str | None:
    """Path of the system's Chromium or Chrome; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


def missing() -> str:
    """What a browser test lacks on this machine, as a sentence; "" if it lacks nothing."""
    if chromium() is None:
        return "Chromium is not installed (Debian: apt-get install chromium)."
    if importlib.util.find_spec("playwright") is None:
        return "The package playwright is not installed (make install)."
    return ""


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium. Raises `WorkshopError` if there is none."""
    if lacks := missing():
        raise WorkshopError("This needs a browser.", lacks)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        try:
            yield found
        finally:
            found.close()
