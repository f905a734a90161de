"""The lab in Chromium, as a person uses it: runs, text, generators; without errors in the console or other requests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.browser import chromium_browser, watched_page
from helpers.labs import Client, id_of, served_lab
from helpers.run_folders import run_folder
from helpers.samples import text_file
from helpers.training import train

pytestmark = pytest.mark.browser

EVIL = "<img src=x onerror=alert(1)></script><script>alert(1)</script>"
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 800}
ROOMS = ("runs", "write", "generate", "chat")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with chromium_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A GPT that has read ROMEO:, a GAN of digits and a captioner of strips of digits, in one outputs folder."""
    folder = tmp_path_factory.mktemp("trained")
    text = text_file(folder / "text.txt")
    text.write_text("ROMEO: the quick brown fox jumps over the lazy dog.\n" * 200)
    where = (f"output_dir={folder / 'outputs'}", "logger=none")
    gpt = ("model=gpt", "model.variant=nano", "model.embed_dim=32", "model.num_heads=2", "model.depth=2")
    data = (
        "dataset=text",
        f"dataset.path={text}",
        "dataset.context_length=32",
        "duration=60steps",
        "optimizer.lr=0.01",
    )
    gan = ("model=gan", "model.width=4", "dataset=digits", "duration=2epochs", "dataset.train_size=64")
    captioner = (
        "model=captioner",
        "model.stages=2",
        "dataset=digit_captions",
        "dataset.source=digits",
        "duration=30steps",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHAL_CACHE", str(folder / "cache"))
        return {
            "captioner": train(*captioner, "dataset.train_size=640", "dataset.test=40", *where).run.folder,
            "gpt": train(*gpt, *data, *where).run.folder,
            "gan": train(*gan, *where).run.folder,
        }


@pytest.fixture
def lab(trained: dict[str, Path], tmp_path: Path) -> Iterator[Client]:
    """The lab of these, and of a run that failed with markup in its error and its name."""
    outputs = tmp_path / "outputs"
    shutil.copytree(trained["gpt"].parents[1], outputs)
    run_folder(outputs / "runs", "broke", status="failed", error=EVIL, model="mlp", config={"dataset.name": EVIL})
    with served_lab(outputs) as client:
        yield client


@pytest.fixture
def window(chromium: Any, lab: Client) -> Iterator[Any]:
    with watched_page(chromium, f"http://127.0.0.1:{lab.port}/", viewport=WIDE) as page:
        page.goto(lab.url)
        page.locator("table").wait_for()
        yield page


def test_a_run_is_started_watched_stopped_and_resumed(window, lab):
    line = "model=mlp dataset=digits duration=100000steps logger=none log_every=20 callbacks.checkpoint_every=100"
    window.get_by_label("Everything that follows").fill(line)
    assert window.locator("#line-shown").inner_text() == f"epochal train {line}"
    window.get_by_role("button", name="Start", exact=True).click()
    shown = window.locator("figure.plot").first
    shown.wait_for(timeout=120_000)
    first = shown.locator("polyline").first.get_attribute("points")
    window.wait_for_function(
        "before => document.querySelector('figure.plot polyline')?.getAttribute('points').length > before.length",
        arg=first,
    )
    window.get_by_role("button", name="Stop", exact=True).click()
    window.get_by_role("button", name="Resume", exact=True).click(timeout=120_000)
    window.get_by_role("button", name="Stop", exact=True).click(timeout=120_000)
    window.get_by_role("button", name="Resume", exact=True).wait_for(timeout=120_000)
    assert sum(run["model"] == "mlp" and run["status"] == "stopped" for run in lab.get("/api/runs")["runs"]) == 1


def test_a_wrong_line_shows_the_sentence_of_the_command_line(window):
    window.get_by_label("Everything that follows").fill("model=resnett")
    window.get_by_role("button", name="Start", exact=True).click()
    window.get_by_text("Did you mean resnet?").wait_for(timeout=120_000)


def test_a_room_is_found_again_as_it_was_left(window):
    window.get_by_label("Everything that follows").fill("model=resnett")
    window.get_by_role("button", name="Start", exact=True).click()
    window.wait_for_url("**started=*")
    window.get_by_role("link", name="Playground", exact=True).click()
    window.locator("canvas.plane").wait_for()
    window.get_by_label("hidden layers: their widths").fill("3")
    window.get_by_label("hidden layers: their widths").press("Tab")
    window.get_by_role("link", name="Runs", exact=True).click()
    window.get_by_text("Did you mean resnet?").wait_for(timeout=120_000)
    window.get_by_role("link", name="Playground", exact=True).click()
    window.locator("canvas.plane").wait_for()
    assert window.get_by_label("hidden layers: their widths").input_value() == "3"


def test_the_parts_that_are_chosen_stand_in_the_line(window):
    window.get_by_text("Choose the parts").click()
    window.get_by_label("model", exact=True).select_option("resnet")
    window.get_by_label("seed", exact=True).fill("3")
    window.get_by_label("seed", exact=True).press("Tab")
    assert window.locator("#line-shown").inner_text() == "epochal train dataset=digits model=resnet seed=3"


def test_markup_of_a_run_is_text(window):
    row = window.locator("tr", has_text="<img src=x").first
    row.locator("button").click()
    window.locator(".problem", has_text="<img src=x onerror=alert(1)>").wait_for()
    assert window.locator("img[src=x]").count() == 0


def test_a_language_model_shows_what_comes_next(window, lab, trained):
    window.goto(f"{lab.url}#write?run={id_of(lab.lab.runs.output_dir / 'runs' / trained['gpt'].name)}")
    box = window.get_by_label("Text", exact=True)
    box.fill("ROMEO:")
    first = window.locator("button.bar").first
    first.locator("code", has_text="␣").wait_for()  # it has learned that a blank follows
    window.locator(".token", has_text=":").wait_for()
    before = float(window.locator(".bar .percent").first.inner_text().rstrip(" %"))
    slider = window.get_by_label("temperature", exact=True)
    slider.fill("2")
    window.wait_for_function(
        "before => parseFloat(document.querySelector('.bar .percent').textContent) < before - 1", arg=before
    )
    slider.fill("0")
    window.wait_for_function("() => document.querySelector('.bar .percent').textContent === '100 %'")
    first.click()
    assert box.input_value() == "ROMEO: "
    window.get_by_role("button", name="Write on").click()
    window.wait_for_function("() => document.querySelector('textarea').value.length > 60")
    window.get_by_role("button", name="Write on").wait_for()
    assert box.input_value().startswith("ROMEO: the")
    window.get_by_label("Head", exact=True).select_option("1")
    window.get_by_text("All heads").click()
    assert window.locator(".headmap").count() == 4
    assert window.locator("section table tbody tr").count() == 2  # what each layer would have said
    assert "text=ROMEO" in window.url


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_a_captioner_shows_where_each_word_of_a_drawing_comes_from(chromium, lab, trained, size):
    place = f"#write?run={id_of(lab.lab.runs.output_dir / 'runs' / trained['captioner'].name)}&picture=3"
    with watched_page(chromium, f"http://127.0.0.1:{lab.port}/", viewport=size) as page:
        page.goto(lab.url + place)
        page.locator(".words button").first.wait_for()
        page.locator(".stale").wait_for(state="detached")
        assert page.locator(".shelf button[aria-pressed=true]").get_attribute("data-number") == "3"
        large = page.locator("canvas.captioned")
        page.mouse.move(1, 1)
        plain = large.screenshot()
        page.locator(".words button").first.hover()
        assert large.screenshot() != plain, "the word that is pointed at lights up the picture"
        page.locator("canvas.pad").scroll_into_view_if_needed()
        box = page.locator("canvas.pad").bounding_box()
        page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.8 * box["height"], steps=5)
        page.mouse.up()
        page.locator(".shelf:not(:has(button[aria-pressed=true]))").wait_for()
        page.locator(".stale").wait_for(state="detached")
        page.mouse.move(1, 1)
        assert large.screenshot() != plain, "the drawing is what it reads"
        assert "picture=" not in page.url and page.locator(".stale").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_sliders_turn_a_generated_picture_and_its_film_plays(window, lab, trained):
    window.goto(f"{lab.url}#generate")
    picture = window.locator("img.sample")
    window.get_by_label("direction 1").wait_for()
    before = picture.get_attribute("src")
    window.get_by_label("direction 1").fill("4")
    window.wait_for_function("before => document.querySelector('img.sample').src !== before", arg=before)
    assert window.locator(".walk img").count() == 9
    window.get_by_role("button", name="Another one").click()
    window.wait_for_function("() => location.hash.includes('seed=')")
    window.get_by_role("button", name="Play").click()
    window.wait_for_function("() => document.querySelector('img.film').src.endsWith('/1')")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_every_room_fits_its_window(chromium, lab, size, dark):
    options = {"viewport": size, "color_scheme": "dark" if dark else "light"}
    with watched_page(chromium, f"http://127.0.0.1:{lab.port}/", **options) as page:
        for room in ROOMS:
            page.goto(f"{lab.url}#{room}")
            page.reload()
            page.wait_for_load_state("networkidle")
            page.locator("main section").first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), room
            assert "null" not in page.locator("main").inner_text().split(), room


def test_by_keyboard_alone_one_comes_to_every_room(window):
    window.keyboard.press("Tab")
    assert window.evaluate("document.activeElement.id") == "skip"
    rooms = window.eval_on_selector_all("#rooms a", "links => links.map(link => link.hash)")
    assert {f"#{room}" for room in ROOMS} <= set(rooms)
    for room in rooms:
        window.keyboard.press("Tab")
        assert window.evaluate("document.activeElement.hash") == room
    window.keyboard.press("Enter")
    window.get_by_text("No run here").or_(window.get_by_text("A network answers")).first.wait_for()


def test_without_the_key_one_looks_only(chromium, lab):
    with watched_page(chromium, f"http://127.0.0.1:{lab.port}/", viewport=WIDE) as page:
        page.goto(f"http://127.0.0.1:{lab.port}/")
        page.locator("table").wait_for()
        page.get_by_text("You are looking only").wait_for()
        assert page.get_by_role("button", name="Start", exact=True).is_disabled()


def test_the_page_speaks_korean_to_a_korean_browser(chromium, lab):
    with watched_page(chromium, f"http://127.0.0.1:{lab.port}/", viewport=WIDE, locale="ko-KR") as page:
        page.goto(lab.url)
        page.get_by_role("heading", name="학습 시작").wait_for()
        assert page.evaluate("document.documentElement.lang") == "ko"


def test_ten_pages_at_once_and_a_run_deleted_while_it_is_shown(chromium, lab, trained):
    folder = lab.lab.runs.output_dir / "runs" / trained["gpt"].name
    with watched_page(chromium, f"http://127.0.0.1:{lab.port}/", viewport=WIDE) as page:
        others = [page.context.new_page() for _ in range(9)]
        for each in (page, *others):
            each.goto(f"{lab.url}#runs?run={id_of(folder)}")
        for each in (page, *others):
            each.locator("figure.plot").first.wait_for()
        shutil.rmtree(folder)
        page.get_by_text("This run is no longer there").wait_for()
        assert json.dumps(lab.get("/api/runs")).count('"gpt"') == 0
