"""What is compared is chosen to fit the runs, and a wrong name ends in a sentence."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

from epochal.compare.claims import check_claim, experiments, load_claim
from epochal.compare.comparison import Plot
from epochal.compare.design import Design
from epochal.compare.request import Request
from epochal.compare.scan import read
from epochal.config.compose import conf_folder
from epochal.core.errors import ConfigError
from helpers.run_folders import ERRORS, claim_grid, compare, designed, grid, run_folder


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
    assert plot.title == "Training error by epoch (depth 44)"


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
    Path("notes.txt").touch()
    with pytest.raises(ConfigError, match=r"no run in notes.txt: notes.txt is a file"):
        Request(paths=("notes.txt",)).compare()


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
    errors = {
        (model, side["model.depth"]): [0.105, 0.11, 0.115] for model in ("plain", "resnet") for side in (than, more)
    }
    errors["plain", more["model.depth"]] = [0.4, 0.41, 0.42]
    return claim_grid(tmp_path / "outputs" / "depth_degradation", "depth_degradation", budget, errors)


def test_an_experiment_brings_its_plots_its_papers_points_and_its_verdict(claimed):
    comparison = Request(experiment="depth_degradation", budget="cpu", output_dir=str(claimed.parent)).compare()
    assert comparison.title == comparison.claim["sentence"]
    assert [plot.kind for plot in comparison.plots] == ["points", "curves"]  # no run has a test error yet
    assert comparison.references[0].points[0] == (20, 0.0875)
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
        assert claim["source"] and claim["tests"]  # all else is checked when it is loaded


@pytest.mark.parametrize(
    "config", [{"experiment": "long_gone"}, {"experiment": "depth_degradation", "budget": "long_gone"}]
)
def test_runs_of_an_experiment_or_budget_that_is_gone_are_compared_without_it(tmp_path, config):
    grid(tmp_path / "runs", ERRORS, **config)
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
    errors = {(model, depth): [0.105, 0.11, 0.115] for model in ("plain", "resnet") for depth in (deep, shallow)}
    errors["plain", deep] = [0.4, 0.41, 0.42]
    place = claim_grid(tmp_path / "outputs" / "depth_degradation", "depth_degradation", budget, errors)
    verdict = compare(place).verdict
    assert [test.verdict for test in verdict.tests] == ["supported"] * len(claim["tests"])
    assert verdict.verdict == "inconclusive" and "decides nothing" in verdict.sentence


def test_runs_of_another_design_are_left_out_of_a_claims_verdict_and_plots_and_named(claimed):
    typed, config = designed("depth_degradation", "cpu", ("model=plain", "model.depth=44"))
    for name, change, what in [
        ("rate", {"optimizer.lr": 9}, ["optimizer.lr=9"]),
        ("along", {"dataset.train_size": 500}, ["dataset.train_size=500"]),
        ("clip", {"trainer.gradient_clip_val": 1.0}, ["trainer.gradient_clip_val=1"]),
        ("edited", {"duration": "9epochs"}, []),  # by an edit of the YAML since
        ("added", {"optimizer.foreach": True}, ["+optimizer.foreach=true"]),
        ("point", {"model.depth": 20}, ["model.depth=20"]),
    ]:
        kept = [override for override in typed if override.partition("=")[0] not in change] + what
        run_folder(claimed, name, model="plain", seed=1, config={**config, **change}, typed=kept)
    free = {"trainer.precision": "16-mixed", "threads": 3, "launcher.gpus": 2, "output_dir": "/else", "seed": 4}
    run_folder(
        claimed, "free", model="plain", seed=4, config={**config, **free}, typed=typed, metrics={"train/accuracy": 0.6}
    )
    comparison = compare(claimed)
    left_out = {record.name for record in comparison.records} - {record.name for record in comparison.drawn}
    assert left_out == {"rate", "along", "clip", "edited", "added", "point"}
    assert comparison.verdict.verdict == "supported"
    assert "optimizer.lr is 9, and 0.1 in the experiment" in comparison.footnote
    assert "duration is 9epochs, and 6epochs in the experiment" in comparison.footnote
    assert "optimizer.foreach is yes, and not set in the experiment" in comparison.footnote
    assert "model.depth=20 is not in its grid" in comparison.footnote
    assert len(compare(claimed, y="train/error").drawn) == 25  # who asks for a plot gets all


def test_what_a_choice_brings_along_belongs_to_the_design(tmp_path):
    design = Design("gru_vs_lstm", "smoke")
    typed, config = designed("gru_vs_lstm", "smoke", ("model=gru", "dataset=digits"))
    assert "dataset.batch_size=16" in typed
    for name, change in (("own", {}), ("changed", {"optimizer.lr": 0.5})):
        run_folder(tmp_path, name, model="gru", config={**config, **change}, typed=[*typed, "seed=1"])
    found = {record.name: design.differences(record) for record in read([tmp_path])[0]}
    assert found["own"] == ()
    assert [difference.split()[0] for difference in found["changed"]] == ["optimizer.lr"]


def test_an_option_that_another_side_sets_changes_no_run_that_is_older_than_it(tmp_path):
    """The option `best_of` came after the first runs of the experiment, and only its last grid sets it."""
    design = Design("chatgpt_road", "cpu")
    points = {
        len([o for o in point if o.startswith("task.best_of=")]): point
        for point in design.points
        if "task=rlhf" in point
    }
    for number, point in points.items():
        typed, config = designed("chatgpt_road", "cpu", point)
        older = {key: value for key, value in config.items() if key != "task.best_of"}
        run_folder(tmp_path, str(number), model="gpt", config=older, typed=[*typed, "seed=2"])
    found = {record.name: design.differences(record) for record in read([tmp_path])[0]}
    assert found == {"0": (), "1": ("task.best_of is not set, and 8 in the experiment",)}


def test_what_a_choice_brings_along_gives_way_to_the_grid_in_a_design_too():
    """As in the sweeper: the runs from scratch say so themselves, whatever goes along with their model."""
    points = Design("pretrain_finetune", "cpu").points
    starts = [[override for override in point if override.startswith("init_from=")] for point in points]
    assert [len(each) for each in starts] == [1] * 28
    assert starts.count(["init_from=null"]) == 2 * (2 + 2 * 3)  # of each data set the pretraining, and from scratch


PREDICTED = {
    "says": "as predicted",
    "y": "test/loss",
    "predicted": {"model.depth": 8},
    "by": "parameters",
    "margin": 1.05,
}


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c.pop("sentence"), "has no sentence"),
        (lambda c: c.pop("plots"), "has no plots"),
        (lambda c: c.update(plot=[]), "has plot. Did you mean plots?"),
        (lambda c: c["plots"][0].pop("y"), "plots, number 1, has no y"),
        (lambda c: c["plots"].append("train/error"), "plots, number 4, has no keys"),
        (lambda c: c["plots"][0].update(where=["model.depth"]), "where of plots, number 1, is no mapping"),
        (lambda c: c["references"][0].update(points=[20, 0.1]), "points that are no pairs"),
        (lambda c: c["plots"][0].update(fit="line"), "plots, number 1, has fit: line; it can be power"),
        (lambda c: c.update(tests="none"), "tests is no list"),
        (lambda c: c["tests"][0].update(less=c["tests"][0].pop("more")), "tests, number 1, has less"),
        (lambda c: c["tests"][0].update(not_more=c["tests"][0]["more"]), "needs one of more and not_more"),
        (lambda c: c["tests"][0].pop("more"), "needs one of more and not_more"),
        (lambda c: c["tests"][1].pop("says"), "tests, number 2, has no says"),
        (lambda c: c["tests"][1].pop("than"), "tests, number 2, has no than"),
        (lambda c: c["tests"][1].update(margin="2 %"), "margin that is no number"),
        (lambda c: c["tests"][1].update(scale="ln"), "tests, number 2, has scale: ln; it can be log"),
        (lambda c: c["tests"][1].update(scale="log", margin=0), "scale: log, whose margin is a ratio above 0"),
        (lambda c: c["tests"][1].update(failed="best"), "tests, number 2, has failed: best; it can be worst"),
        (lambda c: c.update(needs=[{"y": "train/error"}]), "needs, number 1, needs one of below and above, a number"),
        (lambda c: c.update(needs=[{"below": 0.1}]), "needs, number 1, has no y"),
        (lambda c: c["tests"][1].update(than={"model.depth": {"is": 8}}), "than of tests, number 2, is no mapping"),
        (lambda c: c["tests"][1].update(than=True), "than of tests, number 2, is no mapping"),
        (lambda c: c["tests"][1].update(predicted={"model.depth": 8}), "tests, number 2, has more. There are: says y"),
        (lambda c: c["tests"].append(PREDICTED | {"margin": 0.05}), "margin that is no ratio above 1 such as 1.05"),
        (lambda c: c["tests"].append(PREDICTED | {"predicted": 8}), "predicted of tests, number 8, is no mapping"),
        (lambda c: c["tests"].append({k: PREDICTED[k] for k in PREDICTED if k != "by"}), "number 8, has no by"),
    ],
)
def test_a_wrong_claim_ends_in_a_sentence_that_names_the_experiment(change, words):
    claim = copy.deepcopy(load_claim("depth_degradation", "cpu")[0])
    check_claim("depth", claim)
    change(claim)
    with pytest.raises(ConfigError, match="experiment=depth is wrong") as raised:
        check_claim("depth", claim)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Writes an experiment of one's own, `mine`, into a copy of conf."""
    conf = shutil.copytree(conf_folder(), tmp_path / "conf")
    monkeypatch.setattr("epochal.config.compose.conf_folder", lambda: conf)
    yield lambda text: (conf / "experiment" / "mine.yaml").write_text(f"# @package _global_\nexperiment: mine\n{text}")


PLOTS = "plots: [{x: model.depth, y: train/error}]"


def test_an_experiment_without_budgets_has_none(tmp_path, monkeypatch, experiment):
    experiment(f"claim: {{sentence: Deeper is worse., {PLOTS}}}\nhydra: {{sweeper: {{params: {{model: mlp}}}}}}")
    assert load_claim("mine", None)[1] is None
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="python train.py experiment=mine, or"):
        Request(experiment="mine").compare()
    with pytest.raises(ConfigError, match="budget=cpu is no budget of experiment=mine. It has none."):
        Request(experiment="mine", budget="cpu").compare()
    grid(tmp_path / "outputs" / "mine", ERRORS, experiment="mine")
    comparison = Request(experiment="mine").compare()
    assert comparison.folder.name == "mine"
    assert (
        comparison.footnote
        == "0 finished runs, 0 seeds. Left out of the figures, as of another design: 6 runs: model=plain is not in its grid; "
        "6 runs: model=resnet is not in its grid."
    )


@pytest.mark.parametrize(
    "text", ["claim: {sentence: ${nothing}}", "claim: [", "defaults: [{override /model: nothing}]"]
)
def test_an_experiment_that_cannot_be_read_ends_in_a_sentence(experiment, text):
    experiment(text)
    with pytest.raises(ConfigError, match="experiment=mine cannot be read: "):
        load_claim("mine", None)


def test_trials_are_in_the_footnote_and_not_in_the_verdict(experiment, tmp_path):
    experiment(
        "hydra: {sweeper: {params: {model: 'mlp,cnn', seed: '1,2,3'}, along: {model=cnn: [optimizer.lr=9]},"
        " tune: {space: {optimizer.lr: '0.1,0.01'}, seed: 100}}}\n"
        "claim: {sentence: A CNN is better., plots: [{x: model.name, y: val/loss}],"
        " setting: Two networks, tests: [{says: worse, y: val/loss, more: {model.name: mlp}, than: {model.name: cnn}}]}"
    )
    for model, losses in (("mlp", (0.5, 0.7)), ("cnn", (0.4, 0.3))):
        typed, config = designed("mine", None, (f"model={model}",))
        for rate, loss in zip((0.1, 0.01), losses):
            chosen = {**config, "optimizer.lr": rate}
            for seed in (100, 1, 2, 3):
                given = {"config": {**chosen, "seed": seed}, "typed": [*typed, f"optimizer.lr={rate}", f"seed={seed}"]}
                run_folder(tmp_path / "runs", f"{model}-{rate}-{seed}", seed=seed, metrics={"val/loss": loss}, **given)
    comparison = Request(paths=(str(tmp_path / "runs"),), experiment="mine", to=str(tmp_path / "to")).compare()
    assert len(comparison.records) == 12  # without the trials
    assert {record.value("optimizer.lr") for record in comparison.drawn if "mlp" in record.name} == {0.1}
    assert comparison.verdict.verdict == "supported"
    assert comparison.footnote.startswith("Two networks. 6 finished runs, 3 seeds.")
    assert "mlp takes 0.1; cnn takes 0.01 (4 trials" in comparison.footnote
    assert "3 runs: optimizer.lr is 0.01, and 0.1 in the experiment" in comparison.footnote
