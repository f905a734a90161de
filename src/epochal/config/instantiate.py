"""From a dotted name in a config to the object itself."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from omegaconf import DictConfig, OmegaConf

from epochal.core.errors import ConfigError


def target_class(target: str) -> Any:
    """The class that a `_target_` names, directly or by a classmethod."""
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


def parameters(target: str) -> set[str] | None:
    """The names of the arguments that a `_target_` takes, those that it hands on to its parents included; None if any.

    A classmethod such as `for_data(cls, inputs, outputs, **config)` hands the rest on to its class.
    """
    found = resolve(target)
    owner = found if inspect.isclass(found) else getattr(found, "__self__", None)
    makers = [] if inspect.isclass(found) else [found]
    if inspect.isclass(owner):
        makers += [vars(base)["__init__"] for base in owner.__mro__ if "__init__" in vars(base)]
    names: set[str] = set()
    for maker in makers:
        signature = inspect.signature(maker).parameters
        names |= {name for name, p in signature.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind == p.VAR_KEYWORD for p in signature.values()):
            return names - {"self", "cls"}
    return None


def instantiate(node: Any, /, **context: Any) -> Any:
    """The object that a node with a `_target_` describes, nodes within it included (Hydra's `instantiate`).

    Args:
        node: Of a config.
        context: Further arguments, given where the target takes them by these names and the node has no value.

    Raises:
        ConfigError: If the object cannot be made.
    """
    from hydra.errors import HydraException
    from hydra.utils import instantiate as make

    taken = parameters(node["_target_"])
    further = {k: v for k, v in context.items() if (taken is None or k in taken) and node.get(k) is None}
    try:
        partial = make({**node, "_partial_": True}, _convert_="all")  # OmegaConf cannot hold the objects of the context
        return partial(**further)
    except (HydraException, TypeError, ValueError, ImportError) as error:
        cause = error.__cause__ or error
        raise ConfigError(f"{node['_target_']} cannot be made: {' '.join(str(cause).split())}") from error


def make_model(config: DictConfig, inputs: Any, outputs: Any, head: str | None = None) -> Any:
    """The network, sized by the data.

    Args:
        config: Of the run.
        inputs, outputs: Specs of the data.
        head: What it must return, for a model that offers several; None: what the config's task needs.

    Raises:
        ConfigError: If an argument is wrong, or does not fit the data.
    """
    arguments: Any = OmegaConf.to_container(config.model, resolve=True)
    arguments = {k: v for k, v in arguments.items() if k not in ("name", "_target_", "pretrained")}  # loaded by build
    make = resolve(config.model._target_)
    if "head" in inspect.signature(make).parameters:
        arguments["head"] = head or target_class(config.task._target_).head
    try:
        return make(inputs, outputs, **arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model={config.model.name}: {error}") from error
