"""The run folder: what is written there while a run goes on, and reading it back."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from epochal.errors import ConfigError
from epochal.files import AXES
from epochal.files import slug as slug
from epochal.files import write_atomically as write_atomically
from epochal.tasks.base import Shown

GROUPS = ("model", "dataset", "task", "optimizer", "scheduler", "trainer", "callbacks", "logger")
ENDED = ("finished", "pruned")
# what a config may differ in and still be the same run
VOLATILE = ("resume", "allow", "logger", "output_dir", "threads", "launcher", "sweep", "claim", "budgets")


class Run:
    """One folder: `config.yaml`, `overrides.yaml`, `metrics.csv`, `summary.json`, `checkpoints/`, `pictures/`."""

    def __init__(self, folder: Path) -> None:
        self._lock: Any = None
        self.move(folder)

    def move(self, folder: Path) -> None:
        """Takes another folder for this run's."""
        self.folder = folder
        self.best, self.last = folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
        self.metrics, self.pictures = folder / "metrics.csv", folder / "pictures"

    @classmethod
    def create(cls, parent: Path, name: str) -> Run:
        """A new folder, and nobody else's: the second run of one second gets `_2`.

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
                run.pictures.mkdir()
                run.best.parent.mkdir()
                return run
        except OSError as error:
            raise ConfigError(
                f"The outputs folder {parent} cannot be written ({error.strerror}); choose another with output_dir=<folder>."
            ) from error
        raise ConfigError(f"{parent} has ten thousand runs of this second.")

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """A folder that a run left.

        Raises:
            ConfigError: If it is not one.
        """
        folder = Path(str(path)).expanduser().absolute()
        if not folder.is_dir():
            raise ConfigError(f"There is no run folder {path}.")
        if not (folder / "config.yaml").is_file():
            raise ConfigError(f"{folder} is not a run folder: it has no config.yaml.")
        return cls(folder)

    def discard(self) -> None:
        """Takes a new folder away again, if the run cannot start."""
        self.release()
        shutil.rmtree(self.folder)

    def claim(self) -> bool:
        """Whether no other living process has this run; holds it as long as this process lives."""
        from filelock import FileLock, Timeout

        self._lock = FileLock(self.folder / ".lock")
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def config(self) -> DictConfig:
        """The resolved config.

        Raises:
            ConfigError: If it cannot be read.
        """
        try:
            config = OmegaConf.load(self.folder / "config.yaml")
        except Exception as error:  # whatever YAML's parser raises, the file is at fault
            raise ConfigError(f"{self.folder / 'config.yaml'} cannot be read: {str(error).splitlines()[0]}.") from error
        for group in GROUPS:
            if not isinstance(config, DictConfig) or not isinstance(config.get(group), DictConfig):
                raise ConfigError(f"{self.folder} is not a run folder: its config.yaml has no {group}.")
        assert isinstance(config, DictConfig)  # the loop has looked
        return config

    def overrides(self) -> list[str]:
        """What was typed for it, or nothing where that is missing."""
        file = self.folder / "overrides.yaml"
        return [str(override) for override in OmegaConf.load(file)] if file.is_file() else []

    def summary(self) -> dict[str, Any]:
        """`summary.json`, or nothing where it is missing or broken."""
        try:
            return json.loads((self.folder / "summary.json").read_text())
        except (OSError, ValueError):
            return {}

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        write_atomically(self.folder / "summary.json", json.dumps(_finite(summary), indent=2) + "\n")


def newest_unfinished(parent: Path, config: DictConfig, *, claim: bool) -> Run | None:
    """The newest run of the same config that did not finish and that no living process has; claims it if told to."""
    for run in same_runs(parent, config):
        if run.summary().get("status") in ENDED or (claim and not run.claim()):
            continue
        if run.summary().get("status") not in ENDED:  # who had it until now may just have finished
            return run
        run.release()
    return None


def newest_finished(parent: Path, config: DictConfig) -> Run | None:
    """The newest run of the same config that has nothing left to do."""
    return next((run for run in same_runs(parent, config) if run.summary().get("status") in ENDED), None)


def same_runs(parent: Path, config: DictConfig) -> Iterator[Run]:
    """Runs of the same config, the newest first."""
    wanted = comparable(config)
    folders = parent.glob(f"*_{run_name(config)}*/config.yaml")  # reading every config of a large grid would take long
    for folder in sorted(folders, key=lambda f: f.parent.name, reverse=True):
        run = Run(folder.parent)
        try:
            if comparable(run.config()) == wanted:
                yield run
        except ConfigError:
            continue


def run_name(config: DictConfig) -> str:
    """What a run's folder is called, the time left out."""
    return f"{slug(config.model.name)}_{slug(config.dataset.name)}_s{config.seed}"


def comparable(config: DictConfig) -> dict[str, Any]:
    """What makes two configs the same run."""
    keys = plain(config)
    asked = keys.pop("asked", {})  # for before it was worked out: minutes, task: auto
    keys = {key: asked.get(key, value) for key, value in keys.items() if key not in VOLATILE}
    return {key: value for key, value in keys.items() if value is not None}  # a key that came later changes no old run


class RunLogger(Logger):
    """Writes `metrics.csv`, a row a logged step, and pictures and texts.

    Every row has the axes `step, epoch, examples, seconds`; a new metric adds a column. What is logged twice at one
    step is one row.

    Args:
        run: Where to.
        examples_per_step, steps_per_epoch: Make the axes of a step.
    """

    def __init__(self, run: Run, *, examples_per_step: int, steps_per_epoch: float) -> None:
        super().__init__()
        self.run, self.examples_per_step, self.steps_per_epoch = run, examples_per_step, steps_per_epoch
        self.seconds_before, self._started = 0.0, time.perf_counter()
        self.last: dict[str, float] = {}  # the newest value of every metric
        self._columns: list[str] = list(AXES)
        self._row: dict[str, Any] = {}
        self._row_start = 0  # where in the file the newest row begins

    @property
    def name(self) -> str:
        return "run"

    @property
    def version(self) -> str:
        return self.run.folder.name

    @property
    def seconds(self) -> float:
        """Of training, all processes of this run together."""
        return self.seconds_before + time.perf_counter() - self._started

    def start(self, step: int, seconds_before: float) -> None:
        """Begins the clock; after a resume, drops the rows that a killed process wrote past its last checkpoint."""
        self.seconds_before, self._started = seconds_before, time.perf_counter()
        if not self.run.metrics.exists():
            return
        whole, _, _ = self.run.metrics.read_text().rpartition("\n")  # what follows the last newline, a kill cut off
        reader = csv.DictReader(io.StringIO(whole))
        self._columns = list(reader.fieldnames or AXES)
        rows = [row for row in reader if int(row["step"]) <= step]
        self._rewrite(rows)
        for row in rows:
            self.last |= {k: float(v) for k, v in row.items() if v and k not in AXES}

    def pause(self, seconds: float) -> None:
        """Leaves so many of the last seconds out."""
        self._started += seconds

    def axes(self, step: int) -> dict[str, float]:
        return {
            "step": step,
            "epoch": round(step / self.steps_per_epoch, 4),
            "examples": step * self.examples_per_step,
            "seconds": round(self.seconds, 3),
        }

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.last |= metrics
        if step == self._row.get("step"):
            self._row |= metrics
            start = self._row_start
        else:
            self._row = {**self.axes(step or 0), **metrics}
            start = None
        if new := [name for name in metrics if name not in self._columns]:
            rows = self._read()[: -1 if start is not None else None]
            self._columns += new
            self._rewrite([*rows, self._row])
            return
        with self.run.metrics.open("r+" if self.run.metrics.exists() else "w", newline="") as stream:
            self._row_start = stream.seek(0, os.SEEK_END) if start is None else stream.seek(start)
            csv.DictWriter(stream, self._columns, lineterminator="\n").writerow(self._row)
            stream.truncate()

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    def _read(self) -> list[dict[str, str]]:
        if not self.run.metrics.exists():
            return []
        with self.run.metrics.open(newline="") as stream:
            return list(csv.DictReader(stream))

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows[:-1])
        self._row_start = len(text.getvalue().encode())
        writer.writerows(rows[-1:])
        write_atomically(self.run.metrics, text.getvalue())


def save_shown(shown: Shown, folder: Path, stem: str) -> list[Path]:
    """Writes pictures, texts and profiles under their names put into `stem`, and tells the files."""
    files = []
    for name, picture in shown.pictures.items():
        files.append(folder / f"{stem.format(name)}.png")
        picture.save(files[-1])
    for name, text in shown.texts.items():
        files.append(folder / f"{stem.format(name)}.txt")
        write_atomically(files[-1], text + "\n")
    for name, profile in shown.profiles.items():
        files.append(folder / f"{stem.format(name)}.csv")
        positions = profile.positions or range(1, len(profile.values) + 1)
        rows = [f"{position},{value:.6g}" for position, value in zip(positions, profile.values)]
        write_atomically(files[-1], "\n".join([f"{profile.position},{profile.value}", *rows]) + "\n")
    return files


def rank() -> int:
    """Of this process among those that train together, 0 if alone; known before they meet."""
    return int(getattr(rank_zero_only, "rank", 0) or 0)


def plain(config: DictConfig) -> dict[str, Any]:
    """As dicts and lists, resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _finite(value: Any) -> Any:
    """JSON has no NaN: it becomes null."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
