"""Around a Hydra app: wrong input ends in a sentence and exit status 2, and one failed job does not end the others."""

from __future__ import annotations

import functools
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from epochal.errors import ConfigError, EpochalError, did_you_mean
from epochal.launchers import check_alone

MANY = ("-m", "--multirun")


def application(config_name: str, config_path: Path) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Makes a function of a composed config a command.

    Like `hydra.main`, but errors of the person's end in one sentence; bugs of ours keep their traceback. One of many
    runs (`-m`, experiments, sweeps) gives an `epochal.grid.Outcome` instead of raising, so that the others go on.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        import hydra

        failures: list[Exception] = []

        @functools.wraps(function)
        def job(config: DictConfig) -> Any:
            from hydra.core.hydra_config import HydraConfig
            from hydra.types import RunMode

            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return one_of_many(function, config, given())
            try:
                check_values(config, given(), config_name, config_path)
                check_alone(HydraConfig.get().runtime.choices["hydra/launcher"])
                return function(config)
            except Exception as error:  # kept, not raised: Hydra would print its own lines
                failures.append(error)

        def run() -> None:
            failures.clear()
            print_anything()
            flags = [argument for argument in sys.argv[1:] if argument in MANY]
            if flags and config_name != "train":
                say(f"{config_name}.py looks at one run at a time; leave out {flags[0]}.")
                sys.exit(2)
            sys.argv[1:] = [
                *flags,
                *(quoted(argument) for argument in sys.argv[1:] if argument not in MANY),
            ]  # Hydra wants it first
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print and exit on
            command = hydra.main(version_base="1.3", config_path=str(config_path), config_name=config_name)(job)
            try:
                command()
            except KeyboardInterrupt:
                say("Stopped. The same line typed again with resume=auto goes on.")
                sys.exit(130)
            except SystemExit as end:
                if end.code is None:  # Lightning's, after a SIGTERM
                    say("Ended by SIGTERM. The same line typed again with resume=auto goes on.")
                    sys.exit(143)
                raise
            except EpochalError as error:
                failures.append(error)
            except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:  # what jobs raise is kept
                say(explain(error, sys.argv[1:], config_name, config_path))
                sys.exit(2)
            if not failures:
                return
            first = failures[0]
            if isinstance(first, EpochalError):
                say(str(first))
                sys.exit(first.exit_status)
            if isinstance(first, OmegaConfBaseException):  # such as an interpolation to a key that is not there
                say(explain(first, sys.argv[1:], config_name, config_path))
                sys.exit(2)
            raise first

        return run

    return decorate


def quoted(argument: str) -> str:
    """A prompt in quotes: it is what a person wrote, and its commas, brackets and umlauts are no grammar of Hydra's."""
    key, _, text = argument.partition("=")
    if key != "prompt" or text in ("", "null") or (len(text) > 1 and text[0] == text[-1] and text[0] in "'\""):
        return argument
    text = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + found[2].replace('"', '\\"'), text)
    return f'{key}="{text}"'


def one_of_many(function: Callable[[DictConfig], Any], config: DictConfig, overrides: list[str]) -> Any:
    """Runs a job of a grid; tells how it ended in one line and in its outcome."""
    from hydra.core.hydra_config import HydraConfig

    from epochal import grid

    print_anything()
    if HydraConfig.get().runtime.choices["hydra/launcher"] == "joblib":
        grid.end_with_parent()
    outcome: grid.Outcome = {
        "overrides": overrides,
        "status": "failed",
        "error": None,
        "exit_status": 0,
        "folder": None,
        "summary": {},
    }
    started = time.perf_counter()
    try:
        run, before = function(config)
        outcome["folder"], outcome["summary"] = str(run.folder), run.summary()
        outcome["status"] = "already" if before else outcome["summary"].get("status", "failed")
    except Exception as error:  # told in the outcome, and with its traceback where it is a bug: the other runs go on
        if not isinstance(error, EpochalError | OmegaConfBaseException):
            traceback.print_exception(error)
        outcome["error"] = sentence(error)
        outcome["exit_status"] = error.exit_status if isinstance(error, EpochalError) else 1
    grid.tell(outcome, time.perf_counter() - started)
    return outcome


def given() -> list[str]:
    """What this job was asked for, as it was typed: `experiment=${model.name}` is not looked up."""
    from hydra.core.hydra_config import HydraConfig

    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(override) for override in overrides]


def print_anything() -> None:
    """A terminal or file whose encoding lacks a sign gets a question mark for it, and no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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


def choices(config_path: Path) -> dict[str, list[str]]:
    """The options of each group."""
    folders = sorted(p for p in config_path.iterdir() if p.is_dir())
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}


def budgets(arguments: list[str], config_name: str, config_path: Path) -> list[str]:
    """Those of the experiment that was asked for."""
    experiment = [argument for argument in arguments if argument.startswith("experiment=")]
    return [str(name) for name in compose(experiment, config_name, config_path).get("budgets") or {}]


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
