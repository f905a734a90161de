"""Finds every conflict in a config and says so once, in plain words, before any download or training."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from epochal.config.compose import compose, conf_folder
from epochal.config.duration import parse_duration, parse_unit
from epochal.config.instantiate import make_model, resolve, target_class
from epochal.core.errors import ConfigError, did_you_mean

POSITIVE = (
    "dataset.batch_size",
    "dataset.eval_batch_size",
    "dataset.image_size",
    "dataset.context_length",
    "dataset.vocab_size",
    "dataset.min_count",
    "dataset.max_length",
    "trainer.num_nodes",
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip_val",
    "optimizer.lr",
    "callbacks.checkpoint_every",
    "callbacks.early_stopping",
    "log_every",
    "task.samples",
    "task.sample_length",
)
NOT_NEGATIVE = ("dataset.crop_padding", "dataset.cutout", "optimizer.weight_decay", "optimizer.momentum", "seed")
REQUIRED = (  # whatever else may be null, these have a value
    "seed",
    "log_every",
    "output_dir",
    "optimizer.lr",
    "dataset.batch_size",
    "dataset.eval_batch_size",
    "trainer.devices",
    "trainer.accumulate_grad_batches",
)
FRACTIONAL = ("trainer.gradient_clip_val", "optimizer.lr", "optimizer.weight_decay", "optimizer.momentum")
SHARES = ("dataset.validation", "dataset.test", "dataset.train_size")  # a fraction inside (0, 1), or a count


def validate(config: DictConfig) -> None:
    """Raises ConfigError with every conflict that can be seen without the data."""
    conflicts = list(_conflicts(config))
    if conflicts:
        raise ConfigError("\n".join(conflicts))


def _conflicts(config: DictConfig) -> Iterator[str]:
    for key in REQUIRED:
        if OmegaConf.select(config, key) is None:
            yield f"{key} must have a value."
    yield from numbers(config)
    if config.get("budget") is not None and config.get("experiment") is None:
        yield f"budget={config.budget} is the size of an experiment; choose one, or leave it out: duration=5epochs is a run's."
    threads = config.get("threads", "auto")
    if threads != "auto" and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        yield f"threads={threads} must be auto, or a whole number above zero."
    try:
        parse_duration(config.duration)
    except ConfigError as error:
        yield str(error)
    try:
        model, data = target_class(config.model._target_), target_class(config.dataset._target_)
    except ConfigError as error:
        yield str(error)
        return
    if wrong := list(roles(config)):
        yield from wrong
        return
    if data.yields in model.reads and set(data.tasks) & set(
        model.tasks
    ):  # else the model's own options of the data are among the keys
        known = inspect.signature(data).parameters
        for key in config.dataset:
            if key not in known and key != "_target_":
                yield f"There is no key dataset.{key}.{did_you_mean(str(key), known)}"
    if config.get("init_from") is not None and config.model.get("pretrained"):
        yield "init_from and model.pretrained=true both choose the weights to begin with; leave one out."
    yield from _pair(config, model, data)
    yield from _model(config, model, data)
    yield from _task(config, model)
    yield from _optimizer(config)
    yield from _trainer(config)
    if config.output_dir is not None:
        folder = Path(str(config.output_dir)).absolute()
        parent = next(p for p in (folder, *folder.parents) if p.exists())
        if not parent.is_dir():
            yield f"output_dir={config.output_dir} cannot be made: {parent} is a file."
        elif not os.access(parent, os.W_OK):
            yield f"output_dir={config.output_dir} cannot be written; choose another with output_dir=<folder>."


def roles(config: DictConfig) -> Iterator[str]:
    """What is no model, data set or task, though its `_target_` may be a fine class of another kind."""
    for group, fact in (("model", "reads"), ("dataset", "yields"), ("task", "reports")):
        target = config[group].get("_target_")
        if target is not None and not hasattr(target_class(target), fact):
            yield f"{group}._target_={target} is no {group}."


def numbers(config: DictConfig) -> Iterator[str]:
    """Sizes that are none."""
    for key in (*POSITIVE, *NOT_NEGATIVE):
        value = OmegaConf.select(config, key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{key}={value} is not a number."
        elif value < 0 or (value == 0 and key in POSITIVE):
            yield f"{key}={value} must be {'above zero' if key in POSITIVE else 'zero or more'}."
        elif isinstance(value, float) and not value.is_integer() and key not in FRACTIONAL:
            yield f"{key}={value} must be a whole number."
    for key in SHARES:
        value = OmegaConf.select(config, key)
        if value is None:
            if (
                not key.endswith("train_size")
                and OmegaConf.select(config, "dataset")
                and key.split(".")[1] in config.dataset
            ):
                yield f"{key} must have a value."
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{key}={value} is neither a count nor a fraction."
        elif value <= 0 or (
            isinstance(value, float) and value >= 1 and not (value == 1 and key.endswith("train_size"))
        ):
            yield f"{key}={value} must be a fraction between 0 and 1, or a count of one or more."
    ema = OmegaConf.select(config, "callbacks.ema")
    if ema is not None and not (isinstance(ema, int | float) and 0 < ema < 1):
        yield f"callbacks.ema={ema} must be between 0 and 1, e.g. 0.999."


def _pair(config: DictConfig, model: Any, data: Any) -> Iterator[str]:
    if data.yields not in model.reads:
        reads, gives = _word(model.reads), _word((data.yields,))
        yield (
            f"model={config.model.name} reads {reads}, but dataset={config.dataset.name} yields {gives}. "
            f"Models that read {gives}: {', '.join(_models_that(lambda m: data.yields in m.reads))}."
        )
        return
    common = [task for task in data.tasks if task in model.tasks]
    if not common:
        yield (
            f"model={config.model.name} learns {', '.join(model.tasks)}, but dataset={config.dataset.name} teaches "
            f"{', '.join(data.tasks)}. Models for it: "
            f"{', '.join(_models_that(lambda m: data.yields in m.reads and set(data.tasks) & set(m.tasks)))}."
        )
    elif config.task.name != "auto" and config.task.name not in common:
        yield (
            f"task={config.task.name} does not fit model={config.model.name} on dataset={config.dataset.name}; "
            f"what would: {', '.join(common)}, or auto."
        )
    if "adversarial" in common[:1] and config.trainer.accumulate_grad_batches != 1:
        yield "trainer.accumulate_grad_batches does not go with a GAN, which steps two optimisers a batch."
    if "adversarial" in common[:1] and str(config.trainer.precision).startswith("16"):
        yield f"trainer.precision={config.trainer.precision} scales one optimiser's loss, a GAN has two; bf16-mixed works."


def _model(config: DictConfig, model: Any, data: Any) -> Iterator[str]:
    """Builds it without memory for likely data, so that wrong arguments are found before any download."""
    import torch

    common = [task for task in data.tasks if task in model.tasks]
    if data.yields not in model.reads or not common:
        return
    task = config.task.name if config.task.name in common else common[0]
    try:
        likely = data.example_specs(config.dataset, task)
    except ConfigError as error:
        yield str(error)
        return
    problem = None
    for inputs, outputs in likely:
        try:
            with torch.device("meta"):
                make_model(config, inputs, outputs)
            return
        except ConfigError as error:
            problem = problem or str(error)
    if problem:
        yield problem


def _task(config: DictConfig, model: Any) -> Iterator[str]:
    """Makes the objective around a network of one weight, so that wrong options are found before any download."""
    import torch

    if config.task.get("_target_") is None:  # auto
        return
    options = {str(k): v for k, v in config.task.items() if k not in ("name", "_target_")}
    try:
        resolve(config.task._target_)(
            model=torch.nn.Linear(1, 1), optimizer=None, scheduler=None, total_steps=1, **options
        )
    except (TypeError, ValueError) as error:
        yield f"task={config.task.name}: {error}"
    fed = config.task.get("teacher_forcing", 1)
    if fed != 1 and "teacher_forcing" not in inspect.signature(model.forward).parameters:
        yield f"task.teacher_forcing={fed} needs a network that reads its own guesses: seq2seq; {config.model.name} reads the truth."


def _optimizer(config: DictConfig) -> Iterator[str]:
    """Makes both for a network of one weight, so that wrong arguments are found before any download."""
    import torch

    arguments: dict[str, dict[str, Any]] = {}
    for group in ("optimizer", "scheduler"):
        known = inspect.signature(resolve(config[group]._target_)).parameters
        plain = OmegaConf.to_container(config[group], resolve=True)
        arguments[group] = {str(k): v for k, v in plain.items() if k in known}  # type: ignore[union-attr]
    group, made = "optimizer", torch.nn.Linear(1, 1)
    try:
        optimizer = resolve(config.optimizer._target_)(made, **arguments["optimizer"])
        group = "scheduler"
        resolve(config.scheduler._target_)(optimizer, 100, **arguments["scheduler"])
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        if OmegaConf.select(config, "optimizer.lr") is not None:  # that one is told
            yield f"{group}={config[group].name}: {error}."


def _trainer(config: DictConfig) -> Iterator[str]:
    import torch

    if (
        config.trainer.accelerator in ("gpu", "cuda")
        and not torch.cuda.is_available()
        and not torch.backends.mps.is_available()
    ):
        yield f"trainer={config.trainer.name} wants a GPU and there is none here; trainer=cpu or trainer=default needs none."
    if config.trainer.devices == 0:
        yield "trainer.devices=0 must be above zero."
    if config.trainer.strategy == "fsdp" and config.trainer.gradient_clip_val:
        yield "trainer=fsdp cannot clip gradients by their norm; add trainer.gradient_clip_val=null."
    alone = config.trainer.devices in (1, "1") and config.trainer.num_nodes == 1
    if not alone and parse_unit(config.duration) == "minute":
        yield f"duration={config.duration} is measured on one device; with several give epochs, steps or examples."


def _models_that(fit: Any) -> list[str]:
    names = []
    for file in sorted((conf_folder() / "model").glob("*.yaml")):
        try:
            text = file.read_text()
            while match := re.search(r"^defaults:\s*\n\s*- (\w+)\s*$", text, re.MULTILINE):  # plain stands on resnet
                text = (file.parent / f"{match[1]}.yaml").read_text()
            target = re.search(r"_target_: (\S+)", text)
            if target and fit(target_class(target[1])):
                names.append(file.stem)
        except (ConfigError, OSError):
            continue
    return names


def _word(kinds: tuple[type, ...]) -> str:
    return " and ".join(kind.__name__.lower() for kind in kinds)


def check_values(config: DictConfig, overrides: list[str], config_name: str, config_path: Path) -> None:
    """Raises ConfigError where a number was asked for by the YAML's default and something else was given."""
    groups = sorted(p.name for p in config_path.iterdir() if p.is_dir())
    given = [
        o.split("=")[0].lstrip("+") for o in overrides if o.split("=")[0] not in groups and not o.startswith(("+", "~"))
    ]
    if not given:
        return
    defaults = _defaults(tuple(o for o in overrides if o.split("=")[0] in groups), config_name, config_path)
    wrong = []
    for key in given:
        default, value = OmegaConf.select(defaults, key), OmegaConf.select(config, key)
        if default is None or value is None:
            continue
        if isinstance(default, bool):
            if not isinstance(value, bool):
                wrong.append(f"{key}={value} must be true or false.")
        elif isinstance(default, int | float) and isinstance(value, str | bool | DictConfig):
            wrong.append(f"{key}={value} is not a number.")
        elif isinstance(default, int) and isinstance(value, float) and default > 1 and not value.is_integer():
            wrong.append(f"{key}={value} must be a whole number.")
    if wrong:
        raise ConfigError("\n".join(wrong))


@functools.cache
def _defaults(choices: tuple[str, ...], config_name: str, config_path: Path) -> DictConfig:
    return compose(list(choices), config_name, config_path)
