"""The config as Hydra composes it: the folders it is read from, their groups and options, its keys.

`conf/` of this repository is the package data of `epochal.conf`; `hydra.searchpath` and `--config-dir` add folders of the
user's own, which every function here includes.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import epochal
from epochal.core.errors import ConfigError

ALIAS = re.compile(rb"(?:^|[\s\[{,:-])\*\w|[\[{]\s*[\[{]\s*[\[{]")  # in YAML; or a list in a list in a list
MOST_VALUES, MOST_BYTES = 100_000, 1_000_000  # of a YAML file with aliases, when they are written out

_own_folders: tuple[str, ...] | None = None  # of the command that runs in this process; None in a worker process


def one_batch(*, _root_: DictConfig) -> int:
    """The `dataset.train_size` of one batch, for conf/trainer/overfit.yaml: of running text it counts tokens, not windows."""
    data = _root_.dataset
    length = data.get("context_length")
    return int(data.batch_size if length is None else data.batch_size * length + 1)


OmegaConf.register_new_resolver("one_batch", one_batch, replace=True)


def conf_folder() -> Path:
    """The configs of the package: beside its modules where it was installed, at the top of a checkout of the repository."""
    package = Path(epochal.__file__).parent
    return package / "conf" if (package / "conf").is_dir() else package.parents[1] / "conf"


def use_folders(paths: Iterable[str]) -> None:
    """Sets the folders of the user's own configs, `file:///...` or `pkg://...`; a plugin of ours gives them to Hydra.

    Raises:
        ConfigError: See `check_size`.
    """
    global _own_folders
    _own_folders = tuple(paths)
    for path in _own_folders:
        if path.startswith("file://"):
            folder = Path(path.removeprefix("file://"))
            for file in (*folder.glob("*.yaml"), *folder.glob("*/*.yaml")):
                check_size(file)


def check_size(file: Path) -> None:
    """Refuses a small YAML file that aliases make huge (a "billion laughs"), before anything writes it out.

    Raises:
        ConfigError: If it has aliases, or deep nesting, and more than MOST_BYTES or MOST_VALUES.
        OSError: If it cannot be read.
    """
    import yaml

    text = file.read_bytes()
    if not ALIAS.search(text):
        return
    sizes: dict[int, float] = {}

    def size(node: yaml.Node) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = float("inf")  # if it contains itself
            parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            sizes[id(node)] = 1 + (len(parts) / 100 if isinstance(node, yaml.ScalarNode) else sum(map(size, parts)))
        return sizes[id(node)]

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader) if len(text) <= MOST_BYTES else None
        huge = len(text) > MOST_BYTES or (root is not None and size(root) > MOST_VALUES)
    except yaml.YAMLError:  # whoever reads it says what is wrong
        return
    except RecursionError:
        huge = True
    if huge:
        raise ConfigError(
            f"{file} is refused: with its aliases written out it has more than {MOST_VALUES:,} values, or is nested too "
            "deeply, which no config is."
        )


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
