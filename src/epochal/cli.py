"""Around a Hydra app: wrong input ends in a sentence and exit status 2, and one failed job does not end the others."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from epochal.errors import ConfigError, EpochalError, did_you_mean


def application(config_name: str, config_path: Path) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Makes a function of a composed config a command.

    Like `hydra.main`, but errors of the person's end in one sentence; bugs of ours keep their traceback.
    """

    def decorate(function: Callable[[DictConfig], None]) -> Callable[[], None]:
        import hydra

        failures: list[tuple[str, Exception]] = []

        @functools.wraps(function)
        def job(config: DictConfig) -> None:
            from hydra.core.hydra_config import HydraConfig
            from hydra.types import RunMode

            overrides = list(HydraConfig.get().overrides.task)
            many = HydraConfig.get().mode == RunMode.MULTIRUN
            if many:
                print(f"\n--- {' '.join(overrides)}", flush=True)
            try:
                check_values(config, overrides, config_name, config_path)
                function(config)
            except Exception as error:  # kept, not raised: Hydra would end the other jobs and print its own lines
                failures.append((" ".join(overrides), error))
                if many:
                    say(f"failed: {sentence(error)}")

        def run() -> None:
            failures.clear()
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print and exit on
            command = hydra.main(version_base="1.3", config_path=str(config_path), config_name=config_name)(job)
            try:
                command()
            except (HydraException, OmegaConfBaseException) as error:
                say(explain(error, sys.argv[1:], config_name, config_path))
                sys.exit(2)
            if not failures:
                return
            first = failures[0][1]
            if "-m" in sys.argv or "--multirun" in sys.argv:
                say(f"\n{len(failures)} of the jobs failed:")
                for overrides, failure in failures:
                    say(f"    {overrides}: {sentence(failure)}")
            elif isinstance(first, EpochalError):
                say(str(first))
            elif isinstance(first, OmegaConfBaseException):  # such as an interpolation to a key that is not there
                say(explain(first, sys.argv[1:], config_name, config_path))
                sys.exit(2)
            else:
                raise first
            sys.exit(first.exit_status if isinstance(first, EpochalError) else 1)

        return run

    return decorate


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, EpochalError) else f"{type(error).__name__}: {error}"


def explain(error: Exception, arguments: list[str], config_name: str, config_path: Path) -> str:
    """Hydra's errors in plain words, with the name that was probably meant."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = list(error.options or [])
        return f"{group}={option} is no {group}.{did_you_mean(option, options)} There are: {' '.join(options)}"
    if isinstance(error, OverrideParseException):
        return f"The argument {error.override} cannot be read: {str(error).splitlines()[0]}"
    if match := re.search(r"Could not override '([^']+)'", str(error)):
        return unknown_key(match[1], arguments, config_name, config_path)
    if isinstance(error, ConfigCompositionException):
        return " ".join(str(error).split())
    return " ".join(str(error).split())


def unknown_key(key: str, arguments: list[str], config_name: str, config_path: Path) -> str:
    """Names the key that was probably meant, out of all that this choice of groups has."""
    groups = sorted(p.name for p in config_path.iterdir() if p.is_dir())
    try:
        choices = [a for a in arguments if a.split("=")[0] in groups and "," not in a]
        known = sorted(keys(compose(choices, config_name, config_path)))
    except Exception:  # the message is of use without the suggestion
        known = []
    near = did_you_mean(key, [*known, *groups])
    parent = key.rpartition(".")[0]
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent]
    has = f" {parent} has: {' '.join(siblings)}" if parent and siblings else ""
    return f"There is no key {key}.{near}{has}"


def check_values(config: DictConfig, overrides: list[str], config_name: str, config_path: Path) -> None:
    """Raises ConfigError where a number was asked for by the YAML's default and something else was given."""
    groups = sorted(p.name for p in config_path.iterdir() if p.is_dir())
    given = [
        o.split("=")[0].lstrip("+") for o in overrides if o.split("=")[0] not in groups and not o.startswith(("+", "~"))
    ]
    if not given:
        return
    defaults = compose([o for o in overrides if o.split("=")[0] in groups], config_name, config_path)
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


def compose(overrides: list[str], config_name: str, config_path: Path) -> DictConfig:
    """The config of these choices, wherever Hydra may be at the moment."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    state = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_path), version_base="1.3"):
            return hydra_compose(config_name, overrides=overrides)
    finally:
        GlobalHydra.instance().hydra = state


def keys(config: DictConfig, prefix: str = "") -> list[str]:
    """All of them, dotted."""
    found = []
    for key in config:
        name = f"{prefix}{key!s}"
        found.append(name)
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none():
            found += keys(node, f"{name}.")
    return found
