"""compare.py as a command: what it prints, writes and refuses, and that it starts fast."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console

from conftest import files
from epochal.compare.command import compare_experiment, compare_runs, parse
from folders import grid, run_folder

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
