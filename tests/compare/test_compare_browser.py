"""The report and the live page in Chromium: controls work, without errors in the console or requests to other hosts."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from epochal.compare.comparison import Comparison
from epochal.compare.report import live, page
from epochal.compare.request import Request
from helpers.run_folders import grid, run_folder

pytestmark = pytest.mark.browser

EVIL = "<img src=x onerror=alert(1)></script><script>alert(1)</script>"
ERRORS = {
    ("plain", 8): [0.20, 0.21, 0.22],
    ("plain", 44): [0.40, 0.41, 0.43],
    ("resnet", 8): [0.20],
    ("resnet", 44): [0.1],
}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, "--no-first-run"])
        yield browser
        browser.close()


@pytest.fixture
def runs(tmp_path) -> Path:
    """Ten runs of two models and depths, pictures and texts of some, one that failed and one that goes on."""
    parent = grid(tmp_path / "runs", ERRORS)
    for number, run in enumerate(("plain-8-1", "resnet-44-1")):
        for step in (10, 50):
            Image.new("RGB", (60, 40), (200 * number, step, 30)).save(
                parent / run / "pictures" / f"predictions_{step:06}.png"
            )
        (parent / run / "pictures" / "test_samples.txt").write_text(f"{run} says {EVIL}")
    run_folder(parent, "broke", status="failed", error=EVIL, config={"model.depth": 8}, metrics={"val/loss": 9.0})
    run_folder(parent, "going", status="running", config={"model.depth": 8}, metrics={"val/loss": 2.0}, rows=2)
    (parent / "junk").mkdir()
    (parent / "junk" / "config.yaml").write_text("a: [")
    return parent


@dataclass
class Window:
    """A page in the browser, and what it complained of and asked for."""

    page: Any
    runs: Path
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """The runs in the table, from top to bottom."""
        return self.page.locator("#runs tbody th").all_inner_texts()

    def pick(self, *names: str) -> None:
        for name in names:
            self.page.get_by_label(f"pick {name}", exact=True).check()

    def differences(self) -> list[list[str]]:
        rows = self.page.locator("#diff tbody tr")
        return [rows.nth(i).locator("th, td").all_inner_texts() for i in range(rows.count())]


def compare(runs: Path, known: Comparison | None = None) -> Comparison:
    return Request(paths=(str(runs),), x="model.depth", y="val/loss").compare(known.records if known else ())


@pytest.fixture(params=["report", "live"])
def window(request, chromium, runs, tmp_path, monkeypatch) -> Iterator[Window]:
    """The page as a file and as it is served; at the end nothing was complained of and no other host was asked."""
    server = None
    if request.param == "report":
        url = page.write(compare(runs), tmp_path / "report.html").as_uri()
    else:
        monkeypatch.setattr(live, "MIN_INTERVAL", 0.0)
        server = live.open_server(lambda: compare(runs), 0)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
    context = chromium.new_context(**getattr(request.function, "browser", {}))
    opened = context.new_page()
    shown = Window(opened, runs)
    opened.on("console", lambda message: shown.complaints.append(message.text))
    opened.on("pageerror", lambda error: shown.complaints.append(str(error)))
    opened.on("dialog", lambda dialog: (shown.complaints.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda asked: shown.requests.append(asked.url))
    opened.goto(url)
    opened.locator("#plots canvas").first.wait_for()
    yield shown
    context.close()
    if server is not None:
        server.shutdown()
        server.server_close()
    assert shown.complaints == []
    elsewhere = [asked for asked in shown.requests if not asked.startswith((url, "data:", "blob:"))]
    assert elsewhere == []


def with_browser(**options: Any) -> Any:
    """Of the context that a test's page is opened in."""

    def mark(test: Any) -> Any:
        test.browser = options
        return test

    return mark


def test_a_click_on_a_heading_sorts_and_another_turns_the_order(window):
    heading = window.page.locator("#runs thead button", has_text="validation loss")
    assert window.names()[0] == "resnet-44-1"  # best first, as the terminal has it
    heading.click()
    assert window.names()[0] == "broke"
    assert heading.locator("xpath=..").get_attribute("aria-sort") == "descending"
    heading.click()
    assert window.names()[0] == "resnet-44-1"
    window.page.get_by_role("button", name="run", exact=True).click()
    assert window.names()[2:4] == ["plain-8-1", "plain-8-2"]  # 8 before 44


def test_words_and_a_status_filter_the_table(window):
    window.page.fill("#filter", "resnet depth=44")
    assert window.names() == ["resnet-44-1"]
    window.page.fill("#filter", "")
    assert len(window.names()) == 10
    window.page.get_by_role("button", name="1 failed").click()
    assert window.names() == ["broke"]


def test_two_picked_runs_show_in_which_keys_they_differ_and_on_request_all(window):
    window.pick("plain-8-1", "resnet-44-1")
    header = window.page.locator("#diff thead th").all_inner_texts()
    differences = {row[0]: dict(zip(header[1:], row[1:])) for row in window.differences()}
    assert differences["model.name"] == {"plain-8-1": "plain", "resnet-44-1": "resnet"}
    assert differences["model.depth"] == {"plain-8-1": "8", "resnet-44-1": "44"}
    assert "dataset.batch_size" not in differences
    window.page.get_by_label("Also the keys that agree").check()
    assert ["dataset.batch_size", "64", "64"] in window.differences()


def test_pictures_of_the_picked_runs_stand_side_by_side_and_follow_the_slider(window):
    window.pick("plain-8-1", "resnet-44-1")
    window.page.select_option("#shown-name", "predictions")
    images = window.page.locator("#shown-runs img")
    assert images.count() == 2
    steps = window.page.locator("#shown-runs figcaption")
    assert steps.all_inner_texts() == ["step 50", "step 50"]
    last = images.first.get_attribute("src")
    window.page.locator("#step").press("ArrowLeft")
    assert steps.all_inner_texts() == ["step 10", "step 10"]
    assert images.first.get_attribute("src") != last
    assert images.first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 60


def test_what_runs_say_is_shown_as_text(window):
    window.page.select_option("#shown-name", "samples")
    window.pick("plain-8-1")
    sample = window.page.locator("#shown-runs pre")
    sample.filter(has_text="says").wait_for()
    assert sample.inner_text() == f"plain-8-1 says {EVIL}"
    assert EVIL in window.page.locator("#failed").inner_text()


def test_failures_progress_and_skipped_folders_are_listed(window):
    assert window.page.locator("#going progress").get_attribute("value") == "0.4"
    assert window.page.locator("#going li").inner_text().endswith("40 % mlp, depth 8, seed 1")
    window.page.locator("#skipped summary").click()
    assert re.search("junk: .*cannot be read", window.page.locator("#skipped li").inner_text())


def test_a_click_on_the_legend_singles_a_group_out(window):
    """Its place is found as Vega has drawn it."""
    marked = window.page.locator("#plots canvas").first.screenshot()
    place = window.page.evaluate("""() => {
        let found = null;
        const look = (item, x, y) => {
            if (item.mark && item.mark.role === "legend-symbol" && !found) found = [x + (item.x || 0), y + (item.y || 0)];
            const at = item.marktype ? [x, y] : [x + (item.x || 0), y + (item.y || 0)];
            (item.items || []).forEach((child) => look(child, ...at));
        };
        const view = state.views[0], [left, top] = view.origin(), box = view.container().querySelector("canvas").getBoundingClientRect();
        look(view.scenegraph().root, 0, 0);
        return [box.x + left + found[0], box.y + top + found[1]];
    }""")
    window.page.mouse.click(*place)
    window.page.wait_for_timeout(300)
    window.page.mouse.move(0, 0)
    assert window.page.evaluate("state.views[0].signal('chosen').series.length") == 1
    assert window.page.locator("#plots canvas").first.screenshot() != marked


@with_browser(viewport={"width": 360, "height": 740}, color_scheme="dark", has_touch=True)
def test_a_phone_shows_all_without_scrolling_sideways(window):
    window.pick("plain-8-1", "resnet-44-1")
    assert window.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert window.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)"
    assert window.page.locator("#plots canvas").first.bounding_box()["width"] <= 340


def test_every_control_has_a_name_and_every_table_a_caption(window):
    unnamed = window.page.evaluate("""() => [...document.querySelectorAll("button, input, select, progress, img")]
        .filter((control) => !(control.getAttribute("aria-label") || control.textContent.trim() || control.alt || (control.labels && control.labels.length)))
        .map((control) => control.outerHTML)""")
    assert unnamed == []
    assert window.page.locator("#runs caption").inner_text() == "10 runs"
    assert window.page.locator("#runs thead th:not([scope=col])").count() == 0


@pytest.mark.parametrize("window", ["live"], indirect=True)
def test_news_comes_by_itself_and_leaves_sort_filter_ticks_zoom_and_place_alone(window):
    opened = window.page
    opened.set_viewport_size({"width": 900, "height": 400})
    opened.get_by_role("button", name="seed").click()
    opened.fill("#filter", "plain")
    window.pick("plain-8-1", "plain-44-2")
    opened.evaluate("state.views[0].signal('zoom_x', [0, 100]).run() && null")
    opened.evaluate("window.scrollTo(0, 500)")
    order = window.names()

    summary = window.runs / "going" / "summary.json"
    told = json.loads(summary.read_text())
    summary.write_text(json.dumps(told | {"steps": 45, "status": "running"}))
    run_folder(window.runs, "newcomer", model="plain", seed=9, metrics={"val/loss": 0.05}, config={"model.depth": 8})
    opened.get_by_label("pick newcomer").wait_for(timeout=15_000)

    assert [name for name in window.names() if name != "newcomer"] == order
    assert opened.input_value("#filter") == "plain"
    assert opened.locator("#runs input:checked").count() == 2
    assert opened.locator("#diff thead th").all_inner_texts()[1:] == ["plain-8-1", "plain-44-2"]
    assert opened.evaluate("window.scrollY") == 500
    assert opened.locator("#going progress").get_attribute("value") == "0.9"
    assert opened.evaluate("state.views[0].signal('zoom_x')") == [0, 100]
    assert opened.evaluate("state.views[0].data('means').find((row) => row.x === 8 && row.series === 'plain').n") == 4


@pytest.mark.parametrize("window", ["live"], indirect=True)
def test_the_page_says_that_the_server_has_ended(window):
    window.page.route(
        "**/data.json*", lambda route: route.fulfill(status=503, body="There is nothing at outputs/runs.")
    )
    window.page.get_by_text("no news: There is nothing at outputs/runs.").wait_for(timeout=10_000)
    window.complaints.clear()  # the browser itself logs the answer 503
