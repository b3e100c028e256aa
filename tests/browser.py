"""A headless Chromium for tests of pages, and what can go wrong in one; conftest hands on the fixture."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATIENCE = 180_000
"""Milliseconds that a page is waited for: machines of continuous integration are slow, and busy."""

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# No sandbox: tests may run as root in a container. The rest keeps the browser from calling home.
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture
def chromium_page(request: pytest.FixtureRequest) -> Iterator["Page"]:
    """A Playwright page of a fresh browser, or a skip; `set_viewport_size` and `emulate_media` change what it is.

    What it showed at the end of a test that failed is kept, see `keep_screenshot`.
    """
    playwright_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    executable = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip("no Chromium on the PATH")
    # For one test alone: an open Playwright keeps an event loop running in this thread, and asyncio.run fails in it.
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_FLAGS.split())
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        faults_before = request.session.testsfailed
        yield page
        if request.session.testsfailed > faults_before:
            keep_screenshot(page, f"failed_{request.node.name}")
        browser.close()


def record_faults(page: "Page", allowed: tuple[str, ...]) -> list[str]:
    """Watches a page from now on.

    Args:
        page: see `chromium_page`.
        allowed: how the addresses begin that it may load from, such as "file:" or "http://127.0.0.1:7860/".

    Returns:
        a list that grows by a line for every error or warning in the console, exception, request to elsewhere, and
        request that failed.
    """
    faults: list[str] = []

    def note(wrong: bool, text: str) -> None:
        if wrong:
            faults.append(text[:300])

    page.on("console", lambda message: note(message.type in ("error", "warning"), f"console: {message.text}"))
    page.on("pageerror", lambda error: note(True, f"exception: {error}"))
    page.on("request", lambda request: note(not request.url.startswith(allowed), f"elsewhere: {request.url}"))
    page.on("requestfailed", lambda request: note(True, f"failed: {request.url}"))
    page.on("response", lambda response: note(response.status >= 400, f"{response.status}: {response.url}"))
    return faults


def keep_screenshot(page: "Page", name: str) -> None:
    """Saves the page as NAME.png in the folder that INPAINT_JAX_SCREENSHOTS names, if it does."""
    if folder := os.environ.get("INPAINT_JAX_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
