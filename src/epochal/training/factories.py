"""The parts of a run, each built from its group of the config: data, task, loggers, callbacks."""

from __future__ import annotations

import os
from collections.abc import Set
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from torch import nn

from epochal.config.compose import plain
from epochal.config.instantiate import instantiate, resolve, target_class
from epochal.config.schema import NOT_ARGUMENTS
from epochal.core.errors import ConfigError
from epochal.data import DataModule
from epochal.tasks import Task
from epochal.training.callbacks.explain import Explain
from epochal.training.callbacks.watch import FOLDER, Watch
from epochal.training.features import feature_network
from epochal.training.judges import text_judge
from epochal.training.run_folder import Run


def make_data(config: DictConfig, state: dict[str, Any] | None = None, typed: Set[str] = frozenset()) -> DataModule:
    """The data, prepared; see `new_data`.

    Args:
        config, state: See there.
        typed: Keys that were typed, of which those of the data must be read.

    Raises:
        ConfigError: If the source is missing or wrong.
    """
    data = new_data(config, state)
    data.check_typed({key.removeprefix("dataset.") for key in typed if key.startswith("dataset.")})
    data.prepare()
    return data


def new_data(config: DictConfig, state: dict[str, Any] | None = None) -> DataModule:
    """The data, before it is prepared.

    Args:
        config: Resolved.
        state: Of the data of another run, whose normalisation or tokenizer is used; None fits its own.
    """
    arguments = {k: v for k, v in plain(config.dataset).items() if k != "_target_"}
    data: DataModule = resolve(config.dataset._target_)(**arguments, seed=config.seed)
    task = target_class(config.task._target_)
    data.learns = task.target
    data.use_image_range(task.image_range)
    if state:
        data.load_state(state)
    return data


def make_task(config: DictConfig, model: nn.Module, total_steps: int, classes: int | None = None) -> Task:
    """The objective around the model.

    Args:
        config: Resolved.
        model: The network.
        total_steps: Optimiser steps of the training.
        classes: Given to metrics of the config as `num_classes`.

    Raises:
        ConfigError: If an option is wrong, a metric cannot be made, or there is no such network of features or judge.
    """
    makers = {}
    for group in ("optimizer", "scheduler"):
        arguments = {k: v for k, v in plain(config[group]).items() if k not in NOT_ARGUMENTS}
        makers[group] = partial(resolve(config[group]._target_), **arguments)
    options = {k: v for k, v in config.task.items() if k not in (*NOT_ARGUMENTS, "metrics")}
    if metrics := config.task.get("metrics"):
        context = {"num_classes": classes, "num_labels": classes}
        options["metrics"] = {name: instantiate(node, **context) for name, node in metrics.items()}
    if isinstance(options.get("features"), str):
        options["features"] = feature_network(options["features"], config.get("allow", ()))
    if isinstance(options.get("judge"), str):
        options["judge"] = text_judge(options["judge"], config.get("allow", ()), new_data)
    try:
        return resolve(config.task._target_)(
            model=model, **makers, total_steps=total_steps, log_every=config.log_every, **options
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"task={config.task.name}: {error}") from error


def make_loggers(config: DictConfig, run: Run, *, resuming: bool) -> list[Logger]:
    """Every child of `logger` that has a `_target_`; one that takes a `save_dir` is given the run's folder.

    Raises:
        ConfigError: If one cannot be made, for instance because its package is missing.
    """
    children = (child for child in config.logger.values() if isinstance(child, DictConfig))
    context = {"run": run, "config": config, "resuming": resuming, "save_dir": run.folder}
    return [instantiate(child, **context) for child in children]


def optional_callbacks(config: DictConfig, task: Task) -> list[pl.Callback]:
    """The callbacks that the config asks for: Lightning's, ours, and every child of `callbacks` that has a `_target_`.

    Raises:
        ConfigError: If one cannot be made.
    """
    callbacks: list[pl.Callback] = []
    if config.callbacks.early_stopping is not None and task.reports is not None:
        metric, mode = task.reports
        callbacks.append(
            pl.callbacks.EarlyStopping(
                metric, mode=mode, patience=config.callbacks.early_stopping, check_on_train_epoch_end=False
            )
        )
    if config.callbacks.ema is not None:
        callbacks.append(pl.callbacks.EMAWeightAveraging(decay=config.callbacks.ema))
    if config.callbacks.get("explain"):  # older runs have no such key
        callbacks.append(Explain(task))
    if folder := os.environ.get(FOLDER):  # the lab's page watches it
        callbacks.append(Watch(Path(folder)))
    return callbacks + [instantiate(child) for child in config.callbacks.values() if isinstance(child, DictConfig)]
