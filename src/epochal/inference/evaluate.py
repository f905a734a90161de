"""A run's best weights, tested again: on the data it was trained on, or on other data."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from epochal.config.instantiate import target_class
from epochal.config.schema import wrong_numbers
from epochal.core.errors import ConfigError
from epochal.core.files import relative, slug, write_atomically
from epochal.core.format import number_text
from epochal.core.specs import Classes, describe
from epochal.data import DataModule
from epochal.inference.generate import print_response, set_options
from epochal.inference.load import SavedRun, open_run, read_run
from epochal.tasks import Task
from epochal.tasks.visuals import explain
from epochal.training.console import rows_table, show_examples, show_texts
from epochal.training.factories import make_data
from epochal.training.loggers.files import save_artifacts
from epochal.training.trainer import make_trainer

# settings of the data that stay as in training when the run is tested on other data: windows, order of pixels, parts
KEPT = ("context_length", "max_length", "eval_batch_size", "permuted", "split_seed")


@dataclass
class Rebuilt:
    """A run's task with its best weights, the data to test it on, and the folder for what is found."""

    config: DictConfig
    task: Task
    data: DataModule
    trainer: pl.Trainer
    folder: Path


def evaluate(config: DictConfig, console: Console | None = None) -> dict[str, float]:
    """Tests, prints, and writes metrics, tables and pictures to `<run>/evaluation/<data set>/`.

    With a prompt it prints what the network writes for it, and tests and writes nothing.

    Args:
        config: As composed from `conf/evaluate.yaml`.
        console: Where to print.

    Returns:
        The metrics; none with a prompt.

    Raises:
        ConfigError: If the folder or file is no run's, the other data does not fit its model, or the network cannot
            write for the prompt.
    """
    console = console or Console()
    rebuilt = rebuild(config)
    task, data = rebuilt.task, rebuilt.data
    if config.prompt is not None:
        task.trainer, rebuilt.trainer.datamodule = rebuilt.trainer, data  # type: ignore[attr-defined]  # as in a test
        task.to(rebuilt.trainer.strategy.root_device).eval()
        print_response(task, str(config.prompt), console)
        return {}
    images = images_to_explain(config, task, data)
    rebuilt.trainer.test(task, datamodule=data, verbose=False)
    metrics = task.measured
    if images:
        task.artifacts.pictures |= explain.explain(task.model, data, images)
    show(rebuilt, metrics, console)
    files = write(rebuilt, metrics)
    written = ", ".join(file.name for file in files)
    console.print(f"\n{written} are in\n    {relative(rebuilt.folder)}", soft_wrap=True)
    return metrics


def show(rebuilt: Rebuilt, metrics: Mapping[str, float], console: Console) -> None:
    """Prints metrics, the table by class, examples and texts."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in metrics.items():
        table.add_row(name, f"[bold]{number_text(name, value)}[/]")
    title = f"{rebuilt.config.model.name} on the test part of {rebuilt.config.dataset.name}"
    console.print(Panel(table, title=title, title_align="left", expand=False, border_style="cyan"))
    artifacts = rebuilt.task.artifacts
    if artifacts.table:
        console.print(rows_table(artifacts.table))
    show_examples(console, rebuilt.task)
    show_texts(console, artifacts.texts)


def write(rebuilt: Rebuilt, metrics: Mapping[str, float]) -> list[Path]:
    """Writes `metrics.json`, `per_class.csv` where there is a table, pictures and texts.

    Raises:
        ConfigError: If the folder cannot be written.
    """
    folder, artifacts = rebuilt.folder, rebuilt.task.artifacts
    files = [folder / "metrics.json"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = save_artifacts(artifacts, folder, stem="{}")
        write_atomically(files[0], json.dumps(metrics, indent=2) + "\n")
        if artifacts.table:
            files.append(folder / "per_class.csv")
            with files[-1].open("w", newline="") as stream:
                csv.writer(stream, lineterminator="\n").writerows(artifacts.table)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror}); only the table above is left.") from error
    return [*files, *pictures]


def rebuild(config: DictConfig) -> Rebuilt:
    """The run that `run` or `checkpoint` names, with its own data or the `dataset` that was chosen.

    Raises:
        ConfigError: If the folder or file is no run's, or the other data does not fit its model.
    """
    allow = tuple(config.allow)
    if config.checkpoint is not None:
        file = Path(config.checkpoint).expanduser().absolute()
        folder = file.parent.parent if (file.parent.parent / "config.yaml").is_file() else file.parent
        saved = read_run(file, folder, allow)
    else:
        saved = open_run(config.run, allow, config.output_dir)
    saved.config.trainer = config.trainer
    set_options(saved.config, config)
    if config.get("dataset") is not None:
        choose_data(saved, config)
    data = make_data(saved.config, saved.data)  # pixels are normalised and text is tokenized as in training
    check_specs(saved, data)
    task = saved.task()
    trainer = make_trainer(saved.config, task, logger=False, enable_checkpointing=False)
    return Rebuilt(saved.config, task, data, trainer, saved.folder / "evaluation" / slug(str(data.name)))


def choose_data(saved: SavedRun, config: DictConfig) -> None:
    """Puts other data into the config of a run.

    Raises:
        ConfigError: If it yields inputs of another kind than the model reads, or a number is out of range.
    """
    other = config.dataset
    if wrong := list(wrong_numbers(config)):
        raise ConfigError("\n".join(wrong))
    reads, yields = type(saved.inputs), target_class(other._target_).yields
    if yields is not reads:
        raise ConfigError(
            f"model={saved.config.model.name} was trained on {reads.__name__.lower()}, "
            f"but dataset={other.name} yields {yields.__name__.lower()}."
        )
    own = {key: saved.config.dataset[key] for key in KEPT if key in saved.config.dataset}
    saved.config.dataset = OmegaConf.merge(other, own, {"batch_size": 1})


def check_specs(saved: SavedRun, data: DataModule) -> None:
    """Raises ConfigError where the data is of other sizes than the model reads, or has another number of classes."""
    inputs, outputs = data.specs(saved.config.task.name)
    name = saved.config.dataset.name
    if inputs != saved.inputs:
        raise ConfigError(f"The model reads {describe(saved.inputs)}, but dataset={name} yields {describe(inputs)}.")
    trained = saved.outputs
    if isinstance(trained, Classes) and isinstance(outputs, Classes) and outputs.count != trained.count:
        raise ConfigError(f"The model tells {trained.count} classes apart, but dataset={name} has {outputs.count}.")


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
    return explain.choose_images(data, config.images)
