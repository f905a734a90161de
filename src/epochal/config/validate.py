"""Finds every conflict in a config and says so once, in plain words, before any download or training."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from epochal.config.compose import choices, plain
from epochal.config.duration import parse_duration, parse_unit
from epochal.config.finalize import task_config
from epochal.config.instantiate import make_model, resolve, target_class
from epochal.config.objectives import common_tasks, target_of, tasks_of_data, tasks_of_model
from epochal.config.schema import HALF, missing_values, unknown_arguments, unknown_children, wrong_numbers
from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.files import expanded
from epochal.core.multirun import typed_alone

CALLBACK_OPTIONS = ("checkpoint_every", "early_stopping", "explain", "ema")
LORA = {"alpha": 16, "targets": ["qkv", "proj"]}  # as in conf/train.yaml

THREADS = 1024  # of many more torch aborts the process
TRAINER = "pytorch_lightning.Trainer"
LAUNCHERS = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "MASTER_ADDR")  # variables of those that start several processes


def validate(config: DictConfig) -> None:
    """Raises ConfigError with every conflict that can be seen without the data."""
    conflicts = list(_conflicts(config))
    if conflicts:
        raise ConfigError("\n".join(conflicts))


def check_effect(config: DictConfig, overrides: Sequence[str]) -> None:
    """Raises ConfigError for options that were typed and would not be read, because of other options or of the data.

    Only of a single run: in a grid or a sweep of W&B the options that go with one of its choices are typed for all.

    Args:
        config: As composed.
        overrides: As typed.
    """
    keys = [key.partition(".") for key in sorted(typed_alone(overrides))]
    typed = [(group, option) for group, _, option in keys if group in ("model", "dataset", "task") and option]
    if not typed:
        return
    try:
        nodes = {"model": config.model, "dataset": config.dataset, "task": task_config(config)}
        owners = {group: target_class(node._target_) for group, node in nodes.items()}
    except (ConfigError, IndexError):
        return  # `validate` says so
    wrong = [line for group, option in typed for line in unread_option(group, option, nodes[group])]
    wrong += [
        line for group, option in typed for line in _of_other_data(group, option, owners[group], owners["dataset"])
    ]
    if wrong:
        raise ConfigError("\n".join(wrong))


def unread_option(group: str, option: str, node: DictConfig) -> Iterator[str]:
    """A sentence if the class of a group never reads an option, or another one has a value with which it is not read."""
    owner = target_class(node._target_)
    if any(option in vars(base).get("unread", ()) for base in owner.__mro__):
        yield f"{group}.{option} is not read by {group}={node.name}: leave it out."
    for condition in _declared(owner, "only_with").get(option, ()):
        if condition.option not in node or condition.holds(node[condition.option]):
            continue
        other = f"{group}.{condition.option}"
        right = " or ".join(map(_typed, condition.values))
        yield f"{group}.{option} is not read with {other}={_typed(node[condition.option])}" + (
            f"; it goes with {other}={right}." if right else ": leave one of the two out."
        )


def _of_other_data(group: str, option: str, owner: Any, data: Any) -> Iterator[str]:
    """A sentence if the option is only for data of other kinds."""
    kinds = _declared(owner, "only_for").get(option)
    if kinds is not None and getattr(data, "yields", None) not in kinds:
        yield f"{group}.{option} is not read here, as the data are no {' or '.join(k.__name__.lower() for k in kinds)}: leave it out."


def _declared(owner: Any, name: str) -> dict[str, tuple[Any, ...]]:
    """What a class and its parents declare by this name, of each option."""
    bases = [vars(base).get(name, {}) for base in reversed(owner.__mro__)]
    return {option: found for declared in bases for option, found in declared.items()}


def _typed(value: Any) -> str:
    """A value as one types it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _conflicts(config: DictConfig) -> Iterator[str]:
    yield from missing_values(config)
    yield from wrong_numbers(config)
    yield from _run_options(config)
    try:
        model, data = target_class(config.model._target_), target_class(config.dataset._target_)
    except ConfigError as error:
        yield str(error)
        return
    if wrong := list(wrong_roles(config)):
        yield from wrong
        return
    fits = data.yields in model.reads and common_tasks(data, model)
    if fits:  # else the model's own options of the data are among the keys
        yield from unknown_arguments(config, "dataset")
    yield from _pair(config, model, data)
    if fits and not (unknown := list(unknown_arguments(config, "model"))):
        network, problem = _model(config, model, data)
        if problem:
            yield problem
        yield from _task(config, model, data, network)
    elif fits:
        yield from unknown
    yield from _optimizer(config)
    yield from _trainer(config)
    yield from unknown_children(config, "callbacks", CALLBACK_OPTIONS)
    yield from _loggers(config)


def _run_options(config: DictConfig) -> Iterator[str]:
    """Conflicts of what belongs to no group."""
    if config.get("budget") is not None and config.get("experiment") is None:
        yield f"budget={config.budget} is the size of an experiment; choose one, or leave it out: duration=5epochs is a run's."
    threads = config.get("threads", "auto")
    if threads != "auto" and (isinstance(threads, bool) or not isinstance(threads, int) or not 0 < threads <= THREADS):
        yield f"threads={threads} must be auto, or a whole number above zero and at most {THREADS}."
    try:
        parse_duration(config.duration)
    except ConfigError as error:
        yield str(error)
    yield from _beginnings(config)
    if config.output_dir is not None:
        folder = expanded(str(config.output_dir)).absolute()
        parent = next(p for p in (folder, *folder.parents) if os.path.exists(p))  # false for a name too long
        if not parent.is_dir():
            yield f"output_dir={config.output_dir} cannot be made: {parent} is a file."
        elif not os.access(parent, os.W_OK):
            yield f"output_dir={config.output_dir} cannot be written; choose another with output_dir=<folder>."


def _beginnings(config: DictConfig) -> Iterator[str]:
    """Conflicts of the weights to begin with: networks that the task has not, two sources, or none where one is needed."""
    given, needs = config.get("init_from"), () if config.task.name == "auto" else task_needs(config)
    runs = list(map(str, given)) if isinstance(given, DictConfig) else ["policy"] if given is not None else []
    if unknown := [name for name in runs if name not in ("policy", *needs)]:
        there = ", ".join(("policy", *needs))
        near = did_you_mean(unknown[0], ("policy", *needs))
        whose = "this task" if config.task.name == "auto" else f"task={config.task.name}"
        yield f"init_from.{unknown[0]} is no network of {whose}.{near} There are: {there}."
    elif missing := [name for name in ("policy", *needs) if needs and name not in (*runs, "reference")]:
        others = "".join(f", {name}: <run>" for name in needs if name != "reference")
        right = f"{{policy: <run>{others}}}" if others else "<run>"
        yield f"task={config.task.name} has no {missing[0]} to begin with; give init_from={right}."
    if given is not None and config.model.get("pretrained"):
        yield "init_from and model.pretrained both choose the weights to begin with; leave one out."
    yield from _wrong_lora(config, begins=given is not None or bool(config.model.get("pretrained")))


def _wrong_lora(config: DictConfig, *, begins: bool) -> Iterator[str]:
    """What is wrong with finetune.lora; begins: whether there are weights to begin with."""
    if "finetune" not in config:  # of a run of before
        return
    lora = config.finetune.get("lora") if isinstance(config.finetune, DictConfig) else None
    if not isinstance(lora, DictConfig):
        key = "finetune.lora" if isinstance(config.finetune, DictConfig) else "finetune"
        yield f"{key}={_typed(OmegaConf.select(config, key))} is no choice; LoRA is finetune.lora.rank=8, and without it all weights are tuned."
        return
    rank = lora.get("rank")
    if rank is not None:
        yield from _wrong_sizes(lora)
    if rank is None and (typed := [name for name, usual in LORA.items() if lora.get(name, usual) != usual]):
        yield f"finetune.lora.{typed[0]} goes with finetune.lora.rank, e.g. finetune.lora.rank=8."
    if rank is not None and not begins:
        yield (
            f"finetune.lora.rank={rank} leaves the network's own weights as they begin, which here is at random; give "
            "init_from=<run> or model.pretrained=<weights>."
        )
    if rank is not None and "adversarial" in getattr(target_class(config.model._target_), "heads", ()):
        yield "finetune.lora does not go with a GAN, of whose two networks each must have weights to train."


def _wrong_sizes(lora: DictConfig) -> Iterator[str]:
    """What is wrong with the values of finetune.lora."""
    rank, alpha, targets = (lora.get(name) for name in ("rank", "alpha", "targets"))
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        yield f"finetune.lora.rank={_typed(rank)} must be a whole number, 1 or more."
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        yield f"finetune.lora.alpha={_typed(alpha)} must be a number above 0."
    if not isinstance(targets, ListConfig) or not targets or not all(isinstance(name, str) for name in targets):
        yield f"finetune.lora.targets={_typed(targets)} must be a list of names of linear layers, e.g. [qkv,proj]."


def task_needs(config: DictConfig) -> tuple[str, ...]:
    """The names of the frozen networks that the task has beside the one that it trains."""
    return tuple(getattr(target_class(config.task._target_), "needs", ()))


def wrong_roles(config: DictConfig) -> Iterator[str]:
    """A sentence for each `_target_` that is no model, data set or task, though it may be a fine class of another kind."""
    for group, attribute in (("model", "reads"), ("dataset", "yields"), ("task", "reports")):
        target = config[group].get("_target_")
        if target is not None and not hasattr(target_class(target), attribute):
            yield f"{group}._target_={target} is no {group}."


def _pair(config: DictConfig, model: Any, data: Any) -> Iterator[str]:
    if data.yields not in model.reads:
        reads, gives = _word(model.reads), _word((data.yields,))
        yield (
            f"model={config.model.name} reads {reads}, but dataset={config.dataset.name} yields {gives}. "
            f"Models that read {gives}: {', '.join(_models_that(lambda m: data.yields in m.reads))}."
        )
        return
    common = common_tasks(data, model)
    if not common:
        yield (
            f"model={config.model.name} learns {', '.join(tasks_of_model(model))}, but dataset={config.dataset.name} teaches "
            f"{', '.join(tasks_of_data(data))}. Models for it: "
            f"{', '.join(_models_that(lambda m: data.yields in m.reads and bool(common_tasks(data, m))))}."
        )
    elif config.task.name != "auto" and config.task.name not in common:
        yield (
            f"task={config.task.name} does not fit model={config.model.name} on dataset={config.dataset.name}; "
            f"what would: {', '.join(common)}, or auto."
        )
    task = config.task.name if config.task.name in common else (common or [""])[0]
    manual = bool(common) and target_class(target_of("task", task)).manual_optimization
    what, steps = ("a GAN", "two") if task == "adversarial" else (f"task={task}", "its")
    if manual and config.trainer.accumulate_grad_batches != 1:
        yield f"trainer.accumulate_grad_batches does not go with {what}, which steps {steps} optimisers a batch."
    if manual and str(config.trainer.precision) in ("16", "16-mixed"):
        yield f"trainer.precision={config.trainer.precision} scales one optimiser's loss, {what} has {'two' if steps == 'two' else 'its own'}; bf16-mixed works."


def _model(config: DictConfig, reader: Any, data: Any) -> tuple[Any, str | None]:
    """Builds it without memory for likely data, so that wrong arguments are found before any download.

    Returns:
        The network and what is wrong with it; None for each that there is not.
    """
    import torch

    common = common_tasks(data, reader)
    name = config.task.name if config.task.name in common else common[0]
    task = target_class(target_of("task", name))
    try:
        examples = data.example_specs(config.dataset, task.target)
    except ConfigError as error:
        return None, str(error)
    problem = None
    for inputs, outputs in examples:
        try:
            with torch.device("meta"):
                model = make_model(config, inputs, outputs, head=task.head)
            return model, _too_large(config.model.name, sum(p.numel() for p in model.parameters()))
        except ConfigError as error:
            overflow = "Overflow when unpacking" in str(error)  # torch's own, of two lines
            problem = problem or (f"model={config.model.name} is too large." if overflow else str(error))
        except (RuntimeError, OverflowError) as error:  # torch cannot even count so many bytes
            problem = problem or f"model={config.model.name} is too large: {str(error).splitlines()[0]}."
    return None, problem


def _too_large(name: str, parameters: int) -> str | None:
    """A sentence if the weights alone take more than this machine's memory, which ends in an abort or a kill."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:  # Windows
        return None
    needed, there = 4 * parameters, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed <= there:
        return None
    return f"model={name} of this size has {parameters:,} parameters, {needed / 1e9:,.0f} GB; this machine has {there / 1e9:,.0f} GB."


def _task(config: DictConfig, model: Any, data: Any, network: Any) -> Iterator[str]:
    """Makes the objective around a network without memory, so that wrong options are found before any download.

    Args:
        config: Of the run.
        model, data: The classes.
        network: As `_model` made it; None: it cannot be made, and one of one weight stands for it.
    """
    import torch

    if config.task.name not in ("auto", *common_tasks(data, model)):
        return  # the pair says so
    task = task_config(config)
    if unknown := list(unknown_arguments(OmegaConf.create({"task": task}), "task")):
        yield from unknown
        return
    options = {str(k): v for k, v in task.items() if k not in ("name", "_target_", "metrics")}
    try:
        network = torch.nn.Linear(1, 1) if network is None else network
        resolve(task._target_)(model=network, optimizer=None, scheduler=None, total_steps=1, **options)
    except (TypeError, ValueError) as error:
        yield f"task={task.name}: {error}"
    judge = task.get("judge")
    if judge not in (None, *choices().get("model", [])) and not (expanded(str(judge)) / "config.yaml").is_file():
        yield f"task.judge={judge} is no run's folder; give that of a classifier of texts, or the name of its model."
    features = task.get("features")
    names = (None, "inception", *choices().get("model", []))
    if features not in names and not (expanded(str(features)) / "config.yaml").is_file():
        yield f"task.features={features} is no run's folder; give that of a classifier, or the name of its model, or inception."


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
            yield f"{group}={config[group].name}: {str(error).rstrip('.')}."


def _trainer(config: DictConfig) -> Iterator[str]:
    import torch

    yield from unknown_arguments(config, "trainer")
    if (
        config.trainer.accelerator in ("gpu", "cuda")
        and not torch.cuda.is_available()
        and not torch.backends.mps.is_available()
    ):
        yield f"trainer={config.trainer.name} wants a GPU and there is none here; trainer=cpu or trainer=default needs none."
    yield from wrong_precision(config)
    if config.trainer._target_ != TRAINER:
        yield f"trainer._target_={config.trainer._target_} is read by nothing: it is always {TRAINER}."
    if any(way in str(config.trainer.strategy) for way in ("spawn", "fork", "notebook")):
        yield f"trainer.strategy={config.trainer.strategy} copies a process that has begun; ddp starts others, from anywhere."
    if config.trainer.limit_val_batches == 0 and OmegaConf.select(config, "callbacks.early_stopping") is not None:
        yield "callbacks.early_stopping needs validations, and trainer.limit_val_batches=0 leaves none."
    if config.trainer.devices == 0:
        yield "trainer.devices=0 must be above zero."
    if config.trainer.num_nodes != 1 and not any(key in os.environ for key in LAUNCHERS):
        yield (
            f"trainer.num_nodes={config.trainer.num_nodes} needs a launcher that starts a process on each of them, "
            "such as torchrun or srun; without one this process would wait for the others for ever."
        )
    if config.trainer.strategy == "fsdp" and config.trainer.gradient_clip_val:
        yield "trainer=fsdp cannot clip gradients by their norm; add trainer.gradient_clip_val=null."
    alone = config.trainer.devices in (1, "1") and config.trainer.num_nodes == 1
    if not alone and parse_unit(config.duration) == "minute":
        yield f"duration={config.duration} is measured on one device; with several give epochs, steps or examples."


def wrong_precision(config: DictConfig) -> Iterator[str]:
    """Sentences about a `trainer.precision` that cannot be had here, or that Lightning would change without a word."""
    import torch

    precision = str(config.trainer.precision)
    on_cpu = config.trainer.accelerator == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if precision == "16-true":
        yield "trainer.precision=16-true loses small gradients and overflows, as nothing scales the loss; bf16-true does not."
    elif precision in ("16", "16-mixed") and on_cpu:
        yield f"trainer.precision={precision} needs a GPU; on a CPU there are 32-true, bf16-mixed, bf16-true and 64-true."
    elif precision.startswith("transformer-engine") and (on_cpu or find_spec("transformer_engine") is None):
        yield f"trainer.precision={precision} needs an NVIDIA GPU and the package transformer_engine."
    elif precision in HALF and OmegaConf.select(config, "callbacks.ema") is not None:
        yield (
            f"callbacks.ema does not go with trainer.precision={precision}: an average of so few digits stands still. "
            "bf16-mixed keeps weights in single precision."
        )


def _loggers(config: DictConfig) -> Iterator[str]:
    """Unknown keys, or else what a logger itself finds wrong with its options."""
    if unknown := list(unknown_children(config, "logger")):
        yield from unknown
        return
    for child in config.logger.values():
        if isinstance(child, DictConfig) and (check := getattr(target_class(child._target_), "check_options", None)):
            try:
                check(plain(child))
            except ConfigError as error:
                yield str(error)


def _models_that(fit: Callable[[Any], bool]) -> list[str]:
    """The models of `conf/` whose class fits."""
    names = []
    for name in choices().get("model", []):
        try:
            found = fit(target_class(target_of("model", name)))
        except (ConfigError, OSError):
            continue
        if found:
            names.append(name)
    return names


def _word(kinds: tuple[type, ...]) -> str:
    return " and ".join(kind.__name__.lower() for kind in kinds)
