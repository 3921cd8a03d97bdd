"""A headless Chromium, where one is installed; pages may reach nothing but themselves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str | None:
    named = os.environ.get("PULLBACK_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[playwright.Browser]:
    path = chromium()
    if path is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


def _is_fault(told: playwright.ConsoleMessage) -> bool:
    """A refused question is told on the page; Chromium writes it down by itself as well."""
    return told.type == "error" and "400 (Bad Request)" not in told.text


Open = Callable[..., playwright.Page]


@pytest.fixture
def show(browser: playwright.Browser) -> Iterator[Open]:
    """Open a page, from a file or an address; errors on it fail the test, and so does a request
    that leaves it."""
    contexts, errors = [], []

    def opened(target: Path | str, **options: object) -> playwright.Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda told: _is_fault(told) and errors.append(told.text))
        address = target.as_uri() if isinstance(target, Path) else target
        home = address.split("/answer")[0]
        page.on(
            "request", lambda sent: sent.url.startswith(home) or errors.append(f"asked {sent.url}")
        )
        page.goto(address)
        page.wait_for_selector(".pbx h1")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []
