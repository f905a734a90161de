"""Hydra's errors in plain words, with the name that was probably meant."""

from __future__ import annotations

import re
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from epochal.config.compose import budgets, choices, compose, keys
from epochal.core.errors import EpochalError, did_you_mean


def sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, EpochalError) else f"{type(error).__name__}: {error}"


def explain(error: Exception, arguments: list[str], config_name: str, config_path: Path) -> str:
    """Hydra's errors in plain words, with the name that was probably meant."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher":
            return f"The launcher {option} is in a package that is not installed: pip install 'epochal[cluster]'"
        return no_option(group, option, list(error.options or []))
    if isinstance(error, OverrideParseException):
        if "=" not in error.override:
            groups = (g for g, options in choices(config_path).items() if error.override in options)
            meant = next((f" Did you mean {group}={error.override}?" for group in groups), "")
            return f"The argument {error.override} is no key=value.{meant}"
        return (
            f"The argument {error.override} cannot be read. Brackets and quotes come in pairs, and a value with other "
            f"signs than letters and digits stands in quotes: '{error.override.partition('=')[0]}=\"...\"'"
        )
    if isinstance(error, OSError):
        return f"The outputs folder {error.filename} cannot be written ({error.strerror}); choose another with output_dir=<folder>."
    if "Config group override" in str(error):  # such as model=5 or model=null
        for group, _, option in (argument.partition("=") for argument in arguments):
            if option not in (options := choices(config_path).get(group, [option])):
                return no_option(group, option, options)
    if match := re.search(r"Interpolation key 'budgets\.([^.']+)(?:\.([^']+))?'", str(error)):
        known = budgets(arguments, config_name, config_path)
        if match[1] not in known:
            return no_option("budget", match[1], known)
        return f"budget={match[1]} of this experiment says nothing of {match[2]}: that choice is not in its grid."
    if match := re.search(r"Ambiguous value for argument '([^']+)'", str(error)):
        return f"{match[1]} is a list of values; put -m in front for a run each, or brackets around one value: [1,2]."
    if match := re.search(r"does not support sweep type : (\w+)_SWEEP", str(error)):
        return f"{match[1].lower()}(...) is searched, and a grid has lists: a=1,2,3. To search: sweep=search."
    if match := re.search(r"Could not override '([^']+)'", str(error)):
        return unknown_key(match[1], arguments, config_name, config_path)
    return " ".join(str(error).split())


def no_option(group: str, option: str, options: list[str]) -> str:
    return f"{group}={option} is no {group}.{did_you_mean(option, options)} There are: {' '.join(options)}"


def unknown_key(key: str, arguments: list[str], config_name: str, config_path: Path) -> str:
    """Names the key that was probably meant, out of all that this choice of groups has, or the options that have it."""
    groups = choices(config_path)
    chosen = [a for a in arguments if a.lstrip("~").split("=")[0] in groups and "," not in a]
    try:
        known = sorted(keys(compose(chosen, config_name, config_path)))
    except (HydraException, OmegaConfBaseException, ValueError):  # the message is of use without the suggestion
        known = []
    parent, _, leaf = key.rpartition(".")
    having = [
        option
        for option in groups.get(parent, [])
        if re.search(rf"^\s*{re.escape(leaf)}:", (config_path / parent / f"{option}.yaml").read_text(), re.MULTILINE)
    ]
    if having and parent:
        others = " or ".join(f"{parent}={option}" for option in having)
        return f"There is no key {key} in this choice of {parent}; {others} would have it."
    near = did_you_mean(key, [name for name in (*known, *groups) if name != key])
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent]
    shown = [name for name in siblings if name != "name" and not name.startswith("_")]
    has = f" {parent} has: {' '.join(shown)}." if parent and shown else ""
    return f"There is no key {key}.{near}{has}"
