"""A figure shows the numbers of its runs, each group in a way of its own, and says in its caption what they are."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from epochal.compare.comparison import Comparison, Plot, Reference
from epochal.compare.figures import figure, stem, styles
from epochal.compare.groups import Group
from epochal.compare.request import Request
from epochal.plots.vega import MAX_SERIES, SCALE, number_axis, save, specification, svg
from helpers.run_folders import grid, run_folder

DEPTH = Plot("model.depth", "train/error", ("model.name",), "points")
CURVES = Plot("epoch", "train/error", ("model.name", "model.depth"), "curves")
BARS = Plot("model.name", "train/error", ("model.depth",), "bars")
PROFILE = Plot("", "state_gradient", ("model.name",), "profile")


@pytest.fixture
def compared(tmp_path) -> Comparison:
    """Plain and residual networks of two depths, three seeds each."""
    errors = {("plain", 8): [0.2, 0.22, 0.24], ("plain", 44): [0.4, 0.41, 0.42], ("resnet", 8): [0.1] * 3}
    parent = grid(tmp_path / "runs", errors)
    for folder in parent.iterdir():
        values = "\n".join(f"{step},{10.0 ** (step - 9)}" for step in range(10))
        (folder / "pictures" / "state_gradient_000040.csv").write_text(f"time step,gradient norm\n{values}\n")
    return Request(paths=(str(parent),), to=str(tmp_path / "report")).compare()


def means(spec, series):
    return [row for row in spec["datasets"]["means"] if row["series"] == series]


def encodings(spec, channel):
    return [layer["encoding"][channel] for layer in spec["layer"] if channel in layer["encoding"]]


def test_a_point_is_the_mean_of_its_runs_and_its_whiskers_their_standard_deviation(compared):
    shallow, deep = means(figure(compared, DEPTH), "plain")
    assert (shallow["x"], deep["x"], shallow["n"]) == (8, 44, 3)
    assert shallow["y"] == pytest.approx(0.22)
    assert (shallow["low"], shallow["high"]) == (pytest.approx(0.20), pytest.approx(0.24))


def test_a_band_reaches_from_the_lowest_run_to_the_highest(compared):
    last = means(figure(compared, CURVES), "plain, depth 8")[-1]
    assert (last["low"], last["y"], last["high"]) == (pytest.approx(0.20), pytest.approx(0.22), pytest.approx(0.24))


def test_the_caption_says_what_is_drawn_and_of_how_many_runs(compared):
    assert figure(compared, CURVES)["description"] == (
        "Line: mean over 3 runs; band: lowest to highest; thin lines: single runs. 9 finished runs, 3 seeds."
    )


def test_a_run_that_goes_on_is_a_thin_line_but_in_no_mean(compared, tmp_path):
    metrics, config = {"train/accuracy": 0.1}, {"model.depth": 8}
    run_folder(tmp_path / "runs", "new", model="plain", status="running", metrics=metrics, config=config, rows=2)
    spec = figure(Request(paths=(str(tmp_path / "runs"),)).compare(), CURVES)
    assert {row["n"] for row in means(spec, "plain, depth 8")} == {3}
    assert means(spec, "plain, depth 8")[-1]["x"] == 5
    assert "new" in {row["run"] for row in spec["datasets"]["singles"]}


def test_errors_are_in_percent_and_losses_are_not(compared):
    assert encodings(figure(compared, DEPTH), "y")[0]["axis"]["format"] == "~%"
    assert "format" not in encodings(figure(compared, replace(DEPTH, y="val/loss")), "y")[0]["axis"]


@pytest.mark.parametrize(
    ("x", "values", "kind"),
    [
        ("model.depth", (8, 16), None),
        ("model.depth", (8, 800), "log"),
        ("parameters", (1000, 2000), "log"),
        ("optimizer.lr", (0.001, 0.03), "log"),
    ],
)
def test_parameters_and_what_spans_decades_have_a_logarithmic_axis(tmp_path, x, values, kind):
    for value in values:
        run_folder(tmp_path / "runs", str(value), config={x: value}, parameters=value)
    spec = figure(Request(paths=(str(tmp_path / "runs"),)).compare(), Plot(x, "val/loss", (), "points"))
    assert encodings(spec, "x")[0]["scale"].get("type") == kind


def test_few_values_of_a_key_are_the_ticks_of_their_axis(compared):
    axis = encodings(figure(compared, DEPTH), "x")[0]["axis"]
    assert axis["values"] == [8, 44]
    assert axis["format"] == ".3~g", "without a number of digits, 44 would be 4e+1, and 0.001 and 0.003 both 0.00"


@pytest.mark.parametrize(
    "values, options, labels",
    [
        ([8, 44], {}, ["8", "44"]),
        ([0.001, 0.003], {}, ["0.001", "0.003"]),
        ([20, 32, 44, 56, 1202], {}, ["20", "32", "44", "56", "1202"]),
        ([1e-5, 3e-4, 0.1], {"log": True}, ["0.00001", "0.0003", "0.1"]),
        ([1000, 61706, 1.2e6], {"log": True}, ["1k", "61.7k", "1.2M"]),
        ([12345, 12346, 1_000_000], {}, ["12.345k", "12.346k", "1M"]),
        ([0.001, 0.0025], {"percent": True}, ["0.1\xa0%", "0.25\xa0%"]),
    ],
)
def test_ticks_at_values_say_these_values(values, options, labels):
    x = {"field": "x", **number_axis("x", values, horizontal=True, ticks_at_values=True, **options)}
    layer = {"data": {"values": [{"x": value} for value in values]}, "mark": "point", "encoding": {"x": x}}
    drawn = re.search(r"role-axis-label.*?</g>", svg({**specification([layer], ""), "width": 900}), re.DOTALL)
    assert re.findall(r">([^<]+)</text>", drawn[0]) == labels


def test_a_profile_that_vanishes_is_logarithmic_and_bears_the_labels_of_its_file(compared):
    spec = figure(compared, PROFILE)
    x, y = encodings(spec, "x")[0], encodings(spec, "y")[0]
    assert (x["axis"]["title"], y["axis"]["title"], y["scale"]["type"]) == ("time step", "gradient norm", "log")
    assert [row["y"] for row in means(spec, "plain")] == pytest.approx([10.0 ** (step - 9) for step in range(10)])


def test_a_gradient_that_vanished_to_nothing_leaves_its_profile_at_the_lower_edge(compared, tmp_path):
    values = "\n".join(f"{step},{10.0 ** (step - 30) if step > 5 else 0.0}" for step in range(30))
    for path in (tmp_path / "runs").glob("*/pictures/*.csv"):
        path.write_text(f"time step,gradient norm\n{values}\n")
    spec = figure(Request(paths=(str(tmp_path / "runs"),)).compare(), PROFILE)
    low, top = encodings(spec, "y")[0]["scale"]["domain"]
    assert top / low < 1e14
    assert all(0 < row["y"] < low for row in means(spec, "plain")[:6])
    assert "Values below 1e-12 of the largest are not shown." in spec["description"]


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (2, 4), (7, 3), (24, 1)])
def test_no_two_groups_look_the_same_not_even_without_colour(shape):
    groups = [Group({"model.name": f"m{i}", "model.depth": j}, ()) for i in range(shape[0]) for j in range(shape[1])]
    series = styles(groups)
    assert len({(s.colour, s.shape, s.dash) for s in series}) == len(groups)
    if len(groups) <= 6:
        assert len({s.shape for s in series}) == len(groups)


def test_groups_of_two_keys_share_the_colour_of_the_first():
    groups = [
        Group({"model.name": model, "model.depth": depth}, ()) for model in ("plain", "resnet") for depth in (8, 44)
    ]
    plain, deep_plain, resnet, _ = styles(groups)
    assert plain.colour == deep_plain.colour != resnet.colour
    assert plain.dash == resnet.dash != deep_plain.dash


def test_references_are_hollow_and_stand_in_plots_of_the_same_x_and_y_alone(compared):
    paper = Reference("residual, He et al. 2015", "model.depth", "train/error", ((20, 0.0875), (110, 0.0643)))
    compared = replace(compared, references=[paper])
    spec = figure(compared, DEPTH)
    assert [(row["x"], row["y"]) for row in spec["datasets"]["references"]] == [(20, 0.0875), (110, 0.0643)]
    fill = encodings(spec, "fill")[0]["scale"]
    assert dict(zip(fill["domain"], fill["range"]))["residual, He et al. 2015"] == "transparent"
    assert "references" not in figure(compared, replace(DEPTH, y="val/error"))["datasets"]
    of_plain = replace(compared, references=[paper._replace(where=(("model.name", "plain"),))])
    assert "references" not in figure(of_plain, DEPTH)["datasets"]
    assert "references" in figure(of_plain, replace(DEPTH, where=(("model.name", "plain"),)))["datasets"]


@pytest.mark.parametrize(
    "plot", [DEPTH, CURVES, BARS, PROFILE, replace(BARS, x=""), replace(BARS, group=())], ids=lambda plot: plot.kind
)
def test_every_kind_is_drawn_for_a_paper(compared, plot, tmp_path):
    png, svg = save(figure(compared, plot), tmp_path / "figures", stem(1, plot))
    pixels = np.asarray(Image.open(png).convert("RGB"))
    assert pixels.shape[1] > 300 * SCALE
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert (pixels != 255).any(axis=2).mean() > 0.01
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert "NaN" not in svg.read_text()
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {png.name, svg.name}


def test_a_plot_without_values_is_an_empty_picture(compared, tmp_path):
    paper = Reference("paper", "model.depth", "val/bleu", ((8, 0.2),))
    for references in ([], [paper]):
        spec = figure(replace(compared, references=references), replace(DEPTH, y="val/bleu"))
        save(spec, tmp_path / "figures", "empty")
        assert spec["description"].startswith("No run has these values.")


def test_a_long_legend_widens_no_figure(tmp_path):
    """Of too many groups the best are drawn."""
    for number in range(40):
        name = f"a-model-with-quite-a-long-name-{number}"
        run_folder(tmp_path / "runs", name, model=name, metrics={"val/loss": 1 + number / 100})
    compared = Request(paths=(str(tmp_path / "runs"),)).compare()
    spec = figure(compared, Plot("step", "val/loss", ("model.name",), "curves"))
    png, _ = save(spec, tmp_path, "long")
    assert Image.open(io.BytesIO(png.read_bytes())).width < 460 * SCALE
    assert f"The best {MAX_SERIES} of 40 groups" in spec["description"]
    assert {row["series"] for row in spec["datasets"]["means"]} == {
        f"a-model-with-quite-a-long-name-{number}" for number in range(MAX_SERIES)
    }


def test_names_say_what_is_against_what():
    assert stem(2, DEPTH) == "figure_2_train-error_by_model.depth"
    assert [plot.title for plot in (DEPTH, replace(BARS, x=""), replace(DEPTH, where=(("model.scan", "rows"),)))] == [
        "Training error by depth",
        "Training error by depth",
        "Training error by depth (scan rows)",
    ]


def test_a_group_without_values_is_not_in_the_legend(compared, tmp_path):
    run_folder(tmp_path / "runs", "new", model="gpt", status="running", metrics={"val/loss": 1.0})
    spec = figure(Request(paths=(str(tmp_path / "runs"),)).compare(), PROFILE)
    assert encodings(spec, "stroke")[0]["scale"]["domain"] == ["plain", "resnet"]
