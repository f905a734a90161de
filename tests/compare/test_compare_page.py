"""The page holds all it shows, trusts nothing that a run says, and stays small."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from epochal.compare.comparison import Comparison
from epochal.compare.report import page
from epochal.compare.request import Request
from helpers.run_folders import grid, many, run_folder

EVIL = "</script><img src=x onerror=alert(1)><!--"


@pytest.fixture(autouse=True)
def bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small script in place of Vega's megabyte."""
    monkeypatch.setattr(page, "_bundle", lambda: "window.vegaEmbed = () => {};")


def compare(*paths: Path) -> Comparison:
    return Request(paths=tuple(map(str, paths))).compare()


def picture(run: Path, name: str, size: int = 32, noise: int = 0) -> None:
    image = Image.effect_noise((size, size), 80) if noise else Image.new("RGB", (size, size), (200, 30, 30))
    image.save(run / "pictures" / name)


def read(path: Path) -> dict[str, Any]:
    """The data in a page."""
    return json.loads(
        re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)[0]
    )


def test_what_a_run_says_never_becomes_html(tmp_path):
    run = run_folder(tmp_path / "runs", "<b>run", status="failed", error=EVIL, config={"note": EVIL})
    (run / "pictures" / "samples_000040.txt").write_text(EVIL)
    written = page.write(compare(tmp_path / "runs"), tmp_path / "report.html")

    found: list[str] = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append(tag)  # type: ignore[method-assign]
    parser.feed(written.read_text())
    assert found.count("script") == 3
    assert {"img", "b"}.isdisjoint(found)
    (data,) = read(written)["runs"]
    assert (data["name"], data["error"]) == ("<b>run", EVIL)


@pytest.mark.parametrize(
    "place",
    ["pictures/notes_000040.txt", "pictures/test_notes.txt", "pictures/test_notes.png", "evaluation/mlp/explain_x.png"],
)
@pytest.mark.parametrize("kind", ["link", "link to a link", "folder that is a link"])
def test_a_file_outside_the_run_folder_is_never_read(tmp_path, place, kind):
    run, outside = run_folder(tmp_path / "runs", "run"), tmp_path / "outside"
    file, name = run / place, place.rpartition("/")[2]
    outside.mkdir()
    if name.endswith(".png"):
        Image.new("RGB", (8, 8)).save(outside / name)
    else:
        (outside / name).write_text("a secret")
    if kind == "folder that is a link":
        shutil.rmtree(file.parent, ignore_errors=True)
        file.parent.parent.mkdir(exist_ok=True)
        file.parent.symlink_to(outside)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        between = run / "between"
        between.symlink_to(outside / name)
        file.symlink_to(between if kind == "link to a link" else outside / name)
    written = page.write(compare(tmp_path / "runs"), tmp_path / "report.html")
    assert read(written)["shown"] == []
    assert "a secret" not in written.read_text()


def test_a_link_within_the_run_folder_is_shown(tmp_path):
    run = run_folder(tmp_path / "runs", "run")
    (run / "notes.txt").write_text("its own")
    (run / "pictures" / "test_notes.txt").symlink_to(run / "notes.txt")
    assert "its own" in page.write(compare(tmp_path / "runs"), tmp_path / "report.html").read_text()


def test_only_the_pages_own_scripts_may_run_and_nothing_is_fetched_from_elsewhere(tmp_path):
    run_folder(tmp_path / "runs", "a")
    text = page.write(compare(tmp_path / "runs"), tmp_path / "report.html").read_text()
    policy = re.findall(r'Content-Security-Policy" content="(.*?)"', text)[0]
    assert "default-src 'none'" in policy
    assert not re.search(r"script-src[^;]*unsafe", policy)
    assert "http" not in policy
    for script in re.findall(r"<script>(.*?)</script>", text, re.DOTALL):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert not re.search(r"""(?:src|href)=["']?(?:https?:|//)""", text)


def test_pictures_are_part_of_the_page_as_small_webp(tmp_path):
    run = run_folder(tmp_path / "runs", "a")
    picture(run, "predictions_000040.png", size=2000)
    picture(run, "curve_loss.png")
    (run / "pictures" / "test_samples.txt").write_text("To be")
    shown = {entry["name"]: entry for entry in read(page.write(compare(run), tmp_path / "report.html"))["shown"]}
    assert set(shown) == {"predictions", "samples"}  # curves are plots here
    assert shown["samples"] | {"text": "To be", "step": None, "kind": "text"} == shown["samples"]
    kind, _, content = shown["predictions"]["src"].partition(",")
    assert kind == "data:image/webp;base64"
    (tmp_path / "shown.webp").write_bytes(base64.b64decode(content))
    assert Image.open(tmp_path / "shown.webp").size == (page.MAX_WIDTH, page.MAX_WIDTH)


def test_pictures_without_room_are_counted_and_the_best_runs_come_first(tmp_path, monkeypatch):
    for number in range(4):
        run = run_folder(tmp_path / "runs", f"run-{number}", metrics={"val/loss": 1.0 - number / 10})
        for step in range(10, 110, 10):
            picture(run, f"predictions_{step:06}.png", size=64, noise=1)
    monkeypatch.setattr(page, "MAX_BYTES", 40_000)
    monkeypatch.setattr(page, "BEST", 1)
    data = read(page.write(compare(tmp_path / "runs"), tmp_path / "report.html"))
    assert sum(len(entry["src"]) for entry in data["shown"]) <= 40_000
    assert {entry["run"] for entry in data["shown"][: page.MAX_STEPS]} == {"run-3"}
    assert data["left_out"] == 4 * page.MAX_STEPS - len(data["shown"]) > 0


def test_what_does_not_fit_is_not_read(tmp_path, monkeypatch):
    for number in range(3):
        run = run_folder(tmp_path / "runs", f"run-{number}")
        for step in range(10, 50, 10):
            picture(run, f"predictions_{step:06}.png", size=150, noise=1)
    read_files = []
    content = page._content
    monkeypatch.setattr(page, "_content", lambda picture: read_files.append(picture.path) or content(picture))
    monkeypatch.setattr(page, "MAX_BYTES", 20_000)
    data = read(page.write(compare(tmp_path / "runs"), tmp_path / "report.html"))
    assert len(read_files) == len(data["shown"]) + 1 < 12
    monkeypatch.setattr(page, "MAX_BYTES", 6_000_000)
    monkeypatch.setattr(page, "MAX_PIXELS", 2 * 150 * 150)
    data = read(page.write(compare(tmp_path / "runs"), tmp_path / "report.html"))
    assert (len(data["shown"]), data["left_out"]) == (2, 10)


def test_a_small_picture_is_embedded_as_it_is(tmp_path):
    run = run_folder(tmp_path / "runs", "a")
    picture(run, "predictions_000040.png")
    (entry,) = read(page.write(compare(run), tmp_path / "report.html"))["shown"]
    original = (run / "pictures" / "predictions_000040.png").read_bytes()
    assert entry["src"] == f"data:image/png;base64,{base64.b64encode(original).decode()}"


def test_curves_of_many_runs_are_thinned_and_keep_their_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MAX_NUMBERS", 1000)
    many(tmp_path / "runs", 5, 300)
    for run in read(page.write(compare(tmp_path / "runs"), tmp_path / "report.html"))["runs"]:
        (block,) = run["curves"]
        assert len(block["step"]) == len(block["val/loss"]) == 20
        assert (block["step"][0], block["step"][-1]) == (10, 3000)


def test_failed_runs_and_trials_are_in_sections_of_their_own_below_the_ranks(tmp_path):
    runs = tmp_path / "runs"
    run_folder(runs, "good", metrics={"val/loss": 0.5})
    run_folder(runs, "better", metrics={"val/loss": 0.4})
    run_folder(runs, "broke", metrics={"val/loss": 0.1}, status="failed")
    run_folder(runs, "tried", metrics={"val/loss": 0.0}, config={"trainer.name": "overfit"})
    run_folder(runs, "other", metrics={"val/loss": 0.2}, config={"dataset.name": "mnist"})
    sections = read(page.write(compare(runs), tmp_path / "report.html"))["sections"]
    assert [section["runs"] for section in sections] == [["better", "good"], ["other"], ["tried"], ["broke"]]
    assert sections[2]["title"].startswith("trainer=overfit") and sections[3]["title"] == "Failed, not ranked"


def test_no_control_character_of_a_run_reaches_the_page(tmp_path):
    run = run_folder(
        tmp_path / "runs", "run\x1b[31m", status="failed", error="\x1b]0;title\x07", config={"note": "\x1b[2J"}
    )
    (run / "pictures" / "sam\x1bples_000040.txt").write_text("\x1b[31mred")
    (tmp_path / "runs" / "junk\x1b[0m").mkdir()
    text = page.write(compare(tmp_path / "runs"), tmp_path / "report.html").read_text()
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert "red" in data and "\\u001b" not in data and "\x1b" not in data


def test_the_commit_and_the_versions_of_each_run_are_in_the_page(tmp_path):
    run_folder(tmp_path / "runs", "a", git_commit="abc123", versions={"torch": "2.14.1"})
    (run,) = read(page.write(compare(tmp_path / "runs"), tmp_path / "report.html"))["runs"]
    assert run["versions"] == {"commit": "abc123", "torch": "2.14.1"}


def test_the_bundle_is_made_once_and_kept_in_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))
    page._bundle.cache_clear()
    first = page._bundle()
    page._bundle.cache_clear()
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda *_: pytest.fail("made again"))
    assert page._bundle() == first


def test_a_half_written_picture_is_left_out(tmp_path):
    run = run_folder(tmp_path / "runs", "a")
    picture(run, "predictions_000040.png")
    whole = (run / "pictures" / "predictions_000040.png").read_bytes()
    (run / "pictures" / "predictions_000050.png").write_bytes(whole[: len(whole) // 2])
    data = read(page.write(compare(run), tmp_path / "report.html"))
    assert [entry["step"] for entry in data["shown"]] == [40]


def test_runs_are_listed_best_first_with_their_keys_metrics_and_costs(tmp_path):
    data = read(
        page.write(compare(grid(tmp_path / "runs", {("plain", 8): [0.3], ("resnet", 8): [0.1]})), tmp_path / "r.html")
    )
    assert [run["name"] for run in data["runs"]] == ["resnet-8-1", "plain-8-1"]
    titles = [data["names"][name]["title"] for name in data["columns"]]
    assert titles[:3] == ["model", "seed", "validation accuracy"]
    assert {"parameters", "time (s)"} <= set(titles)
    assert data["runs"][0]["values"]["val/accuracy"] == pytest.approx(0.85)


def test_a_key_with_one_value_in_all_runs_is_stored_once(tmp_path):
    data = read(
        page.write(compare(grid(tmp_path / "runs", {("plain", 8): [0.3], ("resnet", 8): [0.1]})), tmp_path / "r.html")
    )
    assert data["common"]["dataset.batch_size"] == 64
    assert {key for run in data["runs"] for key in run["config"]} == {"model.name", "model._target_"}


def test_axes_have_a_name_also_where_all_runs_agree(tmp_path):
    grid(tmp_path / "runs", {("plain", 8): [0.3]})
    comparison = Request(paths=(str(tmp_path / "runs"),), x="model.depth", y="val/loss").compare()
    assert read(page.write(comparison, tmp_path / "r.html"))["names"]["model.depth"]["title"] == "depth"


def test_runs_with_the_same_name_are_distinguished_by_their_parents(tmp_path):
    for parent in ("a/x", "a/y", "b/x"):
        run_folder(tmp_path / parent, "run")
    run_folder(tmp_path / "c", "alone")
    names = page.run_names(compare(*(tmp_path / parent for parent in ("a/x", "a/y", "b/x", "c"))).records)
    assert names == ["a/x/run", "y/run", "b/x/run", "alone"]


def test_skipped_folders_and_failed_runs_are_listed_with_the_reason(tmp_path):
    run_folder(tmp_path / "runs", "good")
    run_folder(tmp_path / "runs", "bad", status="failed", error="The loss is nan at step 2.")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "config.yaml").write_text("a: [")
    data = read(page.write(compare(tmp_path / "runs"), tmp_path / "report.html"))
    assert data["statuses"] == {"finished": 1, "failed": 1}
    assert "The loss is nan at step 2." in [run["error"] for run in data["runs"]]
    ((path, reason),) = data["skipped"]
    assert path.endswith("broken")
    assert "cannot be read" in reason


def test_values_that_are_no_numbers_leave_the_page_whole(tmp_path):
    run_folder(
        tmp_path / "runs",
        "a",
        metrics={"val/loss": float("nan")},
        config={"optimizer.lr": float("inf"), "prompt": "\n"},
    )
    data = read(page.write(compare(tmp_path / "runs"), tmp_path / "report.html"))
    assert data["common"]["prompt"] == "\n"
    assert data["common"]["optimizer.lr"] == "inf"


def test_writing_the_page_changes_no_run(tmp_path):
    run = run_folder(tmp_path / "runs", "a")
    picture(run, "predictions_000040.png")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    page.write(compare(run), tmp_path / "report" / "report.html")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == before
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["report.html"]


def test_the_plotting_library_ends_no_script_early_and_keeps_its_names_to_itself(monkeypatch):
    monkeypatch.undo()
    bundle = page._bundle()
    assert "</script" not in bundle
    assert bundle.startswith("(() => {") and bundle.endswith("})();")
    assert "window.vegaEmbed" in bundle
