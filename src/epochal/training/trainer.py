"""Lightning's Trainer, and the process it runs in: threads, devices, warnings."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, ListConfig
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import nn

from epochal.config.compose import plain
from epochal.config.schema import NOT_ARGUMENTS
from epochal.core.errors import ConfigError
from epochal.core.protocols import AdversarialNetwork
from epochal.data import DataModule
from epochal.data.datamodule import SPLITS
from epochal.tasks import Task
from epochal.training.checkpoint_io import AtomicCheckpointIO

SMALL = 2e8  # FLOPs of a batch's forward pass, below which one thread is about as fast as two


NOTHING = nullcontext()


class SilentProfiler(PassThroughProfiler):
    """Lightning calls its profiler 40 times a step; this one makes no context manager each time."""

    def profile(self, action_name: str) -> Any:
        return NOTHING


def make_trainer(config: DictConfig, task: Task, **rest: Any) -> pl.Trainer:
    """Lightning's Trainer with the arguments of the config's group.

    Raises:
        ConfigError: If an argument is wrong.
    """
    arguments = {k: v for k, v in plain(config.trainer).items() if k not in NOT_ARGUMENTS}
    if not task.automatic_optimization:
        task.gradient_clip_val = arguments.pop("gradient_clip_val")
        if arguments["strategy"] == "ddp":  # each of the two backward passes uses the parameters of one network only
            arguments["strategy"] = "ddp_find_unused_parameters_true"
    settle_rank(config)
    plugins: list[Any] = [AtomicCheckpointIO()]
    if on_one_device(config) and os.environ.get("SLURM_NTASKS", "1") != "1":
        plugins.append(LightningEnvironment())  # SLURM's other tasks are runs of their own
    arguments["profiler"] = arguments.get("profiler") or SilentProfiler()
    try:
        return pl.Trainer(
            **arguments,
            **rest,
            max_epochs=-1,
            plugins=plugins,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (pl.utilities.exceptions.MisconfigurationException, ImportError, TypeError, ValueError) as error:
        raise ConfigError(f"trainer={config.trainer.name}: {str(error).splitlines()[0]}") from error


def settle_rank(config: DictConfig) -> None:
    """Makes this process rank zero where one device trains, whatever rank a launcher gave it for something else.

    Lightning takes `RANK`, `LOCAL_RANK` or `SLURM_PROCID` for its own, also where `srun` started unrelated runs.

    Raises:
        ConfigError: If torchrun started several processes to train together, and one device is set.
    """
    if not on_one_device(config):
        return
    world = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and world != "1":
        raise ConfigError(
            f"torchrun started {world} processes for trainer.devices=1; add trainer=ddp trainer.devices={world}."
        )
    rank_zero_only.rank = 0  # type: ignore[attr-defined]


def on_one_device(config: DictConfig) -> bool:
    devices = config.trainer.devices
    one = len(devices) == 1 if isinstance(devices, ListConfig) else devices in (1, "1")
    return one and config.trainer.num_nodes in (1, "1")


def set_threads(config: DictConfig, model: nn.Module, flops: int | None) -> None:
    """Sets torch's threads; small networks get one: a second gains little, and costs much beside another busy process."""
    there, work = available_threads(), flops or sum(p.numel() for p in model.parameters())
    if config.threads != "auto":
        torch.set_num_threads(config.threads)
    else:
        torch.set_num_threads(1 if work * config.dataset.batch_size < SMALL else there)


@cache
def available_threads() -> int:
    """Torch's own choice: all cores, or as many as OMP_NUM_THREADS or the launcher gives this process."""
    return torch.get_num_threads()


def compile_networks(model: nn.Module) -> None:
    """Compiles what a training step calls: the network, of a GAN its two networks."""
    for network in (model.generator, model.discriminator) if isinstance(model, AdversarialNetwork) else (model,):
        network.compile()


def train_batches(config: DictConfig, data: DataModule) -> int:
    """Batches of an epoch, as far as `trainer.limit_train_batches` lets it go."""
    batches, limit = data.batches_per_epoch(), config.trainer.get("limit_train_batches")
    if limit is None:
        return batches
    return max(1, min(batches, limit) if isinstance(limit, int) else int(batches * limit))


def check_limits(config: DictConfig, data: DataModule, splits: Sequence[str] = SPLITS) -> None:
    """Raises ConfigError if the fraction of a split's batches that is asked for is none."""
    for split in splits:
        limit = config.trainer.get(f"limit_{split}_batches")
        batches = data.batches_per_epoch() if split == "train" else -(-data.sizes()[split] // data.eval_batch_size)
        if isinstance(limit, float) and limit > 0 and int(limit * batches) < 1:
            raise ConfigError(
                f"trainer.limit_{split}_batches={limit} is none of the {split} part's batches ({batches:,}); a whole number counts them."
            )


def check_lengths(config: DictConfig, data: DataModule) -> None:
    """Raises ConfigError if an epoch has fewer batches than there are between two validations, or than a fraction needs."""
    check_limits(config, data)
    every, batches = config.trainer.val_check_interval, train_batches(config, data)
    if config.trainer.check_val_every_n_epoch is not None and isinstance(every, int) and every > batches:
        raise ConfigError(
            f"trainer.val_check_interval={every} is more than the {batches:,} batches of an epoch; "
            "to count across epochs add trainer.check_val_every_n_epoch=null."
        )


def check_world(config: DictConfig, data: DataModule, world: int) -> None:
    """Raises ConfigError if the batches cannot be divided evenly among the processes."""
    if config.dataset.batch_size % world:
        raise ConfigError(
            f"dataset.batch_size={config.dataset.batch_size} is that of all {world} devices together: make it a multiple."
        )
    if config.dataset.eval_batch_size < world:
        raise ConfigError(
            f"dataset.eval_batch_size={config.dataset.eval_batch_size} is that of all {world} devices together: give at least "
            f"{world}."
        )
    if world > 1 and (config.task.get("shifts") or config.task.get("noises")):
        raise ConfigError("task.shifts and task.noises are tested on one device; leave them out, or trainer.devices=1.")
    if small := [split for split, count in data.sizes().items() if count < world]:
        raise ConfigError(
            f"The {small[0]} part of dataset={config.dataset.name} has fewer rows than there are devices."
        )


def quiet() -> None:
    """Silences the libraries' hints and warnings, which are for those who write training loops."""
    if not torch.cuda.is_available():
        # set by Lightning; with it every optimiser step asks the driver for GPUs, which takes 0.2 ms
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
