"""From a dotted name in a config to the object itself."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from omegaconf import DictConfig, OmegaConf

from epochal.core.errors import ConfigError


def target_class(target: str) -> Any:
    """The class that a `_target_` names, itself or by one of its classmethods."""
    found = resolve(target)
    return getattr(found, "__self__", found) if not inspect.isclass(found) else found


def resolve(target: str) -> Any:
    """The object that a dotted name leads to.

    Raises:
        ConfigError: If it leads nowhere.
    """
    parts = target.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        try:
            for part in parts[cut:]:
                found = getattr(found, part)
        except AttributeError:
            break
        return found
    raise ConfigError(f"_target_: {target} does not exist.")


def make_model(config: DictConfig, inputs: Any, outputs: Any) -> Any:
    """The network, sized by the data.

    Raises:
        ConfigError: If its arguments, or they and the data, do not go together.
    """
    arguments: Any = OmegaConf.to_container(config.model, resolve=True)
    arguments = {k: v for k, v in arguments.items() if k not in ("name", "_target_", "pretrained")}  # that is build's
    try:
        return resolve(config.model._target_)(inputs, outputs, **arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model={config.model.name}: {error}") from error
