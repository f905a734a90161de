"""Which classes a config read back from a run folder may make."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import OmegaConf

from epochal.config.instantiate import resolve
from epochal.core.errors import ConfigError

ALLOWED = (
    *("epochal.models", "epochal.tasks", "epochal.data", "epochal.optim", "epochal.training.loggers"),
    *("pytorch_lightning.trainer.trainer", "torchmetrics.classification", "torchmetrics.regression"),
)
FACES = ("pytorch_lightning", "torchmetrics")  # packages whose top level has names for classes of the allowed ones


def check_targets(config: Any, allowed: tuple[str, ...] = ALLOWED, trusted: Sequence[str] = ()) -> None:
    """Refuses a config that would make anything but the classes and functions of the allowed packages.

    The config of a run folder may be a stranger's. A name such as `epochal.models.gpt.os.system` begins like one of ours, so
    the object that it leads to is checked, not the name.

    Args:
        config: Of a run.
        allowed: Packages and modules whose classes may be made.
        trusted: Targets that the user has typed in this very command.

    Raises:
        ConfigError: Naming the target.
    """
    content = OmegaConf.to_container(config, resolve=False)
    check_resolved(content)
    for target in (target for target in _targets(content) if target not in trusted):
        refusal = ConfigError(
            f"The run's config wants to make {target}, which is refused: only classes of {', '.join(allowed)} are made. "
            "If you trust the run and its package, add allow=[package]."
        )
        if not isinstance(target, str) or any(part.startswith("_") for part in target.split(".")):
            raise refusal
        if not _inside(target, (*allowed, *FACES)):
            raise refusal  # before it is imported
        found = resolve(target)
        owner = getattr(found, "__self__", found) if inspect.ismethod(found) else found
        # a class, a classmethod, or a function of the modules that hold factories
        makers = ("epochal.optim", *(p for p in allowed if p not in ALLOWED))
        if not inspect.isclass(owner) and not (inspect.isfunction(owner) and _inside(owner.__module__, makers)):
            raise refusal
        if not _inside(getattr(owner, "__module__", None) or "", allowed):
            raise refusal


def check_resolved(content: Any) -> None:
    """Refuses plain content of a run's config with an interpolation in it, before anything resolves it.

    A run's config is resolved when it is written; an interpolation could make a target, or read this machine's environment.

    Raises:
        ConfigError: Naming the interpolation.
    """
    if hidden := next((text for text in _texts(content) if "${" in text), None):
        raise ConfigError(f"The run's config is refused: it holds the interpolation {hidden}, which no run writes.")


def _inside(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _texts(node: Any) -> Iterator[str]:
    """Every string in it, keys too."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, child in node.items():
            yield from _texts(key)
            yield from _texts(child)
    elif isinstance(node, list):
        for child in node:
            yield from _texts(child)


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for child in node.values():
            yield from _targets(child)
    elif isinstance(node, list):
        for child in node:
            yield from _targets(child)
