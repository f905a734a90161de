"""What a network writes about a prompt."""

from __future__ import annotations

import copy
import re

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.panel import Panel
from torch import nn

from epochal.config.instantiate import parameters
from epochal.config.schema import whole_numbers, wrong_numbers
from epochal.config.validate import unread_option
from epochal.core.errors import ConfigError
from epochal.core.format import verbatim
from epochal.tasks import Task
from epochal.tasks.base import AnswersPrompts
from epochal.training.factories import make_task
from epochal.training.features import feature_network

# of a task
OPTIONS = ("temperature", "top_k", "top_p", "sample_length", "samples", "carry_state", "beam_size", "features")


def answering(task: Task) -> AnswersPrompts:
    """The task, if it answers prompts.

    Raises:
        ConfigError: If its network writes no text for another.
    """
    if not isinstance(task, AnswersPrompts):
        learned = re.sub(r"(?<!^)([A-Z])", r"_\1", type(task).__name__).lower()
        raise ConfigError(f"prompt goes with a language model or a translation; this run learned {learned}.")
    return task


def respond(task: Task, prompt: str) -> list[str]:
    """What the network writes: how a text goes on, or its translation.

    Raises:
        ConfigError: If the network writes no text for another, or cannot read the prompt.
    """
    try:
        return answering(task).respond(prompt)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def print_response(task: Task, prompt: str, console: Console) -> None:
    """Prints what the network writes, a panel for each text.

    Raises:
        ConfigError: As `respond`.
    """
    for text in respond(task, prompt):
        title = answering(task).response_name
        console.print(Panel(verbatim(text or "(nothing)"), title=title, title_align="left", border_style="cyan"))


def set_options(config: DictConfig, given: DictConfig) -> None:
    """Sets the options of writing that were given (temperature, top_k, ...) in the config of a run.

    Args:
        config: Of the run; it is changed.
        given: May hold any of `OPTIONS`; None leaves the run's own.

    Raises:
        ConfigError: If the run's task has no such option, or the value is out of range.
    """
    options = {key: given[key] for key in OPTIONS if given.get(key) is not None}
    if not options:
        return
    if options.get("beam_size", 1) != 1 and (drawn := options.keys() & {"temperature", "top_k", "top_p", "samples"}):
        raise ConfigError(f"beam_size={options['beam_size']} draws nothing; leave {' and '.join(sorted(drawn))} out.")
    known = parameters(config.task._target_) or set(options)
    if wrong := next((key for key in options if key not in known), None):
        raise ConfigError(f"{wrong} does not go with this run, which learned {config.task.name}.")
    if "features" in options:
        feature_network(options["features"], config.get("allow", ()))  # raises where there is no such network
    config.task.update(options)
    for key, value in whole_numbers(config):
        OmegaConf.update(config, key, value)
    if unread := [line for key in options for line in unread_option("task", key, config.task)]:
        raise ConfigError(unread[0].replace("task.", ""))
    if wrong_values := [line for line in wrong_numbers(config) if line.startswith("task.")]:
        raise ConfigError("\n".join(wrong_values))
    make_task(
        alone(config), nn.Linear(1, 1), total_steps=1
    )  # other wrong values are found before the data is looked for


def alone(config: DictConfig) -> DictConfig:
    """A copy of a run's config without the networks beside it, which answering a prompt does not need and may be gone."""
    config = copy.deepcopy(config)
    for key in ("judge", "features"):
        if config.task.get(key) is not None:
            config.task[key] = None
    return config
