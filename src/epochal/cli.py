"""Around a Hydra app: wrong input ends in a sentence and exit status 2, and one failed job does not end the others."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from epochal.config.messages import explain
from epochal.config.validate import check_values
from epochal.core.errors import EpochalError
from epochal.core.format import print_anything, say
from epochal.experiments.launchers import check_alone
from epochal.experiments.outcome import one_of_many

MANY = ("-m", "--multirun")


def application(config_name: str, config_path: Path) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Makes a function of a composed config a command.

    Like `hydra.main`, but errors of the person's end in one sentence; bugs of ours keep their traceback. One of many
    runs (`-m`, experiments, sweeps) gives an `epochal.experiments.grid.Outcome` instead of raising, so that the others go on.
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


def given() -> list[str]:
    """What this job was asked for, as it was typed: `experiment=${model.name}` is not looked up."""
    from hydra.core.hydra_config import HydraConfig

    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(override) for override in overrides]
