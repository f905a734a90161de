"""From a run folder to its network, its data and its tokenizer."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from torch import nn

from epochal.config.allowlist import ALLOWED, check_targets
from epochal.config.instantiate import make_model, target_class
from epochal.config.validate import numbers, roles
from epochal.core.errors import ConfigError
from epochal.core.files import slug
from epochal.core.specs import Classes, describe, from_plain
from epochal.data import DataModule
from epochal.tasks import Task
from epochal.training.checkpoint_io import load_weights, read_checkpoint
from epochal.training.factories import make_data, make_task
from epochal.training.run_folder import Run
from epochal.training.trainer import make_trainer, quiet


@dataclass
class Rebuilt:
    """A run's model and task with its best weights, and the data to test them on."""

    config: DictConfig
    task: Task
    data: DataModule
    trainer: pl.Trainer
    folder: Path  # where what is found out is written


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
    found_inputs, found_outputs = data.specs(saved.task.name)
    if found_inputs != inputs:
        raise ConfigError(
            f"The model reads {describe(inputs)}, but dataset={saved.dataset.name} yields {describe(found_inputs)}."
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


WRITING = ("temperature", "top_k", "top_p", "sample_length", "samples", "beam_size")  # keys of a run's task


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
