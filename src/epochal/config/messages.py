"""Hydra's errors in plain words, with the name that was probably meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from epochal.config.compose import budgets, choices, compose, keys, load_option
from epochal.core.errors import EpochalError, did_you_mean

# arguments of Lightning's Trainer that are set for the user, and how to say what they would
TRAINER_SETS = {
    "max_epochs": "duration=5epochs",
    "min_epochs": "duration=5epochs",
    "max_steps": "duration=2000steps",
    "min_steps": "duration=2000steps",
    "max_time": "duration=10minutes",
    "fast_dev_run": "trainer=debug",
    "overfit_batches": "trainer=overfit",
    "callbacks": "+callbacks.mine={_target_: package.Class}",
    "logger": "logger=<name>",
    "default_root_dir": "output_dir=<folder>",
    "enable_progress_bar": None,
    "enable_checkpointing": "callbacks.checkpoint_every=<steps>",
    "enable_model_summary": None,
    "log_every_n_steps": "log_every=<steps>",
    "num_sanity_val_steps": None,
    "use_distributed_sampler": None,
    "plugins": None,
    "barebones": None,
    "limit_predict_batches": None,
    "enable_autolog_hparams": None,
    "model_registry": None,
    "reload_dataloaders_every_n_epochs": None,
}


def sentence(error: BaseException) -> str:
    """The message of an error of ours; of any other its type too."""
    return str(error) if isinstance(error, EpochalError) else f"{type(error).__name__}: {error}"


def explain(error: Exception, arguments: Sequence[str], config_name: str) -> str:
    """What is wrong with the arguments of a command, in one sentence, and what would be right.

    Args:
        error: Raised by Hydra or OmegaConf, or an OSError of the outputs folder.
        arguments: The command line.
        config_name: train or evaluate.
    """
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return _unreadable_argument(error.override)
    if isinstance(error, OSError):
        return f"The outputs folder {error.filename} cannot be written ({error.strerror}); choose another with output_dir=<folder>."
    if "Config group override" in text:  # such as model=5 or model=null
        for group, _, option in (argument.partition("=") for argument in arguments):
            if option not in (options := choices().get(group, [option])):
                return no_option(group, option, options)
    if match := re.search(r"Interpolation key 'budgets\.([^.']+)(?:\.([^']+))?'", text):
        known = budgets(arguments, config_name)
        if match[1] not in known:
            return no_option("budget", match[1], known)
        return f"budget={match[1]} of this experiment says nothing of {match[2]}: that choice is not in its grid."
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match[1]} is a list of values; put -m in front for a run each, or brackets around one value: [1,2]."
    if match := re.search(r"does not support sweep type : (\w+)_SWEEP", text):
        return f"{match[1].lower()}(...) is searched, and a grid has lists: a=1,2,3. To search: sweep=search."
    if match := re.search(r"Could not override '([^']+)'", text):
        return unknown_key(match[1], arguments, config_name)
    return " ".join(text.split())


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if group == "hydra/launcher":
        return f"The launcher {option} is in a package that is not installed: pip install 'epochal[cluster]'"
    return no_option(group, option, list(error.options or choices().get(group, [])))


def _unreadable_argument(argument: str) -> str:
    if "=" not in argument:
        groups = (group for group, options in choices().items() if argument in options)
        meant = next((f" Did you mean {group}={argument}?" for group in groups), "")
        return f"The argument {argument} is no key=value.{meant}"
    return (
        f"The argument {argument} cannot be read. Brackets and quotes come in pairs, and a value with other "
        f"signs than letters and digits stands in quotes: '{argument.partition('=')[0]}=\"...\"'"
    )


def no_option(group: str, option: str, options: Sequence[str]) -> str:
    """`model=resent is no model. Did you mean resnet? There are: ...`"""
    return f"{group}={option} is no {group}.{did_you_mean(option, options)} There are: {' '.join(options)}"


def unknown_key(key: str, arguments: Sequence[str], config_name: str = "train") -> str:
    """Names the key that was probably meant, out of all that this choice of groups has, or the options that have it."""
    groups = choices()
    chosen = [a for a in arguments if a.lstrip("~").split("=")[0] in groups and "," not in a]
    try:
        known = sorted(keys(compose(chosen, config_name)))
    except (HydraException, OmegaConfBaseException, ValueError):  # the message is of use without the suggestion
        known = []
    parent, _, leaf = key.rpartition(".")
    if parent == "trainer" and leaf in TRAINER_SETS:
        return set_by_epochal(leaf)
    if config_name == "evaluate" and parent == "dataset" and not any(a.startswith("dataset=") for a in arguments):
        return f"{key} goes with dataset=<other data>; without it a run is tested on its own data, as these were."
    if elsewhere := other_option(parent, leaf):
        return f"There is no key {key} in this choice of {parent}; {elsewhere} would have it."
    return _near_key(key, arguments, known, config_name)


def _near_key(key: str, arguments: Sequence[str], known: Sequence[str], config_name: str) -> str:
    """The sentence for a key that no option of its group has."""
    groups, parent = choices(), key.rpartition(".")[0]
    values = [
        value for name, _, value in (argument.partition("=") for argument in arguments) if name.lstrip("+") == key
    ]
    if values and values[0] in groups.get(parent, []):  # logger.name=csv
        return f"There is no key {key}. Did you mean {parent}={values[0]}?"
    there = groups if config_name == "train" else ()  # else the few that there are, are among the keys
    near = did_you_mean(key, [name for name in (*known, *there) if name != key])
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent]
    shown = [name for name in siblings if name != "name" and not name.startswith("_")]
    has = f" {parent} has: {' '.join(shown)}." if parent and shown else ""
    return f"There is no key {key}.{near}{has}"


def set_by_epochal(key: str) -> str:
    """A sentence for an argument of Lightning's Trainer that has another name here, or none."""
    instead = TRAINER_SETS[key]
    return f"trainer.{key} is set by Epochal{f'; give {instead}' if instead else ''}."


def other_option(group: str, key: str) -> str:
    """`model=resnet or model=vgg` for the options of a group that have a key; nothing if none has."""
    having = []
    for option in choices().get(group, []):
        config = load_option(group, option)
        if key in config or key in (config.get(group) or {}):  # at the top, or within its own package
            having.append(f"{group}={option}")
    return " or ".join(having)
