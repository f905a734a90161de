"""The run folder: its format, and how the runs of one config are found again. Imports neither torch nor Lightning."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from epochal.config.allowlist import check_resolved
from epochal.config.compose import check_size, plain
from epochal.core.errors import ConfigError, EpochalError
from epochal.core.files import Lock, absolute_if_there, expanded, relative, slug, write_atomically

GROUPS = ("model", "dataset", "task", "optimizer", "scheduler", "trainer", "callbacks", "logger")
ENDED = ("finished", "pruned")
LOGGERS = {  # of version 0.1
    "wandb": "epochal.training.loggers.Wandb",
    "tensorboard": "epochal.training.loggers.TensorBoard",
}
UNFINISHED = re.compile(r"\..+\.([0-9a-f]{8}|part)")  # files that are written, before they take their names
# keys in which two configs of the same run may differ
VOLATILE = ("resume", "allow", "logger", "output_dir", "threads", "launcher", "sweep", "claim", "budgets")


class Run:
    """A run's folder: `config.yaml`, `overrides.yaml`, `metrics.csv`, `summary.json`, `checkpoints/`, `pictures/`."""

    def __init__(self, folder: Path) -> None:
        self.move(folder)
        self.lock = Lock(folder / ".lock")  # held by the process of rank zero, which does not move

    def move(self, folder: Path) -> None:
        """Sets another folder, such as rank zero's."""
        self.folder = folder
        self.best, self.last = folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
        self.metrics, self.pictures = folder / "metrics.csv", folder / "pictures"

    @classmethod
    def create(cls, parent: Path, name: str) -> Run:
        """A new folder of its own: a second run within one second gets `_2`.

        Raises:
            ConfigError: If the outputs folder cannot be written.
        """
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for number in range(1, 10_000):
                folder = parent / (stem if number == 1 else f"{stem}_{number}")
                try:
                    folder.mkdir()  # fails if it is there, so that two processes cannot both have it
                except FileExistsError:
                    continue
                run = cls(folder)
                try:
                    run.pictures.mkdir()
                    run.best.parent.mkdir()
                except OSError:
                    run.discard()
                    raise
                return run
        except OSError as error:
            raise not_writable(parent, error) from error
        raise ConfigError(f"{parent} has ten thousand runs of this second.")

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The folder of an earlier run.

        Raises:
            ConfigError: If the path is no run folder.
        """
        folder = expanded(str(path)).absolute()
        if folder.is_file():
            raise ConfigError(
                f"{path} is a file; a run is given by its folder, which has config.yaml and checkpoints in it."
            )
        if not folder.is_dir():
            raise ConfigError(f"There is no run folder {path}.")
        if not (folder / "config.yaml").is_file():
            weights = (
                "; weights of transformers are loaded by model.pretrained" if (folder / "config.json").is_file() else ""
            )
            raise ConfigError(f"{folder} is not a run folder: it has no config.yaml{weights}.")
        return cls(folder)

    def discard(self) -> None:
        """Removes the folder of a run that could not start."""
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def explained(self, error: OSError) -> EpochalError | None:
        """What kept a file of this run from being written, in a sentence; None for an error of another kind."""
        folder = relative(self.folder)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return EpochalError(f"The disk is full ({error.strerror}): {folder} cannot be written. Free some space.")
        if not self.folder.is_dir():
            return EpochalError(
                f"The run folder {folder} was deleted while the run needed it; nothing more is saved there."
            )
        if error.filename and Path(str(error.filename)).is_relative_to(self.folder):
            return EpochalError(f"{relative(Path(error.filename))} cannot be written ({error.strerror}).")
        return None

    def claim(self) -> bool:
        """Locks the run for this process; False if another living process holds it.

        Raises:
            ConfigError: If the folder cannot be written.
        """
        try:
            return self.lock.acquire()
        except OSError as error:
            raise ConfigError(
                f"{relative(self.folder)} cannot be written ({error.strerror}), so that the run cannot go on there."
            ) from error

    def sweep(self) -> None:
        """Removes the unfinished files that a killed process left, and makes missing folders; for who has locked the run.

        Raises:
            ConfigError: If one cannot be made.
        """
        try:
            for folder in (self.best.parent, self.pictures):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"The folder {relative(folder)} cannot be made ({error.strerror}).") from error
        for folder in (self.folder, self.best.parent, self.pictures):
            for file in folder.glob(".*"):
                if UNFINISHED.fullmatch(file.name):
                    file.unlink(missing_ok=True)

    def in_use(self) -> str:
        """A sentence about the process that holds the run."""
        process, host = self.lock.holder()
        return f"{relative(self.folder)} is being trained by process {process} on {host}"

    def release(self) -> None:
        self.lock.release()

    def config(self) -> DictConfig:
        """The resolved config.

        Raises:
            ConfigError: If it cannot be read.
        """
        try:
            check_size(self.folder / "config.yaml")
            content = OmegaConf.to_container(OmegaConf.load(self.folder / "config.yaml"))
        except ConfigError:
            raise
        except Exception as error:  # whatever YAML's parser raises, the file is at fault
            raise ConfigError(f"{self.folder / 'config.yaml'} cannot be read: {str(error).splitlines()[0]}.") from error
        for group in GROUPS:
            if not isinstance(content, dict) or not isinstance(content.get(group), dict):
                raise ConfigError(f"{self.folder} is not a run folder: its config.yaml has no {group}.")
        assert isinstance(content, dict)  # the loop has checked
        return current_layout(content)

    def overrides(self) -> list[str]:
        """The overrides that the run was started with; none where the file is missing or broken."""
        file = self.folder / "overrides.yaml"
        if not file.is_file():
            return []
        check_size(file)
        try:
            content = OmegaConf.to_container(OmegaConf.load(file))
        except Exception:  # whatever YAML's parser raises; overrides only name groups and describe the run
            return []
        return [str(override) for override in content] if isinstance(content, list) else []

    def summary(self) -> dict[str, Any]:
        """`summary.json`; empty where it is missing or broken."""
        try:
            content = json.loads((self.folder / "summary.json").read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        write_atomically(self.folder / "summary.json", json.dumps(_finite(summary), indent=2) + "\n")


def not_writable(outputs: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The outputs folder {outputs} cannot be written ({error.strerror}); choose another with output_dir=<folder>."
    )


def current_layout(content: dict[Any, Any]) -> DictConfig:
    """The saved config of a run of any version, with the keys of today: 0.1 had one logger, by its name, and `asked`.

    Raises:
        ConfigError: If it holds an interpolation.
    """
    check_resolved(content)
    content = {"init_from": None, **content}
    if "asked" in content:
        content["requested"] = content.pop("asked")
    logger = dict(content["logger"])
    if (name := logger.pop("name", None)) is not None:
        content["logger"] = {name: {"_target_": LOGGERS[name], **logger}} if name in LOGGERS else {}
    return OmegaConf.create(content)


def newest_unfinished(parent: Path, config: DictConfig) -> Run | None:
    """The newest unfinished run of the same config, whether or not a process trains it.

    Args:
        parent: The folder of runs.
        config: As composed.
    """
    return next((run for run in same_runs(parent, config) if run.summary().get("status") not in ENDED), None)


def newest_finished(parent: Path, config: DictConfig) -> Run | None:
    """The newest run of the same config that finished or was pruned."""
    return next((run for run in same_runs(parent, config) if run.summary().get("status") in ENDED), None)


def same_runs(parent: Path, config: DictConfig) -> Iterator[Run]:
    """Runs of the same config, the newest first."""
    wanted = comparable(config)
    folders = parent.glob(f"*_{run_name(config)}*/config.yaml")  # not every config of a large grid
    for folder in sorted(folders, key=lambda f: f.parent.name, reverse=True):
        run = Run(folder.parent)
        try:
            if comparable(run.config()) == wanted:
                yield run
        except ConfigError:
            continue


def run_name(config: DictConfig) -> str:
    """The name of a run's folder, without the time in front."""
    return f"{slug(config.model.name)}_{slug(config.dataset.name)}_s{config.seed}"


def comparable(config: DictConfig) -> dict[str, Any]:
    """The keys that tell whether two configs are of the same run."""
    keys = plain(config)
    requested = keys.pop("requested", {})  # as typed, before it was resolved: duration=10minutes, task=auto
    keys = {key: requested.get(key, value) for key, value in keys.items() if key not in VOLATILE}
    if (keys.get("finetune") or {}).get("lora", {}).get("rank") is None:  # a key that older runs do not have
        keys.pop("finetune", None)
    keys["init_from"] = absolute_if_there(keys.get("init_from"))  # version 0.1 kept relative paths
    keys["task"] = {k: absolute_if_there(v) if k in ("features", "judge") else v for k, v in keys["task"].items()}
    keys["dataset"] = {k: absolute_if_there(v) if k == "path" else v for k, v in keys["dataset"].items()}
    return _without_none(keys)  # a key that came later changes no old run


def _without_none(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that have a value, at every depth."""
    kept = {key: _without_none(value) if isinstance(value, Mapping) else value for key, value in keys.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}


def _finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def runs_folder(config: DictConfig) -> Path:
    """Where the runs of this experiment are."""
    return sweep_folder(config) or expanded(config.output_dir).absolute() / slug(config.experiment or "runs")


def sweep_folder(config: DictConfig) -> Path | None:
    """The folder of a search's study and runs, `outputs/sweeps/<study>`; None for a run outside of a search."""
    sweep = config.get("sweep")
    return expanded(config.output_dir).absolute() / "sweeps" / slug(str(sweep.study)) if sweep else None
