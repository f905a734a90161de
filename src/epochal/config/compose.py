"""The config as Hydra composes it: groups, choices, keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


def choices(config_path: Path) -> dict[str, list[str]]:
    """The options of each group."""
    folders = sorted(p for p in config_path.iterdir() if p.is_dir())
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}


def budgets(arguments: list[str], config_name: str, config_path: Path) -> list[str]:
    """Those of the experiment that was asked for."""
    experiment = [argument for argument in arguments if argument.startswith("experiment=")]
    return [str(name) for name in compose(experiment, config_name, config_path).get("budgets") or {}]


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


def conf_folder() -> Path:
    """The configs beside `train.py`."""
    return Path(__file__).parents[3] / "conf"


def plain(config: DictConfig) -> dict[str, Any]:
    """As dicts and lists, resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def flat(config: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
