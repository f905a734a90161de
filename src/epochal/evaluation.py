"""A run's best weights, tested again: on the data it was trained on, or on other data."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from epochal import explain, screen
from epochal.callbacks import load_weights, read_checkpoint
from epochal.data import Data
from epochal.errors import ConfigError
from epochal.facts import Classes, from_plain, words
from epochal.parts import make_data, make_task, make_trainer, quiet
from epochal.runs import Run, save_shown, slug, write_atomically
from epochal.tasks import LanguageModeling, Task
from epochal.validate import ALLOWED, check_targets, make_model, numbers, roles, target_class


@dataclass
class Rebuilt:
    """A run's model and task with its best weights, and the data to test them on."""

    config: DictConfig
    task: Task
    data: Data
    trainer: pl.Trainer
    folder: Path  # where what is found out is written


def evaluate(config: DictConfig, console: Console | None = None) -> dict[str, float]:
    """Tests, prints, and writes metrics, tables and pictures to `<run>/evaluation/<data set>/`.

    Args:
        config: As composed from `conf/evaluate.yaml`.

    Raises:
        ConfigError: If the folder or file is no run's, or the other data does not fit its model.
    """
    console = console or Console()
    rebuilt = rebuild(config)
    task, data = rebuilt.task, rebuilt.data
    if config.prompt is not None:
        if not isinstance(task, LanguageModeling):
            raise ConfigError(f"prompt goes with a language model; this run learned {rebuilt.config.task.name}.")
        if not len(data.tokenizer.encode(config.prompt)):  # type: ignore[attr-defined]
            raise ConfigError(f"The run's vocabulary has no character of the prompt {config.prompt!r}.")
        data.prompt = config.prompt  # type: ignore[attr-defined]
    images = images_to_explain(config, task, data)
    rebuilt.trainer.test(task, datamodule=data, verbose=False)
    metrics = task.measured
    if images:
        task.shown.pictures |= explain.explain(task.model, data, images)

    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in metrics.items():
        table.add_row(name, f"[bold]{screen.metric_text(name, value)}[/]")
    name = f"{rebuilt.config.model.name} on the test part of {rebuilt.config.dataset.name}"
    console.print(Panel(table, title=name, title_align="left", expand=False, border_style="cyan"))
    if task.shown.table:
        console.print(screen.rows_table(task.shown.table))
    screen.show_examples(console, task)
    screen.show_texts(console, task.shown.texts)

    try:
        rebuilt.folder.mkdir(parents=True, exist_ok=True)
        files = save_shown(task.shown, rebuilt.folder, stem="{}")
        write_atomically(rebuilt.folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        if task.shown.table:
            with (rebuilt.folder / "per_class.csv").open("w", newline="") as stream:
                csv.writer(stream, lineterminator="\n").writerows(task.shown.table)
    except OSError as error:
        raise ConfigError(
            f"{rebuilt.folder} cannot be written ({error.strerror}); only the table above is left."
        ) from error
    written = ", ".join(
        ["metrics.json", *(["per_class.csv"] if task.shown.table else []), *(file.name for file in files)]
    )
    console.print(f"\n{written} are in\n    {screen.relative(rebuilt.folder)}", soft_wrap=True)
    return metrics


def images_to_explain(config: DictConfig, task: Task, data: Data) -> list[int]:
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


def rebuild(config: DictConfig) -> Rebuilt:
    """The run that `run` or `checkpoint` names, as its checkpoint tells it.

    Raises:
        ConfigError: If the folder or file is no run's, or the other data does not fit its model.
    """
    quiet()
    if config.checkpoint is not None:
        file = Path(config.checkpoint).expanduser().absolute()
        folder = file.parent.parent if (file.parent.parent / "config.yaml").is_file() else file.parent
    else:
        run = Run.open(config.run) if config.run != "latest" else latest(Path(config.output_dir))
        run.config()
        file, folder = (run.best if run.best.exists() else run.last), run.folder
    content = read_checkpoint(file)
    saved, state = OmegaConf.create(content["epochal"]["config"]), content["epochal"]["data"]
    check_targets(saved, (*ALLOWED, *config.allow))
    try:
        inputs, outputs = (from_plain(fact) for fact in content["epochal"]["facts"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} is of another version of Epochal: its facts cannot be read.") from error
    saved.trainer = config.trainer
    other = config.get("dataset")
    if wrong := [*roles(saved), *(numbers(config) if other is not None else ())]:
        raise ConfigError("\n".join(wrong))
    if other is not None:
        if target_class(other._target_).yields is not type(inputs):
            raise ConfigError(
                f"model={saved.model.name} was trained on {type(inputs).__name__.lower()}, "
                f"but dataset={other.name} yields {target_class(other._target_).yields.__name__.lower()}."
            )
        # windows, batches and the order of pixels as in training: what is other is the data
        kept = ("context_length", "eval_batch_size", "permuted", "split_seed")
        own = {key: saved.dataset[key] for key in kept if key in saved.dataset}
        saved.dataset = OmegaConf.merge(other, own, {"batch_size": 1})
    data = make_data(saved, state)  # pixels are normalised and text is cut as in training
    found_inputs, found_outputs = data.facts(saved.task.name)
    if found_inputs != inputs:
        raise ConfigError(
            f"The model reads {words(inputs)}, but dataset={saved.dataset.name} yields {words(found_inputs)}."
        )
    if isinstance(outputs, Classes) and isinstance(found_outputs, Classes) and found_outputs.count != outputs.count:
        raise ConfigError(
            f"The model tells {outputs.count} classes apart, but dataset={saved.dataset.name} has {found_outputs.count}."
        )
    task = make_task(saved, make_model(saved, inputs, outputs), total_steps=1)
    load_weights(task, content)
    trainer = make_trainer(saved, task, logger=False, enable_checkpointing=False)
    return Rebuilt(saved, task, data, trainer, folder / "evaluation" / slug(str(saved.dataset.name)))


def latest(outputs: Path) -> Run:
    """The newest run that has weights.

    Raises:
        ConfigError: If there is none.
    """
    files: list[Any] = sorted(outputs.glob("*/*/checkpoints/last.ckpt"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise ConfigError(f"There is no run in {outputs} yet; python train.py makes one.")
    return Run.open(files[-1].parent.parent)
