"""compare.py as a command: what it prints, writes and refuses, and that it starts fast."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from conftest import files
from epochal.compare.command import compare_experiment, compare_runs, parse
from helpers.run_folders import grid, run_folder

ERRORS = {("plain", 8): [0.2, 0.21], ("resnet", 8): [0.1, 0.12]}


def test_a_report_is_written_beside_the_runs_and_never_into_them(command, home):
    grid(home / "outputs" / "runs", ERRORS)
    before = files(home / "outputs" / "runs")
    outcome = command("compare")
    assert (outcome.status, outcome.error) == (0, "")
    assert files(home / "outputs" / "runs") == before
    made = sorted(path.name for path in (home / "outputs" / "comparisons" / "runs").iterdir())
    assert made == [
        "figure_1_val-accuracy_by_step.png",
        "figure_1_val-accuracy_by_step.svg",
        "report.html",
        "table.csv",
    ]
    assert "outputs/comparisons/runs/report.html" in outcome.out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["rnus"], "There is nothing at rnus"),
        (["runs", "y=val/acuracy"], "Did you mean val/accuracy?"),
        (["runs", "colour=red"], "There is no option colour."),
        (["runs", "gruop=model.name"], "Did you mean group?"),
        (["runs", "x="], "x= has no value."),
        (["runs", "--lvie"], "--lvie is no option. Did you mean --live?"),
        (["runs", "--live", "port=http"], "port=http is no port"),
        (["runs", "--live", "port=70000"], "port=70000 is no port"),
        (["experiment=nothing"], "experiment=nothing is no experiment."),
        (["notes.txt"], "a file, not a run folder"),
        (["runs", "to=notes.txt"], "to=notes.txt is a file"),
        (["runs", "to=notes.txt/deeper"], "cannot be written"),
        (["~nosuch/x"], "~nosuch/x is in the home folder of a user who is not there"),
        (["runs", "to=~nosuch/x"], "~nosuch/x is in the home folder of a user who is not there"),
        (["a" * 300], "There is nothing at aaa"),
        ([f"{'a' * 300}=1"], "There is no option aaa"),
        (["runs", f"to={'a' * 300}"], "cannot be written"),
        ([f"output_dir={'a' * 300}"], "There are no runs in aaa"),
        (["runs/**x"], "runs/**x is no pattern"),
    ],
)
def test_wrong_input_ends_in_one_sentence_and_status_2(command, home, arguments, words):
    grid(home / "runs", ERRORS)
    (home / "notes.txt").touch()
    before = files(home)
    outcome = command("compare", *arguments)
    assert outcome.status == 2
    assert words in outcome.error
    assert len(outcome.error.strip().splitlines()) == 1
    assert files(home) == before


@pytest.mark.parametrize("file", ["figure_1_val-accuracy_by_step.png", "report.html"])
def test_a_figure_or_page_that_cannot_be_written_ends_in_one_sentence(command, home, file):
    grid(home / "runs", ERRORS)
    (home / "report" / file).mkdir(parents=True)
    outcome = command("compare", "runs", "to=report")
    assert (outcome.status, len(outcome.error.strip().splitlines())) == (2, 1)
    assert "report cannot be written" in outcome.error


def test_a_terminal_that_is_not_utf_8_gets_question_marks(home):
    grid(home / "runs", ERRORS)
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    code = "from epochal.compare.command import main; main()"
    outcome = subprocess.run([sys.executable, "-c", code, "runs"], cwd=home, capture_output=True, env=environment)
    assert (outcome.returncode, outcome.stderr) == (0, b"")
    assert b"?" in outcome.stdout


def test_odd_folders_are_listed_or_shown_and_end_nothing(command, home):
    grid(home / "runs", ERRORS)
    run_folder(home / "runs", "one", config={"extra": 1.0})
    run_folder(home / "runs", "infinite", config={"extra": float("inf")})
    run_folder(
        home / "runs", "digits", config={"extra": 10**400}, metrics={"val/loss": 10**400}, rows=0, seconds=10**400
    )
    run_folder(home / "runs", "list", best=[1])
    run_folder(home / "runs", "best", best={"metric": [1]})
    run_folder(home / "runs", "error", status="failed", error=float("nan"))
    run_folder(home / "runs", "bytes-\udce9")
    itself = run_folder(home / "runs", "itself")
    (itself / "config.yaml").write_text("&a\nmodel: {name: x}\ndataset: {name: x}\nme: *a\n")
    tag = run_folder(home / "runs", "tag")
    (tag / "config.yaml").write_text("model: {name: x}\ndataset: {name: x}\nme: !!int ''\n")
    for arguments in ([], ["x=extra", "y=val/accuracy"], ["x=seconds", "y=val/loss"]):
        outcome = command("compare", "runs", "to=report", *arguments)
        assert (outcome.status, outcome.error) == (0, "")
        assert "skipped runs/itself: broken" in outcome.out
        assert "skipped runs/list: broken" in outcome.out
        assert "skipped runs/tag: broken" in outcome.out
    assert "extra inf" in command("compare", "runs", "to=report").out


def test_a_path_with_an_equals_sign_is_a_path_if_it_is_there(home):
    run_folder(home, "lr=0.1")
    assert parse(["lr=0.1", "--live", "y=val/loss"]).request.paths == ("lr=0.1",)


def test_help_teaches_by_examples(command):
    out = command("compare", "--help").out
    assert "python compare.py experiment=depth_degradation" in out
    assert "--live" in out


def test_comparing_imports_neither_torch_nor_lightning_nor_pandas(home):
    grid(home / "outputs" / "runs", ERRORS)
    heavy = ("torch", "pytorch_lightning", "pandas", "scipy", "matplotlib", "wandb", "datasets")
    code = f"import sys; from epochal.compare.command import main; main([]); print([m for m in {heavy} if m in sys.modules])"
    outcome = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=True)
    assert outcome.stdout.strip().splitlines()[-1] == "[]"


def test_after_a_grid_its_table_is_shown_and_nothing_written(home):
    grid(home / "outputs" / "runs", ERRORS)
    before = files(home)
    console = Console(file=io.StringIO(), width=100)
    compare_runs(sorted((home / "outputs" / "runs").iterdir()), console)
    assert "resnet" in console.file.getvalue()
    assert "python compare.py outputs/runs" in console.file.getvalue()
    assert files(home) == before


def test_after_an_experiment_its_report_is_written(home):
    place = home / "outputs" / "depth_degradation"
    grid(place, ERRORS, experiment="depth_degradation", budget="smoke")
    console = Console(file=io.StringIO(), width=100)
    comparison = compare_experiment("depth_degradation", "smoke", home / "outputs", console)
    assert comparison.verdict is not None and comparison.verdict.verdict == "inconclusive"
    assert (home / "outputs" / "comparisons" / "depth_degradation_smoke" / "report.html").is_file()


def test_unlike_runs_are_not_ranked_together(tmp_path, capsys):
    from epochal.compare.command import compare

    runs = tmp_path / "runs"
    for name, config, loss in [
        ("a", {"dataset.name": "mnist"}, 0.5),
        ("b", {"dataset.name": "cifar10"}, 0.9),
        ("c", {"dataset.name": "mnist", "task.name": "masked_patch"}, 0.1),
        ("d", {"dataset.name": "mnist", "trainer.name": "overfit"}, 0.01),
        ("e", {"dataset.name": "mnist", "model.depth": 3}, 0.4),
    ]:
        run_folder(runs, name, config=config, metrics={"val/loss": loss})
    comparison = compare(runs, to=tmp_path / "report")
    assert [[run.name for run in part.records] for part in comparison.parts] == [["b"], ["a", "e"], ["c"], ["d"]]
    for part in comparison.parts:
        assert {run.name for plot in part.plots for run in plot.chosen(comparison.records)} == {
            run.name for run in part.records
        }
    shown = capsys.readouterr().out
    assert shown.count("first by val/loss") == 4
    assert "trainer=overfit" in shown
    assert not compare(runs, y="val/loss", to=tmp_path / "report").parts, "they were asked for"
