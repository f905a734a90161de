"""Run folders as they are found: finished, going on, or broken. Nothing here writes, and nothing here imports torch."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from epochal.config.compose import flat
from epochal.core.errors import ConfigError
from epochal.core.files import AXES, expanded, slug

COSTS = ("parameters", "flops", "examples_per_second", "seconds", "peak_memory_mb", "steps", "epochs")
STATUSES = ("finished", "running", "failed", "stopped", "pruned")
LARGEST = 1e100  # what is beyond is no measured value, and its square no number
SILENT = 600  # seconds without a sign of life after which a run that says "running" is not believed
SHOWN = re.compile(r"(?P<name>.+)_(?P<step>\d{6,})")

Value = float | int | str | bool | None
Curve = tuple[np.ndarray, np.ndarray]


class Picture(NamedTuple):
    """A picture or a text that a run showed; of the test, step is None."""

    name: str
    step: int | None
    path: Path


class Profile(NamedTuple):
    """Values by position, such as a gradient by time step; the labels are the file's own."""

    x_label: str
    y_label: str
    x: np.ndarray
    y: np.ndarray


class Skipped(NamedTuple):
    """What is no run that can be compared, and why."""

    path: Path
    reason: str


@dataclass(eq=False)
class Record:
    """One run. What it logged is read when it is first asked for.

    Attributes:
        folder: The run folder.
        status: finished, running, failed, stopped or pruned, as summary.json says; see also `shown_status`.
        config: Every key, dotted; lists as text.
        summary: summary.json.
        typed: The config keys that the person who started the run gave a value.
        touched: When its files were last written, in seconds since 1970.
    """

    folder: Path
    status: str
    config: dict[str, Value]
    summary: dict[str, Any]
    typed: frozenset[str] = frozenset()
    touched: float = 0.0
    stamp: tuple[int, ...] = field(default=(), repr=False)  # changes when a file does

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seed(self) -> Value:
        return self.config.get("seed")

    @property
    def error(self) -> str | None:
        """Why it failed."""
        error = self.summary.get("error")
        return str(error) if error else None

    @property
    def shown_status(self) -> str:
        """The status, or "silent" if it says "running" and wrote nothing for ten minutes: it was probably killed."""
        return "silent" if self.status == "running" and time.time() - self.touched > SILENT else self.status

    @property
    def progress(self) -> float:
        """The part of its steps that are done, 0 to 1."""
        if self.status == "finished":
            return 1.0
        steps, total = _number(self.summary.get("steps")) or 0.0, _number(self.summary.get("total_steps"))
        if "step" in self.columns and len(self.columns["step"]):  # newer than the summary of the last checkpoint
            steps = max(steps, float(np.nanmax(self.columns["step"])))
        return min(1.0, steps / total) if total else 0.0

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric, the error of each accuracy among them; of a run that goes on, the newest."""
        found = {
            name: value for name, v in (self.summary.get("metrics") or {}).items() if (value := _number(v)) is not None
        }
        if self.status != "finished":
            for name, column in self.columns.items():
                if name not in AXES and len(values := column[np.isfinite(column)]):
                    found[name] = float(values[-1])
        for name in [name for name in found if name.endswith("/accuracy")]:
            found.setdefault(name.removesuffix("accuracy") + "error", 1 - found[name])
        return found

    @property
    def names(self) -> list[str]:
        """All that `value` knows."""
        costs = [name for name in COSTS if _number(self.summary.get(name)) is not None]
        return [*self.metrics, *costs, *self.config]

    def value(self, name: str) -> Value:
        """A metric's last value, a cost (parameters, flops, seconds ...) or a config key's; None where it has none."""
        if "/" in name:
            return self.metrics.get(name)
        if name in COSTS:
            return _number(self.summary.get(name))
        return self.config.get(name)

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """metrics.csv as (rows,) arrays, NaN where nothing was logged; empty where it is missing or cannot be read."""
        return read_columns(self.folder / "metrics.csv")

    def curve(self, metric: str, x: str = "step") -> Curve | None:
        """What was logged of a metric: two (n,) arrays, the axis and the values, finite ones only."""
        columns = self.columns
        if metric not in columns and metric.endswith("/error"):
            accuracy = self.curve(metric.removesuffix("error") + "accuracy", x)
            return (accuracy[0], 1 - accuracy[1]) if accuracy else None
        if metric not in columns or x not in columns:
            return None
        kept = np.isfinite(columns[metric]) & np.isfinite(columns[x])
        return (columns[x][kept], columns[metric][kept]) if kept.any() else None

    def profile(self, name: str) -> Profile | None:
        """The test's of a name, or the newest."""
        paths = [(float(m["step"]), p) for p, m in self._shown(".csv") if m["name"] == name]
        paths += [(math.inf, p) for p in self._files if p.name == f"test_{name}.csv"]
        if not paths:
            return None
        path = max(paths)[1]
        columns = list(read_columns(path).items())
        if len(columns) != 2:
            return None
        (x_label, x), (y_label, y) = columns
        kept = np.isfinite(x) & np.isfinite(y)
        return Profile(x_label, y_label, x[kept], y[kept])

    @property
    def profiles(self) -> list[str]:
        """The names that `profile` knows."""
        tested = {p.stem.removeprefix("test_") for p in self._files if p.match("test_*.csv")}
        return sorted({m["name"] for _, m in self._shown(".csv")} | tested)

    def pictures(self) -> list[Picture]:
        """By name, then step; the test's last. Among them what evaluate.py explained, newest of all on the run's own data."""
        during = [Picture(m["name"], int(m["step"]), path) for path, m in self._shown(".png", ".txt")]
        after = [
            Picture(path.stem.removeprefix("test_"), None, path)
            for path in self._files
            if path.stem.startswith("test_") and path.suffix in (".png", ".txt")
        ]
        explained = [Picture(self._explained_name(path), None, path) for path in self._explained]
        again = {picture.name for picture in explained}
        after = [picture for picture in after if picture.name not in again]
        return sorted([*during, *after, *explained], key=lambda p: (p.name, p.step is None, p.step or 0))

    def _explained_name(self, path: Path) -> str:
        """With the data set, if it is not the run's own."""
        own = path.parent.name == slug(str(self.config.get("dataset.name")))
        return path.stem if own else f"{path.stem} on {path.parent.name}"

    def _shown(self, *suffixes: str) -> Iterator[tuple[Path, re.Match[str]]]:
        for path in self._files:
            if path.suffix in suffixes and (match := SHOWN.fullmatch(path.stem)):
                yield path, match

    @cached_property
    def _explained(self) -> list[Path]:
        return sorted((self.folder / "evaluation").glob("*/explain_*.png"))

    @cached_property
    def _files(self) -> list[Path]:
        try:
            return sorted((self.folder / "pictures").iterdir())
        except OSError:
            return []


def read(paths: Iterable[str | Path], known: Iterable[Record] = ()) -> tuple[list[Record], list[Skipped]]:
    """The runs in some folders, and what is none.

    Args:
        paths: Run folders, folders of run folders, or patterns (`outputs/runs/*`).
        known: Records of an earlier call: those whose files did not change since are used again.

    Raises:
        ConfigError: If a path is not there.
    """
    earlier = {record.folder: record for record in known}
    records: dict[Path, Record] = {}
    skipped: dict[Path, Skipped] = {}
    for path in paths:
        for folder in _folders(path):
            if folder in records or folder in skipped:
                continue
            try:
                found = _record(folder, earlier.get(folder))
            except OSError as error:
                found = f"a folder that cannot be opened ({error.strerror})"
            if isinstance(found, Record):
                records[folder] = found
            else:
                skipped[folder] = Skipped(folder, found)
    return list(records.values()), list(skipped.values())


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """A CSV file of numbers by its header, (rows,) float64 each, NaN for no number that can be drawn; {} if it is none.

    A last line that a kill cut off is left out.
    """
    import pyarrow as pa  # three times quicker than any reader in numpy or plain Python that was tried
    from pyarrow import csv

    try:
        data = path.read_bytes()
        data = data[: data.rindex(b"\n") + 1]
        names = data[: data.index(b"\n")].decode().rstrip("\r").split(",")
        table = csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(use_threads=False, block_size=max(len(data), 1), column_names=names, skip_rows=1),
            csv.ParseOptions(invalid_row_handler=lambda row: "skip"),
            csv.ConvertOptions(column_types={name: pa.float64() for name in names}),
        )
    except (OSError, ValueError):  # pyarrow's errors of content are ValueErrors
        return {}
    return {name: _numpy(column.combine_chunks()) for name, column in zip(table.column_names, table.columns)}


def _folders(path: str | Path) -> Iterator[Path]:
    """The folders, in order of their names, that a path of the command line stands for."""
    given = expanded(path).absolute()
    if not os.path.exists(given):  # unlike Path.exists it raises nothing, however long the name
        try:
            matches = sorted(Path(given.anchor).glob(str(given.relative_to(given.anchor)))) if _is_pattern(path) else []
        except ValueError as error:
            raise ConfigError(
                f"{path} is no pattern; ** stands for whole folders, as in outputs/**/*resnet*."
            ) from error
        if not matches:
            raise ConfigError(
                f"There is nothing at {path}; give run folders, or a folder of them such as outputs/runs."
            )
        for match in matches:
            yield from _inside(match)
        return
    yield from _inside(given)


def _inside(folder: Path) -> Iterator[Path]:
    """The folder itself if it is a run; else its folders, and the runs in those of them that hold runs."""
    if not os.path.isdir(folder) or _is_run(folder):
        yield folder
        return
    children = _subfolders(folder)
    runs = {
        child: [inner for inner in _subfolders(child) if _is_run(inner)] for child in children if not _is_run(child)
    }
    if len(runs) == len(children) and not any(runs.values()):
        yield folder
        return
    for child in children:
        yield from runs.get(child) or [child]


def _subfolders(folder: Path) -> list[Path]:
    """None of a folder that cannot be opened."""
    try:
        return sorted(path for path in folder.iterdir() if os.path.isdir(path) and not path.name.startswith("."))
    except OSError:
        return []


def _is_run(folder: Path) -> bool:
    return os.path.isfile(folder / "config.yaml")


def _is_pattern(path: str | Path) -> bool:
    return any(sign in str(path) for sign in "*?[")


def _record(folder: Path, known: Record | None) -> Record | str:
    """The run in a folder, or why there is none."""
    if not os.path.isdir(folder):
        return "a file, not a run folder"
    if not _is_run(folder):
        next(folder.iterdir(), None)  # raises where it cannot be opened
        return "not a run folder: neither it nor a folder in it has a config.yaml"
    times = [_time(folder / name) for name in ("config.yaml", "summary.json", "metrics.csv")]
    stamp = (*times, *map(_time, sorted((folder / "evaluation").glob("*"))))
    if known is not None and known.stamp == stamp:
        for name in ("_files", "_explained"):  # pictures come without the other files changing
            known.__dict__.pop(name, None)
        return known
    try:
        config = yaml.load((folder / "config.yaml").read_bytes(), yaml.CSafeLoader)
        if not isinstance(config, dict) or not all(isinstance(config.get(g), dict) for g in ("model", "dataset")):
            return "not a run of Epochal: its config.yaml has no model and dataset"
        config.pop("claim", None)  # an experiment's, the same in all its runs
        values = {key: _value(value) for key, value in flat(config).items()}
    except Exception:  # PyYAML raises whatever its tags come upon, and a YAML that holds itself has no end
        return "broken: its config.yaml cannot be read"
    try:
        summary = json.loads((folder / "summary.json").read_bytes())
    except FileNotFoundError:
        return "half-finished: it has no summary.json; the run ended before it began"
    except (OSError, ValueError, RecursionError):
        return "broken: its summary.json cannot be read"
    status = summary.get("status") if isinstance(summary, dict) else None
    if status not in STATUSES or not all(isinstance(summary.get(key), dict | None) for key in ("metrics", "best")):
        return "broken: its summary.json does not say how the run went"
    return Record(
        folder=folder,
        status=status,
        config=values,
        summary=summary,
        typed=_typed(folder / "overrides.yaml"),
        touched=max(times) / 1e9,
        stamp=stamp,
    )


def _value(value: Any) -> Value:
    """As text what is neither a word nor a number that can be drawn."""
    if isinstance(value, str | bool | None) or _number(value) is not None:
        return value
    return str(value) if isinstance(value, int | float) else json.dumps(value, default=str)


def _typed(path: Path) -> frozenset[str]:
    """`model=mlp +model.dropout=0.1` gives model and model.dropout."""
    try:
        overrides = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    except Exception:  # as in a config.yaml
        return frozenset()
    if not isinstance(overrides, list):
        return frozenset()
    return frozenset(str(override).partition("=")[0].lstrip("+~") for override in overrides)


def _numpy(array: Any) -> np.ndarray:
    """A float64 array of Arrow's, (n,), NaN for null. Its own `to_numpy` imports pandas first, which takes half a second."""
    valid, values = array.buffers()
    start, count = array.offset, len(array)
    found = np.frombuffer(values, np.float64)[start : start + count] if values is not None else np.full(count, np.nan)
    found = np.where(np.abs(found) < LARGEST, found, np.nan)
    if valid is None:
        return found
    there = np.unpackbits(np.frombuffer(valid, np.uint8), count=start + count, bitorder="little")[start:]
    return np.where(there, found, np.nan)


def _time(path: Path) -> int:
    """When it was written, in nanoseconds; 0 where it is not."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _number(value: Any) -> float | int | None:
    """A number that can be reckoned with, or None."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST else None
