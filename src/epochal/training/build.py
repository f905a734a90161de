"""From a config to a run that is ready to go: the one place that knows data, models and tasks."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import nn

from epochal.config.compose import plain
from epochal.config.finalize import finalize
from epochal.config.instantiate import make_model
from epochal.config.validate import validate
from epochal.core.errors import ConfigError
from epochal.core.multirun import in_grid
from epochal.core.specs import to_plain
from epochal.data import DataModule
from epochal.models.pretrained.torchvision import load_pretrained, normalisation
from epochal.training.callbacks.checkpoints import Checkpoints
from epochal.training.callbacks.progress import Progress
from epochal.training.callbacks.record import Record
from epochal.training.checkpoint_io import read_checkpoint
from epochal.training.console import panel
from epochal.training.cost import count_flops, git_commit
from epochal.training.duration import steps_of
from epochal.training.factories import make_data, make_task, optional_callbacks
from epochal.training.job import Job
from epochal.training.loggers import make_logger
from epochal.training.loggers.files import RunLogger
from epochal.training.resume import new_run, resumed
from epochal.training.run_folder import rank
from epochal.training.trainer import check_lengths, check_world, make_trainer, quiet, set_threads
from epochal.training.warm_start import beginning, load_matching_weights


def build(
    config: DictConfig,
    overrides: list[str] | None = None,
    console: Console | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Job:
    """Checks the config, finds the data, makes the model and the run's folder.

    Args:
        config: As composed from `conf/train.yaml`.
        overrides: What was asked for on the command line, to be kept in the run's folder.
        console: Where a person reads.
        callbacks: More of them, such as a search's.

    Raises:
        ConfigError: With every conflict in one message, before any work.
    """
    console = console or Console(quiet=in_grid())  # a run of many has one line, at its end
    quiet()
    config, run = resumed(config, overrides or [])
    checkpoint = read_checkpoint(run.last) if run is not None and run.last.exists() else None
    validate(config)
    config = finalize(config)
    parent = beginning(config) if checkpoint is None else None
    pl.seed_everything(config.seed, verbose=False)
    state = parent.data if parent is not None else None
    if checkpoint is not None and config.init_from is not None:
        state = checkpoint["epochal"]["data"]
    data = make_data(config, state)
    model = make_model(config, *data.specs(config.task.name))
    if parent is not None:
        console.print(load_matching_weights(model, parent, config), soft_wrap=True)
    if config.model.get("pretrained"):
        data.load_state(normalisation(model))
        data.prepare()
        if checkpoint is None:
            console.print(load_pretrained(model, progress=not in_grid()))
    if config.channels_last and any(isinstance(m, nn.Conv2d) for m in model.modules()):
        model = model.to(memory_format=torch.channels_last)
    flops = count_flops(model, data.specs(config.task.name))
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
        known = known_values(config, data, model, flops, wandb_id=run.summary().get("wandb_id") or secrets.token_hex(4))
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
                "facts": [to_plain(fact) for fact in data.specs(config.task.name)],
            },
        )
        resumed_step = checkpoint["global_step"] if checkpoint else 0
        record = Record(run, run_logger, checkpoints, known, total_steps=total_steps, resumed_step=resumed_step)
        progress = Progress(console, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        all_callbacks = [*callbacks, *optional_callbacks(config, task), record, checkpoints, progress]
        trainer = make_trainer(
            config, task, callbacks=all_callbacks, logger=[x for x in loggers if x], max_steps=total_steps
        )
        check_world(config, data, trainer.world_size)
        record.write(trainer, "running")
        if trainer.is_global_zero:
            panel(console, config, run, known, data, total_steps=total_steps, resumed_step=resumed_step)
        return Job(config, run, data, task, trainer, record, console, run.last if checkpoint else None)
    except BaseException:
        if fresh and rank() == 0:
            run.discard()
        else:
            run.release()
        raise


def known_values(
    config: DictConfig, data: DataModule, model: nn.Module, flops: int | None, *, wandb_id: str
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
