"""The parts of a run, each made of its group of the config: data, task, trainer, callbacks."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import warnings
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.profilers import PassThroughProfiler
from torch import nn

from epochal.callbacks import AtomicCheckpointIO, Explain
from epochal.data import Data
from epochal.errors import ConfigError
from epochal.runs import plain
from epochal.sweeps import pruning
from epochal.tasks import Task
from epochal.validate import conf_folder, resolve, target_class

SMALL = 2e8  # FLOPs of a forward step, below which one thread is about as quick as two
PLUMBING = ("name", "_target_", "_partial_", "interval")  # keys of a config that are no arguments
NOTHING = nullcontext()


def settle(config: DictConfig) -> DictConfig:
    """A copy in which nothing is left to choose: the task is named, arguments of other choices are gone.

    What was asked for stays under `asked`, so that `resume=auto` knows the run again.
    """
    config = copy.deepcopy(config)
    with open_dict(config):
        config.resume = None
        config.setdefault("asked", {})
        if config.task.name == "auto":
            model, data = target_class(config.model._target_), target_class(config.dataset._target_)
            chosen = next(task for task in data.tasks if task in model.tasks)
            config.asked.task = copy.deepcopy(config.task)
            options = {k: v for k, v in config.task.items() if k != "name"}
            config.task = OmegaConf.merge(OmegaConf.load(conf_folder() / "task" / f"{chosen}.yaml"), options)
        for group in ("optimizer", "scheduler"):
            known = {*inspect.signature(resolve(config[group]._target_)).parameters, *PLUMBING}
            stale = {key for key in config[group] if key not in known}
            if stale:  # such as the betas of a model's own choice, when the command line chose another optimiser
                config.asked[group] = copy.deepcopy(config[group])
                for key in stale:
                    del config[group][key]
        if config.optimizer.get("fused") and config.trainer.gradient_clip_val and "mixed" in config.trainer.precision:
            config.asked.setdefault("optimizer", copy.deepcopy(config.optimizer))
            config.optimizer.fused = False  # Lightning clips no fused optimiser's gradients in mixed precision
    OmegaConf.resolve(config)
    with open_dict(config):
        for key in ("claim", "budgets"):  # the experiment's, not the run's
            config.pop(key, None)
    return config


def make_data(config: DictConfig, state: dict[str, Any] | None = None) -> Data:
    """The data, ready to tell its facts; `state` is what another run's data remembered.

    Raises:
        ConfigError: If the source is missing or wrong.
    """
    arguments = {k: v for k, v in plain(config.dataset).items() if k != "_target_"}
    data: Data = resolve(config.dataset._target_)(**arguments, seed=config.seed)
    data.task = config.task.name
    if state:
        data.adopt(state)
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


class SilentProfiler(PassThroughProfiler):
    """Lightning asks its profiler 40 times a step; this one answers without making a context manager each time."""

    def profile(self, action_name: str) -> Any:
        return NOTHING


def make_trainer(config: DictConfig, task: Task, **rest: Any) -> pl.Trainer:
    """Lightning's trainer with the arguments of the config's group."""
    arguments = {k: v for k, v in plain(config.trainer).items() if k not in PLUMBING}
    if not task.automatic_optimization:
        task.gradient_clip_val = arguments.pop("gradient_clip_val")
        if arguments["strategy"] == "ddp":  # each of the two backwards leaves the other's parameters out
            arguments["strategy"] = "ddp_find_unused_parameters_true"
    arguments["profiler"] = arguments.get("profiler") or SilentProfiler()
    try:
        return pl.Trainer(
            **arguments,
            **rest,
            max_epochs=-1,
            plugins=[AtomicCheckpointIO()],
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (pl.utilities.exceptions.MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(f"trainer={config.trainer.name}: {str(error).splitlines()[0]}") from error


def optional_callbacks(config: DictConfig, task: Task) -> list[pl.Callback]:
    """Lightning's own, where the config asks for them."""
    callbacks: list[pl.Callback] = pruning(config)
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


def set_threads(config: DictConfig, model: nn.Module, flops: int | None) -> None:
    """Small networks run on one thread: a second gains little alone, and costs much beside another busy process."""
    there, work = available_threads(), flops or sum(p.numel() for p in model.parameters())
    if config.threads != "auto":
        torch.set_num_threads(config.threads)
    else:
        torch.set_num_threads(1 if work * config.dataset.batch_size < SMALL else there)


@cache
def available_threads() -> int:
    """What torch would take: all cores, or the share that OMP_NUM_THREADS or the launcher gives this process."""
    return torch.get_num_threads()


def check_lengths(config: DictConfig, data: Data) -> None:
    """Raises ConfigError where an epoch has fewer batches than lie between two validations."""
    every, batches = config.trainer.val_check_interval, data.batches_per_epoch()
    if config.trainer.check_val_every_n_epoch is not None and isinstance(every, int) and every > batches:
        raise ConfigError(
            f"trainer.val_check_interval={every} is more than the {batches:,} batches of an epoch; "
            "to count across epochs add trainer.check_val_every_n_epoch=null."
        )


def check_world(config: DictConfig, data: Data, world: int) -> None:
    """Raises ConfigError where the processes cannot share the batches out evenly."""
    if config.dataset.batch_size % world:
        raise ConfigError(
            f"dataset.batch_size={config.dataset.batch_size} is that of all {world} devices together: make it a multiple."
        )
    if world > 1 and (config.task.get("shifts") or config.task.get("noises")):
        raise ConfigError("task.shifts and task.noises are tested on one device; leave them out, or trainer.devices=1.")
    if small := [split for split, count in data.sizes().items() if count < world]:
        raise ConfigError(
            f"The {small[0]} part of dataset={config.dataset.name} has fewer rows than there are devices."
        )


def quiet() -> None:
    """The libraries' hints are for those who write loops, not for those who watch one."""
    if not torch.cuda.is_available():
        # Lightning sets it, and then every optimiser step asks the driver for GPUs again, at 0.2 ms
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    for name in ("pytorch_lightning", "lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in (
        "pytorch_lightning",
        "lightning_fabric",
        "torchmetrics",
        "wandb",
        "datasets",
        "torch.optim",
        "torch.jit",
    ):
        warnings.filterwarnings("ignore", module=rf"{module.replace('.', '[.]')}.*")
