"""What is compared is chosen to fit the runs, and a wrong name ends in a sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from epochal.compare.definition import Plot, Request, experiments, load_claim
from epochal.compare.reading import read
from epochal.errors import ConfigError
from folders import grid, run_folder

ERRORS = {
    ("plain", 8): [0.2, 0.21, 0.22],
    ("plain", 44): [0.4, 0.41, 0.43],
    ("resnet", 8): [0.2] * 3,
    ("resnet", 44): [0.1] * 3,
}


def compare(folder, **choices):
    return Request(paths=(str(folder),), to=str(folder.parent / "report"), **choices).compare()


def test_runs_that_differ_in_one_number_are_drawn_over_it_and_as_learning_curves(tmp_path):
    comparison = compare(grid(tmp_path / "runs", ERRORS))
    assert comparison.y == "val/accuracy"  # the best metric that they share
    assert comparison.plots == [
        Plot("model.depth", "val/accuracy", ("model.name",), "points"),
        Plot("step", "val/accuracy", ("model.name", "model.depth"), "curves"),
    ]
    assert comparison.title == "plain and resnet on digits"
    assert comparison.footnote == "12 finished runs, 3 seeds."


def test_runs_that_differ_in_words_are_learning_curves(tmp_path):
    run_folder(tmp_path / "runs", "a", model="mlp", metrics={"val/loss": 1.0})
    run_folder(tmp_path / "runs", "b", model="gpt", metrics={"val/loss": 1.0})
    assert compare(tmp_path / "runs").plots == [Plot("step", "val/loss", ("model.name",), "curves")]


def test_a_metric_logged_once_is_bars(tmp_path):
    for model in ("mlp", "gpt"):
        run_folder(tmp_path / "runs", model, model=model, metrics={"test/loss": 1.0}, rows=1)
    comparison = compare(tmp_path / "runs")
    assert (comparison.y, comparison.plots) == ("test/loss", [Plot("", "test/loss", ("model.name",), "bars")])


@pytest.mark.parametrize(
    "x, group, plot",
    [
        ("epoch", None, Plot("epoch", "train/error", ("model.name", "model.depth"), "curves")),
        ("model.depth", None, Plot("model.depth", "train/error", ("model.name",), "points")),
        ("model", None, Plot("model.name", "train/error", ("model.depth",), "bars")),
        ("parameters", None, Plot("parameters", "train/error", ("model.name",), "points")),
        ("train/loss", ("model",), Plot("train/loss", "train/error", ("model.name",), "points")),
    ],
)
def test_the_kind_of_plot_and_its_lines_fit_x(tmp_path, x, group, plot):
    for (model, depth), errors in ERRORS.items():
        metrics = {"train/accuracy": 1 - errors[0], "train/loss": errors[0]}
        run_folder(tmp_path / "runs", f"{model}{depth}", model=model, config={"model.depth": depth}, metrics=metrics)
    assert compare(tmp_path / "runs", x=x, y="train/error", group=group).plots == [plot]


def test_a_failed_runs_key_is_no_axis_and_its_value_no_point(tmp_path):
    run_folder(tmp_path / "runs", "a", config={"optimizer.lr": 0.1})
    run_folder(tmp_path / "runs", "b", config={"optimizer.lr": 9.0}, status="failed")
    comparison = compare(tmp_path / "runs")
    assert comparison.keys == ["optimizer.lr"]
    assert [plot.kind for plot in comparison.plots] == ["curves"]
    points = Plot("optimizer.lr", "val/loss", (), "points")
    assert [record.name for record in points.chosen(comparison.records)] == ["a"]


def test_a_plot_of_some_runs_only_says_so(tmp_path):
    records, _ = read([grid(tmp_path, ERRORS)])
    plot = Plot("epoch", "train/error", ("model.name",), "curves", where=(("model.depth", 44),))
    assert {record.value("model.depth") for record in plot.chosen(records)} == {44}
    assert plot.title == "train error by epoch (depth 44)"


@pytest.mark.parametrize(
    "choices, words",
    [
        ({"y": "trian/error"}, ["y=trian/error", "Did you mean train/error?", "They logged: train/accuracy"]),
        ({"y": "test/bleu"}, ["no run has test/bleu", "val/accuracy"]),
        ({"x": "model.detph"}, ["x=model.detph", "Did you mean model.depth?"]),
        ({"group": ("model.name", "model.nmae")}, ["group=model.nmae", "Did you mean model.name?"]),
        ({"y": "model.name"}, ["y=model.name"]),
        ({"experiment": "depth_degredation"}, ["no experiment", "Did you mean depth_degradation?", "There are:"]),
        ({"experiment": "depth_degradation", "budget": "smok"}, ["budget=smok", "Did you mean smoke?", "paper"]),
        ({"experiment": "depth_degradation", "budget": "smoke"}, ["None of 12 runs is of", "12 of experiment=null"]),
        ({"budget": "cpu"}, ["None of 12 runs is of budget=cpu"]),
    ],
)
def test_a_wrong_name_ends_in_a_sentence(tmp_path, choices, words):
    with pytest.raises(ConfigError) as raised:
        compare(grid(tmp_path / "runs", ERRORS), **choices)
    assert all(word in str(raised.value) for word in words), raised.value
    assert "\n" not in str(raised.value)


def test_no_runs_end_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no runs in outputs/runs yet; make some with python train.py, or"):
        Request().compare()
    with pytest.raises(ConfigError, match=r"python train.py experiment=depth_degradation budget=smoke, or"):
        Request(experiment="depth_degradation", budget="smoke").compare()
    Path("notes.csv").touch()
    with pytest.raises(ConfigError, match=r"no run in notes.csv: notes.csv is a file"):
        Request(paths=("notes.csv",)).compare()


def test_a_report_never_goes_into_a_run_folder_or_a_file(tmp_path):
    run = run_folder(tmp_path, "a")
    for place, words in (
        (run, "in a run folder"),
        (run / "x" / "y", "in a run folder"),
        (run / "config.yaml", "is a file"),
    ):
        with pytest.raises(ConfigError, match=words):
            Request(paths=(str(run),), to=str(place)).compare()


@pytest.mark.parametrize(
    "choices, name",
    [
        ({"paths": ("outputs/runs",)}, "runs"),
        ({"paths": ("outputs/runs",), "x": "epoch", "y": "val/loss"}, "runs_val-loss_by_epoch"),
        ({"paths": ("outputs/runs/a", "outputs/runs/b")}, "a_b"),
        ({"paths": ("outputs/runs/*",)}, "1-path_"),
        ({}, "runs"),
    ],
)
def test_the_reports_folder_is_named_after_what_was_given(tmp_path, monkeypatch, choices, name):
    monkeypatch.chdir(tmp_path)
    run_folder(Path("outputs/runs"), "a")
    run_folder(Path("outputs/runs"), "b")
    folder = Request(**choices).compare().folder
    assert folder.parent == Path("outputs/comparisons")
    assert folder.name.startswith(name) and (name.endswith("_") or folder.name == name)


@pytest.fixture
def claimed(tmp_path):
    """Runs of the shipped experiment's cpu budget, whatever they learned."""
    claim, budget = load_claim("depth_degradation", "cpu")
    more, than = claim["tests"][0]["more"], claim["tests"][0]["than"]
    errors = {(model, side["model.depth"]): [0.1, 0.11, 0.12] for model in ("plain", "resnet") for side in (than, more)}
    errors["plain", more["model.depth"]] = [0.4, 0.41, 0.42]
    config = {"experiment": "depth_degradation", "budget": budget}
    return grid(tmp_path / "outputs" / "depth_degradation", errors, **config)


def test_an_experiment_brings_its_plots_its_papers_points_and_its_verdict(claimed):
    comparison = Request(experiment="depth_degradation", budget="cpu", output_dir=str(claimed.parent)).compare()
    assert comparison.title == comparison.sentence == comparison.claim["sentence"]
    assert [plot.kind for plot in comparison.plots] == ["points", "curves"]  # no run has a test error yet
    assert comparison.published[0].points[0] == (20, 0.0875)
    assert comparison.verdict.verdict == "supported"
    assert comparison.footnote.startswith("Budget cpu: ")
    assert comparison.folder == claimed.parent / "comparisons" / "depth_degradation_cpu"


def test_a_folder_of_one_experiments_runs_is_that_experiment(claimed):
    assert compare(claimed).verdict is not None
    assert compare(claimed, x="epoch", y="train/error").plots[0].x == "epoch"


def test_runs_of_several_budgets_are_no_claim_until_one_is_chosen(claimed):
    run_folder(claimed, "other", config={"experiment": "depth_degradation", "budget": "paper", "model.depth": 44})
    assert compare(claimed).verdict is None
    assert compare(claimed, budget="cpu").verdict is not None


def test_every_claim_names_what_its_plots_and_tests_need():
    for name in experiments():
        claim, _ = load_claim(name, None)
        assert claim["sentence"] and claim["source"]
        assert all("profile" in plot or {"x", "y"} <= plot.keys() for plot in claim["plots"])
        assert all(
            {"says", "y", "than"} <= test.keys() and ("more" in test) != ("not_more" in test) for test in claim["tests"]
        )


def test_runs_of_an_experiment_that_is_gone_are_compared_without_it(tmp_path):
    grid(tmp_path / "runs", ERRORS, experiment="long_gone")
    assert compare(tmp_path / "runs").claim is None


def test_unchanged_runs_are_not_read_again(tmp_path):
    request = Request(paths=(str(grid(tmp_path / "runs", ERRORS)),), to=str(tmp_path / "to"))
    first = request.compare()
    shutil.rmtree(tmp_path / "runs" / "plain-8-1")
    second = request.compare(first.records)
    assert len(second.records) == 11
    assert set(second.records) < set(first.records)


def test_a_smoke_budget_decides_nothing(tmp_path):
    claim, budget = load_claim("depth_degradation", "smoke")
    deep, shallow = (claim["tests"][0][side]["model.depth"] for side in ("more", "than"))
    errors = {(model, depth): [0.1, 0.11, 0.12] for model in ("plain", "resnet") for depth in (deep, shallow)}
    errors["plain", deep] = [0.4, 0.41, 0.42]
    place = grid(tmp_path / "outputs" / "depth_degradation", errors, experiment="depth_degradation", budget=budget)
    verdict = compare(place).verdict
    assert [test.verdict for test in verdict.tests] == ["supported"] * 3
    assert verdict.verdict == "inconclusive" and "decides nothing" in verdict.sentence
