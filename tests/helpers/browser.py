"""Headless Chromium for the tests of pages, and what a page complained of and asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

REFUSED = (
    "the server responded with a status of 400"  # Chromium says so of each refusal, which the page shows as a sentence
)


@contextmanager
def chromium_browser() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def watched_page(browser: Any, origin: str, **options: Any) -> Iterator[Any]:
    """A page of a context of its own; at the end nothing was complained of and no other host was asked.

    Args:
        browser: From `chromium_browser`.
        origin: Beginning of the addresses that it may ask.
        options: Of the context: viewport, color_scheme, locale ...
    """
    complaints, requests = list[str](), list[str]()
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("console", lambda message: None if REFUSED in message.text else complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda asked: requests.append(asked.url))
    yield page
    context.close()
    assert complaints == []
    assert [asked for asked in requests if not asked.startswith((origin, "data:", "blob:"))] == []
