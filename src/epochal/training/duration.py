"""The length of a training in optimiser steps; of minutes, measured."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, open_dict
from rich.console import Console
from torch import nn

from epochal.config.duration import Length, parse_duration
from epochal.data import DataModule
from epochal.tasks.post_training.policy import UsesFrozen
from epochal.training.factories import make_task
from epochal.training.trainer import make_trainer, train_batches


def length_of(
    config: DictConfig, data: DataModule, model: nn.Module, frozen: Mapping[str, nn.Module], console: Console
) -> Length:
    """The length that `duration` asks for. Minutes are measured, and the steps they make kept in the config.

    Args:
        config: Of the run.
        data, model: As it will train.
        frozen: The networks beside it, see `UsesFrozen`.
        console: Where the steps are printed.
    """
    epoch = Length(0, train_batches(config, data), int(config.trainer.accumulate_grad_batches))
    return epoch._replace(steps=_steps(config, data, model, frozen, epoch, console))


def _steps(
    config: DictConfig,
    data: DataModule,
    model: nn.Module,
    frozen: Mapping[str, nn.Module],
    epoch: Length,
    console: Console,
) -> int:
    amount, unit = parse_duration(config.duration)
    if unit == "epoch":
        return max(1, math.ceil(amount * epoch.steps_per_epoch))
    if unit == "step":
        return max(1, int(amount))
    if unit == "example":
        epochs, batches = divmod(math.ceil(amount / config.dataset.batch_size), epoch.batches_per_epoch)
        return max(1, epochs * epoch.steps_per_epoch + math.ceil(batches / epoch.batches_per_step))
    steps = measure_steps(config, data, model, frozen, seconds=60 * amount, epoch=epoch)
    console.print(f"{config.duration} are about {steps:,} steps here; duration={steps}steps repeats this run.")
    with open_dict(config):
        config.requested.duration = config.duration
        config.duration = f"{steps}steps"
    return steps


def measure_steps(
    config: DictConfig,
    data: DataModule,
    model: nn.Module,
    frozen: Mapping[str, nn.Module],
    *,
    seconds: float,
    epoch: Length,
) -> int:
    """How many steps fit into so many seconds, validations included: measured by training a copy for up to 200 steps."""

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
            self.ends.append(time.perf_counter())
            if len(self.ends) > 5 and self.ends[-1] - self.ends[2] > min(5.0, seconds / 10):
                trainer.should_stop = True

    clock = Clock()
    task = make_task(config, copy.deepcopy(model), total_steps=10**6)
    if isinstance(task, UsesFrozen):
        task.attach(frozen)
    task.validation_artifacts = lambda: task.artifacts  # type: ignore[method-assign]  # pictures are not measured
    trainer = make_trainer(config, task, callbacks=[clock], logger=False, enable_checkpointing=False, max_steps=200)
    trainer.fit(task, datamodule=data)
    started = time.perf_counter()
    trainer.validate(task, datamodule=data, verbose=False)
    a_validation = time.perf_counter() - started
    # the first batches warm up; the median batch has no validation in it
    a_batch = median(end - start for start, end in zip(clock.ends[2:], clock.ends[3:], strict=False))
    every, batches = config.trainer.val_check_interval, epoch.batches_per_epoch / epoch.steps_per_epoch  # of a step
    between = every / batches if isinstance(every, int) else max(1, every * epoch.steps_per_epoch)
    pl.seed_everything(config.seed, verbose=False)  # the state from before the measurement
    return max(1, int((seconds - a_validation) / (a_batch * batches + a_validation / between)))
