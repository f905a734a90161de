"""From a config to a run that is ready to go: the one place that knows data, models and tasks."""

from __future__ import annotations

import copy
import inspect
import logging
import math
import os
import secrets
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.profilers import PassThroughProfiler
from rich.console import Console
from torch import nn

from epochal import screen
from epochal.callbacks import AtomicCheckpointIO, Checkpoints, Progress, Record, load_weights, read_checkpoint
from epochal.callbacks.prune import PrunedError
from epochal.data import Data
from epochal.errors import ConfigError, DivergedError, EpochalError
from epochal.facts import to_plain
from epochal.grid import in_grid
from epochal.loggers import Wandb, make_logger
from epochal.measure import count_flops, git_commit
from epochal.runs import Run, RunLogger, newest_finished, newest_unfinished, plain, rank, run_name, slug
from epochal.sweeps import pruning, sweep_folder
from epochal.tasks import Task
from epochal.validate import (
    ALLOWED,
    check_targets,
    conf_folder,
    make_model,
    parse_duration,
    resolve,
    target_class,
    validate,
)

SMALL = 2e8  # FLOPs of a forward step, below which one thread is about as quick as two
PLUMBING = ("name", "_target_", "_partial_", "interval")  # keys of a config that are no arguments


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
    pl.seed_everything(config.seed, verbose=False)
    data = make_data(config)
    model = make_model(config, *data.facts(config.task.name))
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
    key = str((plain(config.dataset), config.task.name))
    data = seen[key] = seen.get(key) or make_data(config)
    with torch.device("meta"):
        make_model(config, *data.facts(config.task.name))
    check_lengths(config, data)


def finished_before(config: DictConfig) -> Run | None:
    """With `resume=auto`, the run that has already done all that is asked for."""
    run = newest_finished(runs_folder(config), config) if config.resume == "auto" else None
    if run is not None:
        Console(quiet=in_grid()).print(f"Finished before: {screen.relative(run.folder)}", soft_wrap=True)
    return run


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
    if small := [split for split, count in data.sizes().items() if count < world]:
        raise ConfigError(
            f"The {small[0]} part of dataset={config.dataset.name} has fewer rows than there are devices."
        )


def new_run(config: DictConfig, overrides: list[str]) -> Run:
    """A folder of its own with the config in it; on other ranks a stand-in, until rank zero tells them its folder."""
    parent = runs_folder(config)
    if rank() != 0:
        return Run(parent / "of-rank-zero")
    run = Run.create(parent, run_name(config))
    run.claim()
    OmegaConf.save(config, run.folder / "config.yaml")
    OmegaConf.save(OmegaConf.create(overrides), run.folder / "overrides.yaml")
    return run


def runs_folder(config: DictConfig) -> Path:
    """Where the runs of this experiment are."""
    return sweep_folder(config) or Path(config.output_dir).absolute() / slug(config.experiment or "runs")


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
    return callbacks


def resumed(config: DictConfig, overrides: list[str]) -> tuple[DictConfig, Run | None]:
    """The config and the run to go on with, if that was asked for.

    Raises:
        ConfigError: If there is nothing to resume there, or the run is another one than asked for.
    """
    if config.resume is None:
        return config, None
    if config.resume == "auto":
        run = newest_unfinished(runs_folder(config), config, claim=rank() == 0)
        if run is None:
            if in_grid() and (held := newest_unfinished(runs_folder(config), config, claim=False)):
                raise EpochalError(f"{screen.relative(held.folder)} is being trained by another process.")
            return config, None
        saved = run.config()
        check_targets(saved, (*ALLOWED, *config.allow))
        if "sweep" in config:
            saved.sweep = config.sweep  # a run that another trial left belongs to this one now
        return saved, run
    run = Run.open(config.resume)
    saved = run.config()
    check_targets(saved, (*ALLOWED, *config.allow))
    others = [o for o in overrides if not o.startswith(("resume=", "allow=", "hydra."))]
    if others:
        raise ConfigError(f"resume={config.resume} goes on with that run as it was; leave out {' '.join(others)}.")
    if run.summary().get("status") == "finished":
        raise ConfigError(f"{config.resume} is finished: there is nothing to resume.")
    if rank() == 0 and not run.claim():
        raise ConfigError(f"{config.resume} is being trained by another process.")
    return saved, run


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
    except TypeError as error:
        raise ConfigError(f"task={config.task.name}: {error}") from error


class SilentProfiler(PassThroughProfiler):
    """Lightning asks its profiler 40 times a step; this one answers without making a context manager each time."""

    def profile(self, action_name: str) -> Any:
        return NOTHING


NOTHING = nullcontext()


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


def steps_of(config: DictConfig, data: Data, model: nn.Module, steps_per_epoch: int, console: Console) -> int:
    """The training's length in optimiser steps. Minutes are measured, and the steps they make kept in the config."""
    amount, unit = parse_duration(config.duration)
    if unit == "epoch":
        return max(1, math.ceil(amount * steps_per_epoch))
    if unit == "step":
        return max(1, int(amount))
    if unit == "example":
        return max(1, math.ceil(amount / (config.dataset.batch_size * config.trainer.accumulate_grad_batches)))
    steps = measure_steps(config, data, model, seconds=60 * amount, steps_per_epoch=steps_per_epoch)
    console.print(f"{config.duration} are about {steps:,} steps here; duration={steps}steps repeats this run.")
    with open_dict(config):
        config.asked.duration = config.duration
        config.duration = f"{steps}steps"
    return steps


def measure_steps(config: DictConfig, data: Data, model: nn.Module, *, seconds: float, steps_per_epoch: int) -> int:
    """How many steps, validations among them, fit into so many seconds: by training a copy for a moment."""

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
            self.ends.append(time.perf_counter())
            if len(self.ends) > 5 and self.ends[-1] - self.ends[2] > min(5.0, seconds / 10):
                trainer.should_stop = True

    clock = Clock()
    task = make_task(config, copy.deepcopy(model), total_steps=10**6)
    task.show = lambda: task.shown  # type: ignore[method-assign]  # pictures are not what is measured
    trainer = make_trainer(config, task, callbacks=[clock], logger=False, enable_checkpointing=False, max_steps=200)
    trainer.fit(task, datamodule=data)
    started = time.perf_counter()
    trainer.validate(task, datamodule=data, verbose=False)
    a_validation = time.perf_counter() - started
    # the first batches warm up; the usual one has no validation in it
    a_batch = median(end - start for start, end in zip(clock.ends[2:], clock.ends[3:], strict=False))
    every, batches = config.trainer.val_check_interval, config.trainer.accumulate_grad_batches
    between = every / batches if isinstance(every, int) else max(1, every * steps_per_epoch)
    pl.seed_everything(config.seed, verbose=False)  # as if nothing had been measured
    return max(1, int((seconds - a_validation) / (a_batch * batches + a_validation / between)))


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
