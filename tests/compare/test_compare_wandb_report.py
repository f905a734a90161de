"""What --publish would send to W&B; no server is at hand to take it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from epochal.compare.report import wandb_report
from epochal.compare.request import Request
from epochal.core.errors import ConfigError
from helpers.run_folders import run_folder

W_AND_B = {"logger.name": "wandb", "logger.project": "course", "logger.entity": "team"}


def runs(folder: Path, *projects: str | None) -> Request:
    for number, project in enumerate(projects):
        config = {**W_AND_B, "logger.project": project, "model.depth": 8 + number}
        logged = {} if project is None else {"wandb_id": f"id{number}"}
        run_folder(folder, f"run{number}", config=config, typed=[f"model.depth={8 + number}"], **logged)
    return Request(paths=(str(folder),), output_dir=str(folder.parent))


def test_a_report_shows_the_runs_by_name_and_every_plot(tmp_path):
    pytest.importorskip("wandb_workspaces")
    comparison = runs(tmp_path / "runs", "course", "course").compare()
    made = wandb_report.report(comparison)
    assert (made.entity, made.project, made.title) == ("team", "course", comparison.title)
    grid = made.blocks[1]
    assert "run0" in str(grid.runsets[0].filters) and "run1" in str(grid.runsets[0].filters)
    assert len(grid.panels) == len(comparison.plots) + 1  # and the differences between the configs
    assert comparison.footnote in made.blocks[0].text


def test_errors_are_shown_as_the_accuracies_that_were_logged(tmp_path):
    pytest.importorskip("wandb_workspaces")
    request = runs(tmp_path / "runs", "course", "course")
    comparison = Request(request.paths, x="model.depth", y="val/error", output_dir=str(tmp_path)).compare()
    made = wandb_report.report(comparison)
    assert "val/accuracy" in str(made.blocks[1].panels[0].y)
    assert "1 - error" in made.blocks[0].text


@pytest.mark.parametrize(
    ("projects", "says"),
    [
        ((None, None), "None of these runs was logged to W&B"),
        (("course", "thesis"), "several W&B projects (course thesis)"),
    ],
)
def test_runs_that_no_report_can_show_are_refused(projects, says, tmp_path):
    pytest.importorskip("wandb_workspaces")
    with pytest.raises(ConfigError) as refused:
        wandb_report.publish(runs(tmp_path / "runs", *projects).compare(), Console(quiet=True))
    assert says in str(refused.value)
