"""From a config to a run that is ready to go: the one place that knows data, models and tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import nn

import epochal
from epochal.config.compose import plain
from epochal.config.duration import Length
from epochal.config.finalize import finalize
from epochal.config.instantiate import make_model
from epochal.config.validate import validate
from epochal.core.errors import ConfigError
from epochal.core.files import write_atomically
from epochal.core.format import verbatim
from epochal.core.multirun import in_grid, typed_alone
from epochal.core.specs import class_count, to_plain
from epochal.data import DataModule
from epochal.data.tokenizers import BytePairs, to_huggingface
from epochal.data.vocabularies import reserves_others
from epochal.tasks import Task
from epochal.tasks.post_training.policy import UsesFrozen
from epochal.training import features, judges, published
from epochal.training.callbacks.checkpoints import Checkpoints
from epochal.training.callbacks.progress import Progress
from epochal.training.callbacks.record import Record
from epochal.training.console import show_panel
from epochal.training.cost import flops_of, git_commit, reset_peak_memory
from epochal.training.duration import length_of
from epochal.training.factories import make_data, make_loggers, make_task, optional_callbacks
from epochal.training.job import Job
from epochal.training.loggers.files import RunLogger
from epochal.training.loggers.wandb import wandb_id
from epochal.training.networks import Frozen, open_networks
from epochal.training.resume import last_checkpoint, new_run, rank, resumed, trained_on
from epochal.training.run_folder import Run
from epochal.training.trainer import check_lengths, check_world, compile_networks, make_trainer, quiet, set_threads
from epochal.training.warm_start import Parent, adapt, check_tokenizer, load_matching_weights, parent_of

SAFE_CHANNELS = 8  # see `is_narrow`


def build(
    config: DictConfig,
    overrides: Sequence[str] = (),
    console: Console | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Job:
    """Checks the config, finds the data, makes model, task and trainer, and opens the run's folder.

    Args:
        config: As composed from `conf/train.yaml`.
        overrides: As typed on the command line, to be kept in the run's folder.
        console: Where progress and results are printed.
        callbacks: Further ones, such as a search's.

    Raises:
        ConfigError: With every conflict in one message, before any work.
    """
    console = console or Console(quiet=in_grid())  # one of many runs prints a line at its end
    quiet()
    reset_peak_memory()
    auto = config.resume == "auto"
    config, run = resumed(config, overrides)
    checkpoint = last_checkpoint(run) if run is not None else None
    validate(config)
    config = finalize(config)
    if checkpoint is None:  # else its config has the sizes
        config = judges.resolved(features.resolved(published.with_sizes(config, overrides)))
    parent = parent_of(config) if checkpoint is None else None
    pl.seed_everything(config.seed, verbose=False)
    typed = typed_alone(overrides if checkpoint is None else ())
    data = make_data(config, remembered_data(config, checkpoint, parent, overrides), typed)
    networks = open_networks(config, data, known_networks(run, checkpoint))
    model = make_network(config, data, parent, console, fresh=checkpoint is None)
    flops = flops_of(model, data.specs(data.learns), data.mean_lengths())
    set_threads(config, model, flops["flops"])
    frozen = {name: network.network for name, network in networks.items()}
    length = length_of(config, data, model, frozen, console)
    task = make_task(config, model, length.steps, classes=class_count(data.specs(data.learns)[1]))
    if isinstance(task, UsesFrozen):
        task.attach(frozen)
    if config.compile:
        compile_networks(model)
    check_lengths(config, data)
    if run is not None:
        check_data(config, data, run, checkpoint)
    with opened(run or new_run(config, overrides, auto=auto), fresh=run is None) as run:
        loggers = make_loggers(config, run, resuming=checkpoint is not None)
        known = known_values(config, run, data, model, parent, flops=flops, wandb_id=wandb_id(loggers))
        known |= recorded(networks)
        known |= features.unchanged(task.known(data), run.summary())
        step = checkpoint["global_step"] if checkpoint else 0
        record = make_record(config, run, data, task, known, length, resumed_step=step)
        own = [*callbacks, *optional_callbacks(config, task), record, record.checkpoints, Progress(console, length)]
        loggers = [record.logger, *loggers]
        trainer = make_trainer(config, task, callbacks=own, logger=loggers, max_steps=length.steps)
        check_world(config, data, trainer.world_size)
        record.write(trainer, "running")
        if trainer.is_global_zero:
            show_panel(console, config, run, known, data, task, total_steps=length.steps, resumed_step=step)
        return Job(config, run, data, task, trainer, record, console, run.last if checkpoint else None)


def remembered_data(
    config: DictConfig, checkpoint: dict[str, Any] | None, parent: Parent | None, overrides: Sequence[str] = ()
) -> dict[str, Any] | None:
    """What the data of the run that this one goes on from, or begins with, keeps: normalisation, tokenizer.

    Raises:
        ConfigError: If another tokenizer was typed.
    """
    if checkpoint is not None:
        state = checkpoint["epochal"]["data"]
        if reserves_others(state) or config.init_from is not None or published.source_of(config):
            return state
    state = parent.data if parent is not None else published.data_state(config)
    check_tokenizer(config, state, overrides)
    return state


def make_network(
    config: DictConfig, data: DataModule, parent: Parent | None, console: Console, *, fresh: bool
) -> nn.Module:
    """The network with the weights that training begins with: random, another run's, or published ones.

    Args:
        fresh: Whether no checkpoint of this run follows, whose weights would replace them.
    """
    model = make_model(config, *data.specs(data.learns))
    if parent is not None:
        console.print(
            verbatim(load_matching_weights(model, parent, config, data.specs(data.learns)[1])), soft_wrap=True
        )
    published.load(model, config, data, data.specs(data.learns)[1], console, fresh=fresh)
    adapt(model, config)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if narrow := [convolution for convolution in convolutions if is_narrow(convolution)]:
        for convolution in narrow:
            convolution.register_forward_pre_hook(in_usual_layout)
    elif config.channels_last and convolutions:
        model = model.to(memory_format=torch.channels_last)
    return model


def is_narrow(convolution: nn.Conv2d) -> bool:
    """Whether torch 2.14 writes beyond its memory in the gradient of a convolution in channels_last, on CPUs with AVX2: it is
    1x1, has a stride, and reads fewer than eight channels."""
    strided = convolution.kernel_size == (1, 1) and convolution.stride != (1, 1)
    return strided and convolution.in_channels < SAFE_CHANNELS


def in_usual_layout(convolution: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """A hook: pictures of one channel may make all that follows channels_last, whatever the layout of the weights."""
    return (inputs[0].clone(memory_format=torch.contiguous_format),)


def check_data(config: DictConfig, data: DataModule, run: Run, checkpoint: dict[str, Any] | None) -> None:
    """Raises ConfigError if the data changed since a run began."""
    if trained_on(run, checkpoint) not in (None, data.fingerprint):
        raise ConfigError(
            f"The data of dataset={config.dataset.name} changed since {run.folder.name} began; start anew."
        )


@contextmanager
def opened(run: Run, *, fresh: bool) -> Iterator[Run]:
    """A run that is about to start; if it cannot, its folder is removed again, or released where it was there before."""
    try:
        yield run
    except BaseException as error:
        sentence = run.explained(error) if isinstance(error, OSError) else None
        if fresh and rank() == 0:
            run.discard()
        else:
            run.release()
        if sentence is not None:
            raise sentence from error
        raise


def make_record(
    config: DictConfig,
    run: Run,
    data: DataModule,
    task: Task,
    known: dict[str, Any],
    length: Length,
    *,
    resumed_step: int,
) -> Record:
    """Writes the run's own files: metrics, summary, checkpoints, and the byte pairs that were learned."""
    tokenizer = getattr(data, "tokenizer", None)
    if isinstance(tokenizer, BytePairs) and rank() == 0:
        between = bool(data.state().get("special_tokens"))
        write_atomically(run.folder / "tokenizer.json", to_huggingface(tokenizer, special_tokens=between))
    logger = RunLogger(run, length=length, batch_size=config.dataset.batch_size)
    checkpoints = Checkpoints(
        run,
        every=config.callbacks.checkpoint_every,
        reports=task.reports,
        extra=lambda: {
            "config": plain(config),
            "data": data.state(),
            "data_fingerprint": data.fingerprint,
            "specs": [to_plain(spec) for spec in data.specs(data.learns)],
            **({"networks": known["networks"]} if "networks" in known else {}),
        },
    )
    return Record(run, logger, checkpoints, known, total_steps=length.steps, resumed_step=resumed_step)


def known_networks(run: Run | None, checkpoint: dict[str, Any] | None) -> dict[str, Any] | None:
    """The records of the frozen networks of a run that is resumed."""
    kept = checkpoint["epochal"].get("networks") if checkpoint is not None else None
    return kept or (run.summary().get("networks") if run is not None else None)


def recorded(networks: Mapping[str, Frozen]) -> dict[str, Any]:
    """What `summary.json` and checkpoints hold of frozen networks."""
    return {"networks": {name: frozen.record() for name, frozen in networks.items()}} if networks else {}


def trained_parameters(model: nn.Module) -> dict[str, int]:
    """How many parameters are trained, where some are not."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {} if all(p.requires_grad for p in model.parameters()) else {"trained_parameters": trained}


def known_values(
    config: DictConfig,
    run: Run,
    data: DataModule,
    model: nn.Module,
    parent: Parent | None,
    *,
    flops: dict[str, Any],
    wandb_id: str | None,
) -> dict[str, Any]:
    """What `summary.json` holds from the start."""
    known = {
        "model": config.model.name,
        "dataset": config.dataset.name,
        "task": config.task.name,
        "seed": config.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        **trained_parameters(model),
        **flops,
        "git_commit": git_commit(),
        "versions": {"epochal": epochal.__version__} | {name: version(name) for name in ("torch", "pytorch-lightning")},
        "sizes": data.sizes(),
        "data_fingerprint": data.fingerprint,
        "wandb_id": wandb_id,
    }
    if (kind := getattr(getattr(data, "tokenizer", None), "kind", None)) is not None:  # which need not be the config's
        known["tokenizer"] = kind
    if config.init_from is not None:
        known["init_from"] = str(parent.run.folder) if parent else run.summary().get("init_from")
    return known
