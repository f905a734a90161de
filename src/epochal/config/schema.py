"""Types and ranges of config values, and the keys that nothing reads.

Hydra's structured configs would check types too, but neither ranges nor numbers that may also be fractions, and name the
dataclass instead of the key that was typed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from epochal.config.compose import choices, compose, own_folders
from epochal.config.instantiate import parameters
from epochal.config.messages import TRAINER_SETS, other_option, set_by_epochal
from epochal.core.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Field:
    """What a number may be; null is allowed unless it is required."""

    whole: bool = True
    zero: bool = False  # may be zero; never negative
    required: bool = False
    most: float = 2**31 - 1  # beyond it torch aborts, or counts wrongly


@dataclass(frozen=True)
class Part:
    """How much of a data set: a fraction in (0, 1), or a count of rows."""

    all: bool = False  # 1.0 and null mean all of it


SEED = 2**32 - 1  # the largest that NumPy takes
FIELDS: dict[str, Field] = {
    "seed": Field(zero=True, required=True, most=SEED),
    "dataset.split_seed": Field(zero=True, most=SEED),
    "log_every": Field(required=True),
    "dataset.batch_size": Field(required=True),
    "dataset.eval_batch_size": Field(required=True),
    "dataset.image_size": Field(),
    "dataset.context_length": Field(),
    "dataset.vocab_size": Field(),
    "dataset.min_count": Field(),
    "dataset.max_length": Field(),
    "dataset.crop_padding": Field(zero=True),
    "dataset.cutout": Field(zero=True),
    "task.samples": Field(),
    "task.sample_length": Field(),
    "optimizer.lr": Field(whole=False, required=True),
    "optimizer.weight_decay": Field(whole=False, zero=True),
    "optimizer.momentum": Field(whole=False, zero=True),
    "trainer.num_nodes": Field(),
    "trainer.accumulate_grad_batches": Field(required=True),
    "trainer.gradient_clip_val": Field(whole=False),
    "trainer.check_val_every_n_epoch": Field(),
    "trainer.val_check_interval": Field(whole=False),
    "trainer.limit_train_batches": Field(whole=False),
    "trainer.limit_val_batches": Field(whole=False, zero=True),
    "trainer.limit_test_batches": Field(whole=False, zero=True),
    "callbacks.checkpoint_every": Field(),
    "callbacks.early_stopping": Field(),
}
PARTS: dict[str, Part] = {"dataset.validation": Part(), "dataset.test": Part(), "dataset.train_size": Part(all=True)}
REQUIRED = ("output_dir", "trainer.devices", *(key for key, field in FIELDS.items() if field.required))

HALF, MIXED = ("16-true", "bf16-true"), ("16-mixed", "bf16-mixed", "16", "bf16")  # values of trainer.precision

# arguments of the trainer that do nothing for a test
OF_TRAINING = (
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "fast_dev_run", "overfit_batches"),
    *("limit_train_batches", "limit_val_batches", "val_check_interval", "check_val_every_n_epoch", "log_every_n_steps"),
    *("num_sanity_val_steps", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
)
# and options of data: of batches and augmentation, and of a vocabulary, which is the run's
OF_TRAINING_DATA = ("batch_size", "train_size", "crop_padding", "flip", "cutout")
OF_VOCABULARY = ("tokenizer", "vocab_size", "min_count")
NOT_ARGUMENTS = ("name", "_target_", "_partial_", "interval")  # keys of a group that its target is not given


def is_mixed(precision: Any) -> bool:
    """Whether `trainer.precision` keeps weights in single precision and computes in half; the short names mean that too."""
    return str(precision) in MIXED


def missing_values(config: DictConfig) -> Iterator[str]:
    """A sentence for each key that must have a value and is null."""
    for key in REQUIRED:
        if OmegaConf.select(config, key) is None:
            yield f"{key} must have a value."


def wrong_numbers(config: DictConfig) -> Iterator[str]:
    """A sentence for each number that is out of its range."""
    for key, field in FIELDS.items():
        if (value := OmegaConf.select(config, key)) is not None and (wrong := _wrong_number(value, field)):
            yield f"{key}={value} {wrong}."
    for key, part in PARTS.items():
        yield from _wrong_part(config, key, part)
    ema = OmegaConf.select(config, "callbacks.ema")
    if ema is not None and not (isinstance(ema, int | float) and 0 < ema < 1):
        yield f"callbacks.ema={ema} must be between 0 and 1, e.g. 0.999."


def whole_numbers(config: DictConfig) -> list[tuple[str, int]]:
    """The keys, and values, of whole numbers that were typed with a fraction or an exponent: 64.0, 1e3."""
    found = ((key, OmegaConf.select(config, key)) for key, field in FIELDS.items() if field.whole)
    return [(key, int(value)) for key, value in found if isinstance(value, float) and value.is_integer()]


def _wrong_number(value: Any, field: Field) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "is not a number"
    if field.most == SEED:
        right = isinstance(value, int) and 0 <= value <= SEED
        return None if right else f"must be a whole number from 0 to {SEED}"
    if value < 0 or (value == 0 and not field.zero):
        return f"must be {'zero or more' if field.zero else 'above zero'}"
    if field.whole and isinstance(value, float) and not value.is_integer():
        return "must be a whole number"
    return f"must be at most {field.most}" if field.whole and value > field.most else None


def _wrong_part(config: DictConfig, key: str, part: Part) -> Iterator[str]:
    value = OmegaConf.select(config, key)
    if value is None:
        if not part.all and OmegaConf.select(config, "dataset") and key.split(".")[1] in config.dataset:
            yield f"{key} must have a value."
    elif isinstance(value, bool) or not isinstance(value, int | float):
        yield f"{key}={value} is neither a count nor a fraction."
    elif value <= 0 or (isinstance(value, float) and value >= 1 and not (value == 1 and part.all)):
        yield f"{key}={value} must be a fraction between 0 and 1, or a count of one or more."


def unknown_arguments(config: DictConfig, group: str) -> Iterator[str]:
    """A sentence for each key of a group that its `_target_` does not take."""
    node = config[group]
    taken = parameters(node._target_)
    for key in map(str, node):
        if key in NOT_ARGUMENTS or (group == "model" and key == "pretrained"):
            continue
        if group == "trainer" and key in TRAINER_SETS:
            yield set_by_epochal(key)
        elif taken is not None and key not in taken:
            known = sorted(name for name in taken if name not in TRAINER_SETS)
            if group in ("model", "task") and (elsewhere := other_option(group, key)):
                yield f"There is no key {group}.{key} in this choice of {group}; {elsewhere} would have it."
            else:
                yield f"There is no key {group}.{key}.{did_you_mean(key, known)}"


def unknown_children(config: DictConfig, group: str, options: Iterable[str] = ()) -> Iterator[str]:
    """A sentence for each key of `callbacks` or `logger` that is neither an option nor something to build."""
    known = set(options)
    for key in map(str, config[group]):
        if key in known:
            continue
        child = config[group][key]
        if not isinstance(child, DictConfig) or "_target_" not in child:
            told = {"callbacks": "a callback", "logger": "a logger"}[group]
            near = did_you_mean(key, [*known, *(choices().get(group, []) if group == "logger" else ())])
            yield f"There is no key {group}.{key}.{near} {told.capitalize()} of your own is {group}.{key}._target_=package.Class."
            continue
        taken = parameters(child._target_)
        for argument in map(str, child):
            if taken is not None and argument not in taken and argument not in NOT_ARGUMENTS:
                yield f"There is no key {group}.{key}.{argument}.{did_you_mean(argument, taken)}"


def check_values(config: DictConfig, overrides: Iterable[str], config_name: str = "train") -> None:
    """Raises ConfigError where a typed value is of another type than the YAML's default, or a typed key is read by nothing."""
    groups = choices()
    typed = [override.split("=")[0] for override in overrides if not override.startswith("~")]
    chosen = tuple(override for override in overrides if override.split("=")[0] in groups)
    values = [key for key in typed if key.lstrip("+") not in groups]
    if not values:
        return
    defaults = _defaults(chosen, config_name, own_folders())
    wrong = [line for key in values for line in _wrong_value(key.lstrip("+"), defaults, config)]
    if config_name == "evaluate":
        few_shot = config.get("shots") is not None and config.get("lm_eval") is None  # whose examples are of train
        read = {"dataset.train_size"} if few_shot else set()
        wrong += [line for key in values if key.lstrip("+") not in read for line in _of_training(key.lstrip("+"))]
    wrong += [line for key in values for line in _unread(key, defaults, config)]
    if wrong:
        raise ConfigError("\n".join(wrong))


def _of_training(key: str) -> Iterator[str]:
    """A sentence for a key that a test does not read."""
    group, _, option = key.rpartition(".")
    if (group in ("", "trainer") and option in OF_TRAINING) or (group == "dataset" and option in OF_TRAINING_DATA):
        yield f"{key} belongs to a training; leave it out, a run is only tested here."
    elif group == "dataset" and option in OF_VOCABULARY:
        yield f"{key} belongs to a training; leave it out, texts are read with the vocabulary of the run."


def _wrong_value(key: str, defaults: DictConfig, config: DictConfig) -> Iterator[str]:
    default, value = OmegaConf.select(defaults, key), OmegaConf.select(config, key)
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{key}={value} is no finite number."
    elif default is None or value is None:
        return
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            yield f"{key}={value} must be true or false."
    elif key == "trainer.devices":  # a number, or auto, or which ones
        if not _devices(value):
            yield f"trainer.devices={value} must be a number of devices, auto, or a list of their numbers, e.g. [0,1]."
    elif isinstance(default, int | float):
        yield from _unlike_number(key, default, value)


def _unlike_number(key: str, default: float, value: Any) -> Iterator[str]:
    if isinstance(value, str | bool | DictConfig | ListConfig):
        yield f"{key}={value} is not a number."
    elif key in PARTS or not FIELDS.get(key, Field()).whole:  # may be a fraction too
        return
    elif isinstance(default, int) and isinstance(value, float) and default > 1 and not value.is_integer():
        yield f"{key}={value} must be a whole number."


def _devices(value: Any) -> bool:
    """Whether Lightning understands `trainer.devices`."""
    if isinstance(value, str):
        return value == "auto" or all(part.strip().isdecimal() for part in value.split(","))
    numbers = list(value) if isinstance(value, ListConfig) else [value]
    least = 0 if isinstance(value, ListConfig) else -1  # -1: all
    return bool(numbers) and all(type(number) is int and number >= least for number in numbers)


def _unread(typed: str, defaults: DictConfig, config: DictConfig) -> Iterator[str]:
    """A sentence for a typed key that would be added to the config, or dropped from it, and never be read."""
    key = typed.lstrip("+")
    group, _, rest = key.partition(".")
    if group in ("optimizer", "scheduler") and rest:
        taken = parameters(config[group]._target_)
        argument = rest.split(".")[0]
        if taken is not None and argument not in taken and argument not in NOT_ARGUMENTS:
            name = config[group].name
            yield f"{group}={name} takes no {argument}.{did_you_mean(argument, sorted(taken))}"
    elif typed.startswith("+") and group not in (*defaults, "hydra", "sweep", "claim", "budgets"):
        yield f"There is no key {key}: nothing reads it.{did_you_mean(key, [str(name) for name in defaults])}"


@functools.cache
def _defaults(chosen: tuple[str, ...], config_name: str, folders: tuple[str, ...]) -> Any:
    return compose(chosen, config_name)
