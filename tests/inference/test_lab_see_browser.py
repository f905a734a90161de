"""The lab's room of images in Chromium: a 3 is drawn and recognised, maps are examined, a file is dropped, a run followed."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.browser import chromium_browser, watched_page
from helpers.labs import Client, id_of, served_lab
from helpers.training import train

pytestmark = pytest.mark.browser

WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with chromium_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    where = (f"output_dir={folder}", "logger=none")
    return train("model=lenet", "dataset=digits", "duration=15epochs", *where).run.folder


@pytest.fixture
def lab(trained: Path, tmp_path: Path) -> Iterator[Client]:
    shutil.copytree(trained.parents[1], tmp_path / "outputs")
    with served_lab(tmp_path / "outputs") as client:
        yield client


def open_room(page: Any, lab: Client, trained: Path) -> None:
    page.goto(f"{lab.url}#see?run={id_of(lab.lab.runs.output_dir / 'runs' / trained.name)}")
    page.locator(".stage").first.wait_for()


@pytest.fixture
def window(chromium: Any, lab: Client, trained: Path) -> Iterator[Any]:
    with watched_page(chromium, f"http://127.0.0.1:{lab.port}/", viewport=WIDE) as page:
        open_room(page, lab, trained)
        yield page


def draw_three(page: Any) -> None:
    """With the mouse: an arc above another."""
    box = page.locator("canvas.pad").bounding_box()
    above = [(0.48 + 0.17 * math.cos(angle), 0.33 - 0.16 * math.sin(angle)) for angle in arc(2.6, -1.4)]
    below = [(0.48 + 0.19 * math.cos(angle), 0.67 - 0.18 * math.sin(angle)) for angle in arc(1.5, -2.5)]
    for number, (x, y) in enumerate([*above, *below]):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=2)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def arc(start: float, end: float) -> list[float]:
    return [start + (end - start) * i / 12 for i in range(13)]


def says(page: Any, text: str) -> None:
    page.wait_for_function("text => document.querySelector('.told').textContent.startsWith(text)", arg=text)


def test_a_drawn_three_is_recognised_and_its_maps_explain_themselves(window):
    draw_three(window)
    says(window, "3 · ")
    assert window.locator(".bar.best code").inner_text() == "3"
    assert window.locator(".stage").count() == 2 and window.locator("button.map").count() == 6 + 16
    assert "picture=" not in window.url
    window.get_by_text("Grad-CAM of S4 · 3").wait_for()
    window.get_by_role("button", name="8", exact=False).locator("visible=true").filter(has_text="%").first.click()
    window.get_by_text("Grad-CAM of S4 · 8").wait_for()
    window.get_by_role("button", name="Map 1 of S2").click()
    window.locator(".unit h3", has_text="Map 1 of S2").wait_for()
    window.get_by_text("Outlined: what excites map 1 of S2 most").wait_for()
    assert window.locator(".unit canvas.kernel").count() == 1
    before = window.locator(".unit h3").inner_text()
    window.locator(".unit canvas[tabindex]").press("ArrowLeft")
    window.wait_for_function("before => document.querySelector('.unit h3').textContent !== before", arg=before)
    window.get_by_role("button", name="Close").click()
    assert window.locator(".unit").count() == 0
    window.get_by_role("button", name="Clear").click()
    window.wait_for_function("() => document.querySelector('.hint') && !document.querySelector('.hint').hidden")


def test_a_test_picture_is_chosen_by_keyboard_and_stands_in_the_address(window):
    picture = window.get_by_role("button", name="Test picture 7:")
    number = picture.get_attribute("title")
    picture.focus()
    window.keyboard.press("Enter")
    window.wait_for_function("() => location.hash.includes('picture=7')")
    window.locator(".told .good, .told .bad").wait_for()
    assert "right" in window.locator(".told").inner_text() or f"it is {number}" in window.locator(".told").inner_text()
    window.reload()
    window.locator(".shelf button[aria-pressed=true][data-number='7']").wait_for()
    window.get_by_role("button", name="Later").click()
    window.locator(".shelf button[data-number='30'][aria-pressed=false]").wait_for()
    window.get_by_role("button", name="Earlier").click()
    window.locator(".shelf button[aria-pressed=true][data-number='7']").wait_for()


def test_a_file_is_dropped_and_a_wrong_one_is_a_sentence(window, tmp_path):
    from PIL import Image, ImageDraw

    one = Image.new("L", (64, 64))
    ImageDraw.Draw(one).line((32, 4, 32, 60), fill=255, width=12)
    one.save(tmp_path / "one.png")
    window.evaluate(
        """async bytes => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "one.png", { type: "image/png" }));
          const card = document.querySelector("canvas.pad").closest(".card");
          card.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        list((tmp_path / "one.png").read_bytes()),
    )
    says(window, "1 · ")
    (tmp_path / "wrong.png").write_text("<script>alert(1)</script>")
    window.locator("input[type=file]").set_input_files(tmp_path / "wrong.png")
    window.get_by_text("no picture that can be read").wait_for()
    (tmp_path / "large.png").write_bytes(bytes(11_000_000))
    window.locator("input[type=file]").set_input_files(tmp_path / "large.png")
    window.get_by_text("more than 10 MB").wait_for()
    says(window, "1 · ")


def test_a_training_is_followed(window, lab, trained):
    window.get_by_label("Follow the training").check()
    window.wait_for_timeout(1000)  # the first look at the weights
    best = lab.lab.runs.output_dir / "runs" / trained.name / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    content["global_step"] = 12_345
    for value in content["state_dict"].values():
        value.mul_(0.5)
    torch.save(content, best.with_suffix(".new"))
    best.with_suffix(".new").replace(best)
    window.get_by_text("weights of step 12,345").wait_for()
    window.locator("svg.history").wait_for()


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(chromium, lab, trained, dark):
    options = {"viewport": PHONE, "color_scheme": "dark" if dark else "light", "has_touch": True}
    with watched_page(chromium, f"http://127.0.0.1:{lab.port}/", **options) as page:
        open_room(page, lab, trained)
        draw_three(page)
        page.locator("button.map").nth(8).click()
        page.locator(".unit h3").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
