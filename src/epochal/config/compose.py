"""The config as Hydra composes it: the folders it is read from, their groups and options, its keys.

`conf/` of this repository is the package data of `epochal.conf`; `hydra.searchpath` and `--config-dir` add folders of the
user's own, which every function here includes.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import epochal
from epochal.core.errors import ConfigError

_own_folders: tuple[str, ...] | None = None  # of the command that runs in this process; None in a worker process


def conf_folder() -> Path:
    """The configs of the package: beside its modules where it was installed, at the top of a checkout of the repository."""
    package = Path(epochal.__file__).parent
    return package / "conf" if (package / "conf").is_dir() else package.parents[1] / "conf"


def use_folders(paths: Iterable[str]) -> None:
    """Sets the folders of the user's own configs, `file:///...` or `pkg://...`; a plugin of ours gives them to Hydra."""
    global _own_folders
    _own_folders = tuple(paths)


def own_folders() -> tuple[str, ...]:
    """The user's own folders: those of the command, or in a worker process those of the job that Hydra runs there."""
    from hydra.core.hydra_config import HydraConfig

    if _own_folders is not None or not HydraConfig.initialized():
        return _own_folders or ()
    sources = HydraConfig.get().runtime.config_sources
    return tuple(f"{s.schema}://{s.path}" for s in sources if s.provider == "own")


def folders() -> list[Path]:
    """All folders that configs are read from, in the order in which Hydra looks: ours first."""
    found = [conf_folder()]
    for path in own_folders():
        schema, _, place = path.rpartition("://")
        found.append(Path(str(importlib.resources.files(place))) if schema == "pkg" else Path(place))
    return found


def choices() -> dict[str, list[str]]:
    """The options of each group: {"model": ["alexnet", ...], ...}."""
    found: dict[str, set[str]] = {}
    for folder in folders():
        for group in (path for path in folder.iterdir() if path.is_dir() and path.name != "hydra"):
            found.setdefault(group.name, set()).update(file.stem for file in group.glob("*.yaml"))
    return {group: sorted(options) for group, options in sorted(found.items()) if options}


def option_file(group: str, option: str) -> Path | None:
    """The YAML of a choice, None if there is none."""
    files = (folder / group / f"{option}.yaml" for folder in folders())
    return next((file for file in files if file.is_file()), None)


def load_option(group: str, option: str) -> DictConfig:
    """The YAML of a choice as it stands there, nothing composed or resolved.

    Raises:
        ConfigError: If there is none.
    """
    file = option_file(group, option)
    if file is None:
        raise ConfigError(f"There is no {group}={option}. There are: {' '.join(choices().get(group, []))}")
    config = OmegaConf.load(file)
    assert isinstance(config, DictConfig)
    return config


def budgets(arguments: Iterable[str], config_name: str = "train") -> list[str]:
    """The budgets of the experiment among the arguments."""
    experiment = [argument for argument in arguments if argument.startswith("experiment=")]
    return [str(name) for name in compose(experiment, config_name).get("budgets") or {}]


def compose(overrides: Iterable[str], config_name: str = "train") -> DictConfig:
    """The config of these overrides, also while Hydra runs a job in this process.

    Raises:
        HydraException, OmegaConfBaseException: If there is no such option or key; see `messages.explain`.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    state = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return hydra_compose(config_name, overrides=list(overrides))
    finally:
        GlobalHydra.instance().hydra = state


def keys(config: DictConfig, prefix: str = "") -> list[str]:
    """All keys of a config, dotted."""
    found = []
    for key in config:
        name = f"{prefix}{key!s}"
        found.append(name)
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none():
            found += keys(node, f"{name}.")
    return found


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as dicts and lists, resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def flat(config: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones: {"model": {"name": "mlp"}} as {"model.name": "mlp"}."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
