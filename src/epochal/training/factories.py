"""The parts of a run, each made of its group of the config: data, task, trainer, callbacks."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from torch import nn

from epochal.config.compose import plain
from epochal.config.finalize import PLUMBING
from epochal.config.instantiate import resolve
from epochal.core.errors import ConfigError
from epochal.data import DataModule
from epochal.tasks import Task
from epochal.training.callbacks.explain import Explain


def make_data(config: DictConfig, state: dict[str, Any] | None = None) -> DataModule:
    """The data, ready to tell its facts; `state` is what another run's data remembered.

    Raises:
        ConfigError: If the source is missing or wrong.
    """
    arguments = {k: v for k, v in plain(config.dataset).items() if k != "_target_"}
    data: DataModule = resolve(config.dataset._target_)(**arguments, seed=config.seed)
    data.task = config.task.name
    if state:
        data.load_state(state)
    data.prepare()
    if config.task.name == "adversarial":
        data.symmetric = True  # type: ignore[attr-defined]  # images from -1 to 1, as the generator draws them
    return data


def make_task(config: DictConfig, model: nn.Module, total_steps: int) -> Task:
    """The objective around the model."""
    makers = {}
    for group in ("optimizer", "scheduler"):
        arguments = {k: v for k, v in plain(config[group]).items() if k not in PLUMBING}
        makers[group] = partial(resolve(config[group]._target_), **arguments)
    options = {k: v for k, v in config.task.items() if k not in PLUMBING}
    try:
        return resolve(config.task._target_)(
            model=model, **makers, total_steps=total_steps, log_every=config.log_every, **options
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"task={config.task.name}: {error}") from error


def optional_callbacks(config: DictConfig, task: Task) -> list[pl.Callback]:
    """Lightning's own, where the config asks for them."""
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
    if config.callbacks.get("explain"):  # runs of before have no such key
        callbacks.append(Explain(task))
    return callbacks
