"""epochal.compare is a package and a function: in a notebook it prints, writes and returns what the command does."""

from __future__ import annotations

import subprocess
import sys

import pytest

import epochal.compare
from epochal.compare.comparison import Comparison
from epochal.core.errors import ConfigError
from helpers.run_folders import ERRORS, grid, run_folder


def test_calling_it_prints_the_table_writes_the_report_and_returns_the_comparison(home, command, capsys):
    grid(home / "outputs" / "runs", ERRORS)
    comparison = epochal.compare("outputs/runs", x="model.depth", y="train/error", to="notebook")
    printed = capsys.readouterr().out
    assert isinstance(comparison, Comparison)
    by_command = command("compare", "outputs/runs", "x=model.depth", "y=train/error", "to=notebook")
    assert printed == by_command.out
    assert sorted(path.name for path in (home / "notebook").iterdir())[-2:] == ["report.html", "table.csv"]


def test_without_arguments_it_compares_all_runs_as_the_command_does(home, command, capsys):
    grid(home / "outputs" / "runs", ERRORS)
    comparison = epochal.compare()
    assert capsys.readouterr().out == command("compare").out
    assert comparison.folder.name == "runs"


def test_an_experiment_has_its_verdict(home, capsys):
    grid(home / "outputs" / "depth_degradation", ERRORS, experiment="depth_degradation", budget="smoke")
    comparison = epochal.compare(experiment="depth_degradation", budget="smoke")
    assert comparison.verdict is not None and comparison.verdict.verdict == "inconclusive"
    assert "inconclusive" in capsys.readouterr().out
    assert "<b>inconclusive</b>" in comparison._repr_html_()


def test_a_group_is_one_key_or_several(home):
    grid(home / "outputs" / "runs", ERRORS)
    for group in ("model.name", ["model.name"], ("model.name", "model.depth")):
        comparison = epochal.compare(y="train/error", group=group)
        assert comparison.plots[0].group == ((group,) if isinstance(group, str) else tuple(group))


def test_a_notebook_shows_its_table_and_its_figures(home):
    grid(home / "outputs" / "runs", ERRORS)
    run_folder(home / "outputs" / "runs", "odd", model="<script>", config={"model.depth": 8})
    html = epochal.compare(x="model.depth", y="train/error")._repr_html_()
    assert html.count("<svg") == 1
    assert "<th>train error</th>" in html and "41.33 ± 1.53 %" in html
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_a_wrong_name_is_an_error_with_a_suggestion(home):
    grid(home / "outputs" / "runs", ERRORS)
    with pytest.raises(ConfigError, match="Did you mean train/error"):
        epochal.compare(y="train/eror")
    with pytest.raises(TypeError, match="colour"):
        epochal.compare(colour="red")


def test_importing_it_loads_nothing_heavy_and_keeps_its_submodules():
    code = (
        "import sys, epochal.compare, epochal.compare.table as table; "
        "assert callable(epochal.compare) and epochal.compare.table is table; "
        "from epochal.compare.comparison import Comparison; "
        "print({'torch', 'pytorch_lightning', 'vl_convert'} & set(sys.modules))"
    )
    light = "import sys, epochal.compare; print({'numpy', 'rich', 'yaml', 'torch'} & set(sys.modules))"
    for line in (code, light):
        outcome = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
        assert outcome.stdout.strip() == "set()"
