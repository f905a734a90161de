"""The report and the live page in Chromium: controls work, without errors in the console or requests to other hosts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from epochal.compare.comparison import Comparison
from epochal.compare.report import live, page
from epochal.compare.request import Request
from helpers.browser import chromium_browser
from helpers.run_folders import grid, run_folder
from helpers.web import served_app

pytestmark = pytest.mark.browser

EVIL = "<img src=x onerror=alert(1)></script><script>alert(1)</script>"
ERRORS = {
    ("plain", 8): [0.20, 0.21, 0.22],
    ("plain", 44): [0.40, 0.41, 0.43],
    ("resnet", 8): [0.20],
    ("resnet", 44): [0.1],
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with chromium_browser() as browser:
        yield browser


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
    for number, run in enumerate(("plain-8-1", "resnet-44-1")):
        summary = json.loads((parent / run / "summary.json").read_text())
        told = {"git_commit": f"{number}abc", "versions": {"torch": f"2.{number}", "epochal": "0.2"}}
        (parent / run / "summary.json").write_text(json.dumps(summary | told))
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
        return self.page.locator("#runs tbody th.name").all_inner_texts()

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
    served = ExitStack()
    if request.param == "report":
        url = page.write(compare(runs), tmp_path / "report.html").as_uri()
    else:
        monkeypatch.setattr(live, "MIN_INTERVAL", 0.0)
        app = served_app(lambda: live.application(live.LiveData(lambda: compare(runs))))
        url = f"http://127.0.0.1:{served.enter_context(app)}/"
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
    served.close()
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
    assert window.names()[0] == "resnet-44-1"  # as the first click on any heading
    heading.click()
    assert window.names()[0] == "going"
    assert heading.locator("xpath=..").get_attribute("aria-sort") == "descending"
    window.page.locator("#runs thead button", has_text="validation accuracy").click()
    assert window.names()[0] == "resnet-44-1"  # of an accuracy, the largest
    window.page.get_by_role("button", name="run", exact=True).click()
    assert window.names()[1:3] == ["plain-8-1", "plain-8-2"]  # 8 before 44


def test_a_run_that_failed_stands_below_all_others_whatever_its_value(window):
    assert window.names()[-1] == "broke"
    window.page.locator("#runs thead button", has_text="validation loss").click()
    assert window.names()[-1] == "broke"
    sections = window.page.locator("#runs tr.section").all_inner_texts()
    assert [section.strip() for section in sections] == ["digits: 9 runs", "Failed, not ranked: 1 run"]


def test_words_and_a_status_filter_the_table(window):
    window.page.fill("#filter", "resnet depth=44")
    assert window.names() == ["resnet-44-1"]
    window.page.fill("#filter", "")
    assert len(window.names()) == 10
    window.page.get_by_role("button", name="1 failed", exact=True).click()
    assert window.names() == ["broke"]


def test_two_picked_runs_show_in_which_keys_they_differ_and_on_request_all(window):
    window.pick("plain-8-1", "resnet-44-1")
    header = window.page.locator("#diff thead th").all_inner_texts()
    differences = {row[0]: dict(zip(header[1:], row[1:])) for row in window.differences()}
    assert differences["model.name"] == {"plain-8-1": "plain", "resnet-44-1": "resnet"}
    assert differences["model.depth"] == {"plain-8-1": "8", "resnet-44-1": "44"}
    assert "dataset.batch_size" not in differences
    assert differences["code: commit"] == {"plain-8-1": "0abc", "resnet-44-1": "1abc"}
    assert differences["version: torch"] == {"plain-8-1": "2.0", "resnet-44-1": "2.1"}
    assert "version: epochal" not in differences
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


def rows(window: Window, plot: int = 0, name: str = "means") -> list[dict[str, Any]]:
    """The numbers that a plot shows."""
    return window.page.evaluate(f"state.figures[{plot}].datasets.{name} || []")


def choose(window: Window, plot: int = 0, **choices: str) -> None:
    """Changes a plot by its form."""
    card = window.page.locator("#plots figure").nth(plot)
    if not card.locator(".choices").evaluate("details => details.open"):
        card.locator(".choices summary").click()
    for name, value in choices.items():
        card.locator(f"[name={name}]").select_option(value)


def test_a_click_on_the_legend_singles_a_group_out(window):
    marked = window.page.locator("#plots canvas").first.screenshot()
    button = window.page.locator("#plots .legend button", has_text="resnet").first
    button.click()
    window.page.wait_for_timeout(500)
    assert button.get_attribute("aria-pressed") == "true"
    assert window.page.locator("#plots canvas").first.screenshot() != marked


def test_the_filter_and_the_ticks_choose_what_the_plots_show(window):
    assert {row["series"] for row in rows(window)} == {"plain", "resnet"}
    window.page.fill("#filter", "model=plain depth<20")
    assert {(row["series"], row["x"], row["n"]) for row in rows(window)} == {("plain", 8, 3)}
    window.pick("plain-8-1", "plain-8-2")
    window.page.fill("#filter", "")
    assert [row["n"] for row in rows(window)] == [2]
    window.page.get_by_role("button", name="Untick all").click()
    assert {row["series"] for row in rows(window)} == {"plain", "resnet"}


@pytest.mark.parametrize(
    "text, names",
    [
        ("depth>8", ["resnet-44-1", "plain-44-1", "plain-44-2", "plain-44-3"]),
        ("depth>8 model!=plain", ["resnet-44-1"]),
        ("resnet or seed=3", ["resnet-44-1", "resnet-8-1", "plain-8-3", "plain-44-3"]),
        ("val/accuracy>=80% (depth=44 or seed=2)", ["resnet-44-1"]),
        ("accuracy > 79 depth = 8 plain not seed=1", ["plain-8-2"]),
        ("model=res*", ["resnet-44-1", "resnet-8-1"]),
        ("status=failed or status=running", ["going", "broke"]),
        ("batch_size=64 lr<1e-2 resnet", ["resnet-44-1", "resnet-8-1"]),
        ("depth>", [None]),
        ("depht>8", []),
    ],
)
@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_the_filter_compares_and_combines(window, text, names):
    window.page.fill("#filter", text)
    if names != [None]:
        assert window.names() == names
    problem = window.page.locator("#filter-problem").inner_text()
    assert problem == {"depth>": "depth> needs a value.", "depht>8": "No run has a value depht."}.get(text, "")


@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_a_plot_shows_any_metric_over_any_axis_by_any_group(window):
    choose(window, y="train/accuracy", x="examples")
    assert window.page.locator("#plots h2").first.inner_text() == "Training accuracy by examples"
    assert {row["x"] for row in rows(window)} == {640, 1280, 1920, 2560, 3200}
    choose(window, x="training_flops")
    assert max(row["x"] for row in rows(window)) == 3 * 2000 * 3200
    layers = window.page.evaluate("state.figures[0].spec.layer.map((l) => l.encoding.x.scale.type)")
    assert {*layers} == {"log"}, "as in the figures that are written"
    window.page.locator("#plots .group input[value='model.depth']").check()
    assert {row["series"] for row in rows(window)} >= {"plain, depth 8", "resnet, depth 44"}
    choose(window, aggregate="runs")
    assert rows(window) == [] and len({row["run"] for row in rows(window, name="singles")}) == 8
    choose(window, x="model.name", aggregate="median")
    assert [row["x"] for row in rows(window)][:1] == ["plain"]
    window.page.get_by_role("button", name="Plots as they were").click()
    assert window.page.locator("#plots h2").first.inner_text() == "Validation loss by depth"


@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_the_means_are_those_of_the_figures_that_are_written(window):
    from epochal.compare.figures import figure

    comparison = compare(window.runs)
    written = figure(comparison, comparison.plots[0])["datasets"]["means"]
    keys = ("series", "x", "y", "low", "high", "n")
    ours = sorted(tuple(row[key] for key in keys) for row in rows(window))
    assert [row[:2] for row in ours] == sorted((row["series"], row["x"]) for row in written)
    theirs = sorted(tuple(row[key] for key in keys) for row in written)
    assert [row[2:] for row in ours] == [pytest.approx(row[2:], rel=1e-5) for row in theirs]


@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_of_many_changes_at_once_the_last_is_drawn(window):
    for name in ("plain-8-1", "plain-44-1", "resnet-44-1"):
        window.page.evaluate(f"tick('{name}', true)")
    window.page.evaluate("change(0, {only: ['plain']}); change(0, {only: []}); tick('resnet-8-1', true)")
    window.page.evaluate("state.queue[0]")
    drawn = window.page.evaluate("state.views[0].data('means').map((row) => [row.series, row.x])")
    assert sorted(drawn) == [["plain", 8], ["plain", 44], ["resnet", 8], ["resnet", 44]]


@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_smoothing_and_logarithmic_axes_change_the_drawing(window):
    choose(window, x="step", y="train/accuracy", aggregate="runs")
    raw = [row["y"] for row in rows(window, name="singles") if row["run"] == "plain-8-1"]
    window.page.evaluate("change(0, {smooth: 0.5})")
    smooth = [row["y"] for row in rows(window, name="singles") if row["run"] == "plain-8-1"]
    assert smooth[0] == raw[0] and smooth[1] == pytest.approx((0.5 * raw[0] + raw[1]) / 1.5)
    choose(window, log_x="on", log_y="on")
    scales = window.page.evaluate(
        "state.figures[0].spec.layer.map((l) => [l.encoding.x.scale.type, l.encoding.y.scale.type])"
    )
    assert set(map(tuple, scales)) == {("log", "log")}


@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_the_nearest_point_tells_its_run(window):
    choose(window, x="step", aggregate="runs")
    window.page.wait_for_timeout(500)
    x, y = window.page.evaluate("""() => {
        const row = state.figures[0].points.find((row) => row.run === "plain-44-2" && row.x === 30);
        const [left, top] = placeOf(state.views[0], row), box = document.querySelector("#plots canvas").getBoundingClientRect();
        return [box.x + left, box.y + top];
    }""")
    colour = window.page.evaluate(
        """([x, y]) => {
            const canvas = document.querySelector("#plots canvas"), box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
            return [...canvas.getContext("2d").getImageData(Math.round((x - box.x) * scale), Math.round((y - box.y) * scale), 1, 1).data];
        }""",
        [x, y],
    )
    assert colour[3] > 100  # it is on the line that is drawn
    window.page.mouse.move(x, y)
    tip = window.page.locator("#plots .tip").first
    assert tip.is_visible() and "plain-44-2" in tip.inner_text() and "step: 30" in tip.inner_text()


@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_parallel_coordinates_show_any_values_of_each_run(window):
    window.page.get_by_role("button", name="Add a plot").click()
    last = window.page.locator("#plots figure").last
    assert last.locator("h2").inner_text() == "Parallel coordinates"
    last.locator(".choices summary").click()
    last.locator(".keys input[value='seconds']").check()
    shown = window.page.evaluate("state.figures.at(-1).datasets.rows")
    assert {row["axis"].split(". ")[1] for row in shown} == {"model", "depth", "val loss", "time"}
    assert "broke" not in {row["run"] for row in shown}


@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_what_one_has_chosen_survives_a_reload(window):
    choose(window, x="epoch", y="val/accuracy", log_x="on")
    window.page.fill("#filter", "depth>8 or resnet")
    window.page.locator("#runs thead button", has_text="seed").click()
    window.pick("resnet-8-1", "plain-44-3")
    window.page.get_by_label("Also the keys that agree").check()
    names, shown = window.names(), rows(window)
    window.page.reload()
    window.page.locator("#plots canvas").first.wait_for()
    assert (window.names(), rows(window)) == (names, shown)
    assert window.page.input_value("#filter") == "depth>8 or resnet"
    assert window.page.locator("#runs input:checked").count() == 2
    assert window.page.get_by_label("Also the keys that agree").is_checked()
    assert window.page.locator("#plots h2").first.inner_text() == "Validation accuracy by epoch"


def test_a_power_law_is_drawn_until_other_axes_are_chosen(chromium, tmp_path):
    for size in (100, 200, 400, 800):
        run_folder(tmp_path / "runs", f"n{size}", parameters=size, metrics={"val/loss": size**-0.5})
    comparison = Request(paths=(str(tmp_path / "runs"),), x="parameters", y="val/loss").compare(())
    plot = replace(comparison.plots[0], fit="power")
    opened = chromium.new_page()
    opened.goto(page.write(replace(comparison, plots=[plot]), tmp_path / "report.html").as_uri())
    opened.locator("#plots canvas").first.wait_for()
    law = opened.evaluate("state.views[0].data('laws').map((row) => [row.x, row.y])")
    assert law[0] == pytest.approx([100, 0.1]) and law[-1] == pytest.approx([800, 800**-0.5])
    assert "Dashed: Power law" in opened.locator("figcaption").first.inner_text()
    opened.evaluate("change(0, {x: 'flops'})")
    opened.wait_for_timeout(300)
    assert opened.evaluate("state.figures[0].datasets.laws") is None
    assert "Power law" not in opened.locator("figcaption").first.inner_text()
    opened.close()


@pytest.mark.parametrize("window", ["report"], indirect=True)
@pytest.mark.parametrize(
    "hash", ["plots=[1,{}]", "plots={", 'plots=[{"x":5,"group":"a","from":99}]', "pick=nobody&sort=", "%"]
)
def test_an_address_that_says_nonsense_leaves_the_page_whole(window, hash):
    window.page.goto(window.page.url.partition("#")[0] + "#" + hash)
    window.page.reload()
    window.page.locator("#plots canvas").first.wait_for()
    assert len(window.names()) == 10


@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_figures_and_the_table_can_be_copied_and_saved(window):
    window.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    window.page.fill("#filter", "resnet or depth>8")
    window.page.get_by_role("button", name="Copy as Markdown").click()
    window.page.locator("#note", has_text="Copied").wait_for()
    lines = window.page.evaluate("navigator.clipboard.readText()").splitlines()
    assert lines[0].startswith("| run | status | model | depth |") and lines[1].startswith("| --- | --- | --- | ---: |")
    assert len(lines) == 2 + 5
    window.page.get_by_role("button", name="Copy as CSV").click()
    window.page.wait_for_function(
        "navigator.clipboard.readText().then((text) => text.startsWith('name,status,model.name'))"
    )
    card = window.page.locator("#plots figure").first
    card.locator(".copies summary").click()
    card.get_by_role("button", name="Copy SVG").click()
    window.page.wait_for_function("navigator.clipboard.readText().then((text) => text.startsWith('<svg'))")
    svg = window.page.evaluate("navigator.clipboard.readText()")
    assert ">resnet</text>" in svg and "finished runs" in svg
    with window.page.expect_download() as download:
        card.get_by_role("button", name="Save PNG").click()
    picture = Image.open(download.value.path())
    assert download.value.suggested_filename == "validation-loss-by-depth.png" and picture.width > 1000


@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_a_table_of_numbers_is_behind_each_plot(window):
    card = window.page.locator("#plots figure").first
    card.locator(".numbers summary").click()
    cells = card.locator(".numbers tbody tr").first.locator("th, td").all_inner_texts()
    assert cells[:2] == ["plain", "8"] and cells[-1] == "3"


@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_the_keyboard_alone_reaches_everything(window):
    press = window.page.keyboard.press
    window.page.locator("#copy-markdown").focus()
    press("Tab")
    active = "document.activeElement.closest('tr')?.dataset.run ?? document.activeElement.textContent"
    assert window.page.evaluate(active) in ("pick", "run")
    press("ArrowRight")
    press("ArrowRight")
    press("ArrowRight")
    press("ArrowRight")  # depth
    press("Enter")
    press("Enter")
    assert window.names()[0].split("-")[1] == "44"
    press("ArrowDown")
    press("Space")
    press("ArrowDown")
    press("Space")
    assert window.page.locator("#runs input:checked").count() == 2
    assert window.page.locator("#diff tbody tr").count() > 0
    press("Tab")
    assert window.page.evaluate("document.activeElement.closest('#runs')") is None  # the table is one stop
    press("Shift+Tab")
    assert window.page.evaluate("document.activeElement.closest('tr').rowIndex") >= 2  # where one was
    press("Control+Home")
    assert window.page.evaluate("document.activeElement.closest('thead') !== null")
    window.page.locator("#plots .plot").first.focus()
    press("ArrowRight")
    first = window.page.locator("#plots .tip").first.inner_text()
    press("ArrowRight")
    assert window.page.locator("#plots .tip").first.inner_text() != first


LOOKS = [(width, scheme) for width in (1400, 390) for scheme in ("light", "dark")]


@pytest.mark.parametrize("width, scheme", LOOKS)
@pytest.mark.parametrize("window", ["report"], indirect=True)
def test_it_fits_the_width_and_its_text_has_contrast(window, width, scheme):
    opened = window.page
    opened.set_viewport_size({"width": width, "height": 844})
    opened.emulate_media(color_scheme=scheme)
    window.pick("plain-8-1", "resnet-44-1")
    for summary in opened.locator("#plots summary").all():
        summary.click()
    opened.wait_for_timeout(300)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.locator("#plots canvas").first.bounding_box()["width"] <= width
    faint = opened.evaluate(CONTRAST)
    assert faint == []
    box = opened.locator(".scroll", has=opened.locator("#runs"))
    name = opened.locator("#runs tbody th.name").first
    before = name.bounding_box()["x"]
    box.evaluate("box => { box.scrollLeft = 400; }")
    assert name.bounding_box()["x"] == pytest.approx(before, abs=10)  # the name stays


# texts, and colours of series, whose contrast with what is behind them is below 4.5 or 3
CONTRAST = """() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const hex = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
    const behind = (node) => { for (; node; node = node.parentElement) { const c = channels(getComputedStyle(node).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
    const texts = [...document.querySelectorAll("body *")].filter((node) => node.getClientRects().length && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
    const faint = texts.filter((node) => contrast(channels(getComputedStyle(node).color), behind(node)) < 4.5).map((node) => node.outerHTML.slice(0, 80));
    const card = behind(document.querySelector("#plots figure"));
    return [...faint, ...COLOURS[isDark() ? "dark" : "light"].filter((colour) => contrast(hex(colour), card) < 3)];
}"""


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
    opened.get_by_role("button", name="Untick all").click()
    opened.wait_for_function("state.views[0].data('means').some((row) => row.n === 4)")
    assert opened.evaluate("state.views[0].data('means').find((row) => row.x === 8 && row.series === 'plain').n") == 4


@pytest.mark.parametrize("window", ["live"], indirect=True)
def test_the_page_says_that_the_server_has_ended(window):
    window.page.route(
        "**/data.json*", lambda route: route.fulfill(status=503, body="There is nothing at outputs/runs.")
    )
    window.page.get_by_text("no news: There is nothing at outputs/runs.").wait_for(timeout=10_000)
    window.complaints.clear()  # the browser itself logs the answer 503
