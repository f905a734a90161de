"""A run's best weights, tested again: on the data it was trained on, or on other data."""

from __future__ import annotations

import csv
import json

from omegaconf import DictConfig
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from epochal.core.errors import ConfigError
from epochal.core.files import relative, write_atomically
from epochal.core.format import number_text
from epochal.data import DataModule
from epochal.inference.generate import answer
from epochal.inference.load import rebuild
from epochal.tasks import Task
from epochal.tasks.visuals import explain
from epochal.training.console import rows_table, show_examples, show_texts
from epochal.training.loggers.files import save_artifacts


def evaluate(config: DictConfig, console: Console | None = None) -> dict[str, float]:
    """Tests, prints, and writes metrics, tables and pictures to `<run>/evaluation/<data set>/`.

    With a prompt it prints what the network writes about it, and tests and writes nothing.

    Args:
        config: As composed from `conf/evaluate.yaml`.

    Returns:
        The metrics; none with a prompt.

    Raises:
        ConfigError: If the folder or file is no run's, the other data does not fit its model, or the network cannot
            write about the prompt.
    """
    console = console or Console()
    rebuilt = rebuild(config)
    if config.prompt is not None:
        answer(rebuilt, str(config.prompt), console)
        return {}
    task, data = rebuilt.task, rebuilt.data
    images = images_to_explain(config, task, data)
    rebuilt.trainer.test(task, datamodule=data, verbose=False)
    metrics = task.measured
    if images:
        task.artifacts.pictures |= explain.explain(task.model, data, images)

    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in metrics.items():
        table.add_row(name, f"[bold]{number_text(name, value)}[/]")
    name = f"{rebuilt.config.model.name} on the test part of {rebuilt.config.dataset.name}"
    console.print(Panel(table, title=name, title_align="left", expand=False, border_style="cyan"))
    if task.artifacts.table:
        console.print(rows_table(task.artifacts.table))
    show_examples(console, task)
    show_texts(console, task.artifacts.texts)

    try:
        rebuilt.folder.mkdir(parents=True, exist_ok=True)
        files = save_artifacts(task.artifacts, rebuilt.folder, stem="{}")
        write_atomically(rebuilt.folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        if task.artifacts.table:
            with (rebuilt.folder / "per_class.csv").open("w", newline="") as stream:
                csv.writer(stream, lineterminator="\n").writerows(task.artifacts.table)
    except OSError as error:
        raise ConfigError(
            f"{rebuilt.folder} cannot be written ({error.strerror}); only the table above is left."
        ) from error
    written = ", ".join(
        ["metrics.json", *(["per_class.csv"] if task.artifacts.table else []), *(file.name for file in files)]
    )
    console.print(f"\n{written} are in\n    {relative(rebuilt.folder)}", soft_wrap=True)
    return metrics


def images_to_explain(config: DictConfig, task: Task, data: DataModule) -> list[int]:
    """Numbers of test images; none where nothing is to be explained.

    Raises:
        ConfigError: If there is nothing to show of the network, or an image is none of the test part.
    """
    if not isinstance(config.explain, bool):
        raise ConfigError(f"explain={config.explain} must be true or false.")
    if not config.explain:
        if config.images is not None:
            raise ConfigError("images goes with explain=true, which shows how the network sees them.")
        return []
    explain.check(task)
    return explain.chosen(data, config.images)
