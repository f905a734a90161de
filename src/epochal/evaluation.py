"""A run's best weights, tested again: on the data it was trained on, or on other data."""

from __future__ import annotations

import csv
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from torch import nn

from epochal import explain, screen
from epochal.callbacks import load_weights, read_checkpoint
from epochal.data import Data
from epochal.errors import ConfigError
from epochal.facts import Classes, from_plain, words
from epochal.parts import make_data, make_task, make_trainer, quiet
from epochal.runs import Run, save_shown, slug, write_atomically
from epochal.tasks import LanguageModeling, Task, Translation
from epochal.validate import ALLOWED, check_targets, make_model, numbers, roles, target_class

WRITING = ("temperature", "top_k", "top_p", "sample_length", "samples", "beam_size")  # keys of a run's task


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


def answer(rebuilt: Rebuilt, prompt: str, console: Console) -> None:
    """Prints how a language model goes on from the prompt, or its translation.

    Raises:
        ConfigError: If the network writes no text of another, or cannot read the prompt.
    """
    task, trainer = rebuilt.task, rebuilt.trainer
    task.trainer, trainer.datamodule = trainer, rebuilt.data  # type: ignore[attr-defined]  # as a test would
    task.to(trainer.strategy.root_device).eval()
    try:
        if isinstance(task, LanguageModeling):
            texts, name = task.sample(prompt), "sample"
        elif isinstance(task, Translation):
            texts, name = [task.translate(prompt)], "translation"
        else:
            learned = rebuilt.config.task.name
            raise ConfigError(f"prompt goes with a language model or a translation; this run learned {learned}.")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for text in texts:
        console.print(Panel(Text(text), title=name, title_align="left", border_style="cyan"))


def choose_writing(config: DictConfig, saved: DictConfig) -> None:
    """Puts what was asked for of the writing into a run's config.

    Raises:
        ConfigError: If the run's objective has no such key, or the value is out of range.
    """
    given = {key: config[key] for key in WRITING if config.get(key) is not None}
    if not given:
        return
    known = inspect.signature(target_class(saved.task._target_)).parameters
    if wrong := next((key for key in given if key not in known), None):
        raise ConfigError(f"{wrong} does not go with this run, which learned {saved.task.name}.")
    for key, value in given.items():
        saved.task[key] = value
    if wrong := "\n".join(line for line in numbers(saved) if line.startswith("task.")):
        raise ConfigError(wrong)
    make_task(saved, nn.Linear(1, 1), total_steps=1)  # wrong values are told before the data is looked for


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
    choose_writing(config, saved)
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
        kept = ("context_length", "max_length", "eval_batch_size", "permuted", "split_seed")
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
