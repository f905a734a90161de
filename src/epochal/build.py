"""From a config to a run that is ready to go: the one place that knows data, models and tasks."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import nn

from epochal import screen
from epochal.callbacks import Checkpoints, Progress, Record, load_weights, read_checkpoint
from epochal.callbacks.prune import PrunedError
from epochal.data import Data
from epochal.duration import steps_of
from epochal.errors import ConfigError, DivergedError
from epochal.facts import to_plain
from epochal.grid import in_grid
from epochal.loggers import Wandb, make_logger
from epochal.measure import count_flops, git_commit
from epochal.models.pretrained import load_pretrained, normalisation
from epochal.parts import (
    check_lengths,
    check_world,
    make_data,
    make_task,
    make_trainer,
    optional_callbacks,
    quiet,
    set_threads,
    settle,
)
from epochal.resume import new_run, resumed
from epochal.runs import Run, RunLogger, plain, rank
from epochal.tasks import Task
from epochal.transfer import begin_with, beginning, is_task
from epochal.validate import make_model, validate


@dataclass
class Job:
    """All that a run needs."""

    config: DictConfig
    run: Run
    data: Data
    task: Task
    trainer: pl.Trainer
    record: Record
    console: Console
    checkpoint: Path | None  # to go on from

    def fit(self) -> None:
        """Trains to the end, or on from the checkpoint.

        Raises:
            EpochalError: If the loss is lost.
        """
        with self._interruptible():
            self.trainer.fit(self.task, datamodule=self.data, ckpt_path=self.checkpoint, weights_only=True)

    def test(self) -> None:
        """Tests the best weights, once, on data that nothing before has seen."""
        load_weights(self.task, read_checkpoint(self.run.best))
        with self._interruptible():
            self.trainer.test(self.task, datamodule=self.data, verbose=False)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Lightning makes an exit of Ctrl-C; whoever called shall see what it was."""
        try:
            yield
        except SystemExit as end:
            if isinstance(end.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise

    def report(self) -> None:
        """Says that the run is finished, to the summary and to the person."""
        self.record.write(self.trainer, "finished")
        if self.trainer.is_global_zero:
            screen.report(self)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        """Lets go of the run's folder and its W&B run, however it ended; tells how to go on if it did not finish.

        A run that its search stopped early has ended well: no error leaves here.
        """
        pruned = isinstance(error, PrunedError)
        if pruned:
            self.record.write(self.trainer, "pruned")
        elif error is not None and self.trainer.is_global_zero:
            if self.run.summary().get("status") == "running":
                self.record.write(self.trainer, "failed", error=str(error))
            if isinstance(error, DivergedError) and self.run.last.exists():
                kept = screen.relative(self.run.last)
                self.console.print(f"\nThe last good checkpoint is kept: {kept}", soft_wrap=True)
            elif self.run.last.exists():
                folder = screen.relative(self.run.folder)
                self.console.print(
                    f"\nTo go on from the last checkpoint: python train.py resume={folder}", soft_wrap=True
                )
        self.run.release()
        for logger in self.trainer.loggers:
            if isinstance(logger, Wandb):
                logger.close("finished" if error is None or pruned else "failed")
        return pruned


def build(config: DictConfig, overrides: list[str] | None = None, console: Console | None = None) -> Job:
    """Checks the config, finds the data, makes the model and the run's folder.

    Args:
        config: As composed from `conf/train.yaml`.
        overrides: What was asked for on the command line, to be kept in the run's folder.
        console: Where a person reads.

    Raises:
        ConfigError: With every conflict in one message, before any work.
    """
    console = console or Console(quiet=in_grid())  # a run of many has one line, at its end
    quiet()
    config, run = resumed(config, overrides or [])
    checkpoint = read_checkpoint(run.last) if run is not None and run.last.exists() else None
    validate(config)
    config = settle(config)
    parent = beginning(config) if checkpoint is None else None
    pl.seed_everything(config.seed, verbose=False)
    state = parent.data if parent is not None else None
    if checkpoint is not None and config.init_from is not None:
        state = checkpoint["epochal"]["data"]
    data = make_data(config, state)
    model = make_model(config, *data.facts(config.task.name))
    if parent is not None:
        console.print(begin_with(model, parent, config), soft_wrap=True)
    if config.model.get("pretrained"):
        data.adopt(normalisation(model))
        data.prepare()
        if checkpoint is None:
            console.print(load_pretrained(model, progress=not in_grid()))
    if config.channels_last and any(isinstance(m, nn.Conv2d) for m in model.modules()):
        model = model.to(memory_format=torch.channels_last)
    flops = count_flops(model, data.facts(config.task.name))
    set_threads(config, model, flops)
    steps_per_epoch = math.ceil(data.batches_per_epoch() / config.trainer.accumulate_grad_batches)
    total_steps = steps_of(config, data, model, steps_per_epoch, console)
    task = make_task(config, model, total_steps)
    if config.compile:
        model.compile()

    check_lengths(config, data)
    fresh = run is None
    if run is None:
        run = new_run(config, overrides or [])
    elif run.summary().get("data_fingerprint") not in (None, data.fingerprint):
        raise ConfigError(
            f"The data of dataset={config.dataset.name} changed since {run.folder.name} began; start anew."
        )
    try:
        known = known_facts(config, data, model, flops, wandb_id=run.summary().get("wandb_id") or secrets.token_hex(4))
        if config.init_from is not None:
            known["init_from"] = str(parent.run.folder) if parent else run.summary().get("init_from")

        examples_per_step = config.dataset.batch_size * config.trainer.accumulate_grad_batches
        run_logger = RunLogger(run, examples_per_step=examples_per_step, steps_per_epoch=steps_per_epoch)
        loggers = [run_logger, make_logger(config, run, wandb_id=known["wandb_id"], resuming=checkpoint is not None)]
        checkpoints = Checkpoints(
            run,
            every=config.callbacks.checkpoint_every,
            reports=task.reports,
            extra=lambda: {
                "config": plain(config),
                "data": data.state(),
                "facts": [to_plain(fact) for fact in data.facts(config.task.name)],
            },
        )
        resumed_step = checkpoint["global_step"] if checkpoint else 0
        record = Record(run, run_logger, checkpoints, known, total_steps=total_steps, resumed_step=resumed_step)
        progress = Progress(console, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        callbacks = [*optional_callbacks(config, task), record, checkpoints, progress]
        trainer = make_trainer(
            config, task, callbacks=callbacks, logger=[x for x in loggers if x], max_steps=total_steps
        )
        check_world(config, data, trainer.world_size)
        record.write(trainer, "running")
        if trainer.is_global_zero:
            screen.panel(console, config, run, known, data, total_steps=total_steps, resumed_step=resumed_step)
        return Job(config, run, data, task, trainer, record, console, run.last if checkpoint else None)
    except BaseException:
        if fresh and rank() == 0:
            run.discard()
        else:
            run.release()
        raise


def check(config: DictConfig, seen: dict[str, Any]) -> None:
    """Finds what is wrong with a config and with its model on its data, without a run.

    Args:
        config: As composed.
        seen: The data of configs that were checked before, by their settings; the same set is not read again.

    Raises:
        ConfigError: With every conflict in one message.
    """
    quiet()
    validate(config)
    config = settle(config)
    parent = None if is_task(str(config.init_from)) else beginning(config)  # a task's run may be one of this grid
    key = str((plain(config.dataset), config.task.name, config.init_from))
    data = seen[key] = seen.get(key) or make_data(config, parent.data if parent is not None else None)
    with torch.device("meta"):
        model = make_model(config, *data.facts(config.task.name))
    if parent is not None:
        begin_with(model, parent, config)
    if config.model.get("pretrained"):
        normalisation(model)  # says so if there are no weights for it
    check_lengths(config, data)


def known_facts(
    config: DictConfig, data: Data, model: nn.Module, flops: int | None, *, wandb_id: str
) -> dict[str, Any]:
    """What the summary tells from the start."""
    return {
        "model": config.model.name,
        "dataset": config.dataset.name,
        "task": config.task.name,
        "seed": config.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "flops": flops,
        "git_commit": git_commit(),
        "versions": {name: version(name) for name in ("torch", "pytorch-lightning", "epochal")},
        "data_fingerprint": data.fingerprint,
        "wandb_id": wandb_id if config.logger.name == "wandb" else None,
    }
