"""The playground in Chromium: the spiral is learned while its boundary moves, settings are turned, points are clicked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.browser import chromium_browser, watched_page
from helpers.labs import Client, served_lab

pytestmark = pytest.mark.browser

WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 800}
SHOTS = os.environ.get("EPOCHAL_SHOTS")  # a folder for screenshots, to be looked at


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with chromium_browser() as browser:
        yield browser


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Client]:
    with served_lab(tmp_path / "outputs") as client:
        yield client


@pytest.fixture
def window(chromium: Any, lab: Client) -> Iterator[Any]:
    with watched_page(chromium, f"http://127.0.0.1:{lab.port}/", viewport=WIDE) as page:
        page.goto(f"{lab.url}#playground")
        page.locator("canvas.plane[aria-label*='300']").wait_for()
        yield page


def picture(page: Any) -> bytes:
    return page.locator("canvas.plane").screenshot()


def shot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/playground_{name}.png", full_page=True)


def test_the_spiral_is_learned_while_the_boundary_moves(window, lab):
    window.get_by_label("hidden layers").fill("16, 16")
    window.get_by_label("steps", exact=True).select_option("50000")  # so that it can be stopped
    window.get_by_role("button", name="Train", exact=True).click()
    window.wait_for_function("() => document.querySelector('canvas.plane').dataset.step > 0", timeout=120_000)
    first = picture(window)
    assert window.locator("canvas.unit").count() == 32
    window.wait_for_function("() => document.querySelector('.numbers').dataset.accuracy >= 0.95", timeout=120_000)
    assert picture(window) != first
    rate = window.get_by_label("learning rate", exact=True)
    rate.fill("-3")
    window.wait_for_timeout(1500)
    shot(window, "1400_light")
    for name, options in {
        "1400_dark": (WIDE, "dark"),
        "390_light": (PHONE, "light"),
        "390_dark": (PHONE, "dark"),
    }.items():
        window.set_viewport_size(options[0])
        window.emulate_media(color_scheme=options[1])
        assert window.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        shot(window, name)
    window.get_by_role("button", name="Stop", exact=True).click()
    window.get_by_text("Stopped; it can be resumed").or_(window.get_by_text("Finished and tested")).wait_for(
        timeout=60_000
    )
    (run,) = lab.get("/api/runs")["runs"]
    assert run["status"] in ("stopped", "finished") and run["dataset"] == "points"


def test_points_are_put_by_clicking_and_by_keys(window):
    window.get_by_label("points", exact=True).select_option("own")
    plane = window.locator("canvas.plane")
    plane.click(position={"x": 50, "y": 60})
    plane.click(position={"x": 80, "y": 90})
    window.get_by_role("button", name="class 1").click()
    for key in ("ArrowRight", "ArrowUp", "Enter"):
        plane.press(key)
    assert plane.get_attribute("aria-label") == "The plane with 3 points"
    window.get_by_role("button", name="Train", exact=True).click()
    window.get_by_text("Put 10 to 2,000 points into the plane.").wait_for()
    window.get_by_role("button", name="Remove all points").click()
    assert plane.get_attribute("aria-label") == "The plane with 0 points"
