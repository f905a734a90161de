"""A run as its folder describes it: config, results, learning curves, pictures. Read-only, and without torch."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from epochal.core.files import AXES, slug
from epochal.core.format import printable
from epochal.core.metrics import COSTS

STATUSES = ("finished", "running", "failed", "stopped", "pruned")
LARGEST = 1e100  # larger values are no measurements, and their squares overflow
TRAINING_FLOPS = "training_flops"  # an axis of learning curves, which follows from the examples
TRAINING = 3  # times the FLOPs of a forward pass: a backward pass takes two
MAX_SIZE = 10_000_000  # bytes of a file with results of evaluate.py
SILENT = 600  # seconds without a written file after which a "running" run counts as silent
STEP_FILE = re.compile(r"(?P<name>.+)_(?P<step>\d{6,})")

Value = float | int | str | bool | None
Curve = tuple[np.ndarray, np.ndarray]


class Picture(NamedTuple):
    """A picture or text that a run wrote; step is None after the training."""

    name: str
    step: int | None
    path: Path


class Profile(NamedTuple):
    """Values by position, such as gradient norms by time step: x and y are (n,), the labels those of the file."""

    x_label: str
    y_label: str
    x: np.ndarray
    y: np.ndarray


class Skipped(NamedTuple):
    """A folder that holds no run that can be compared, and why."""

    path: Path
    reason: str


@dataclass(eq=False)
class Record:
    """One run. Learning curves and pictures are read on first access.

    Attributes:
        folder: The run folder.
        status: finished, running, failed, stopped or pruned, as summary.json says; see also `shown_status`.
        config: Every key, dotted; lists as JSON text.
        summary: summary.json.
        typed: The overrides of the command line and the grid.
        touched: When its files were last written, in seconds since 1970.
        stamp: Modification times of its files; changes when one of them does.
    """

    folder: Path
    status: str
    config: dict[str, Value]
    summary: dict[str, Any]
    typed: tuple[str, ...] = ()
    touched: float = 0.0
    stamp: tuple[int, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        return str(printable(self.folder.name))

    @property
    def seed(self) -> Value:
        return self.config.get("seed")

    @property
    def overridden(self) -> frozenset[str]:
        """The keys of what was typed: model and model.dropout for `model=mlp +model.dropout=0.1`."""
        return frozenset(override.partition("=")[0].lstrip("+~") for override in self.typed)

    @property
    def error(self) -> str | None:
        """Why it failed, or None."""
        error = self.summary.get("error")
        return str(error) if error else None

    @property
    def shown_status(self) -> str:
        """The status, or "silent" if it is "running" but wrote nothing for ten minutes: it was probably killed."""
        return "silent" if self.status == "running" and time.time() - self.touched > SILENT else self.status

    @property
    def progress(self) -> float:
        """The fraction of its steps that are done, 0 to 1."""
        if self.status == "finished":
            return 1.0
        steps, total = usable_number(self.summary.get("steps")) or 0.0, usable_number(self.summary.get("total_steps"))
        if "step" in self.columns and len(self.columns["step"]):  # newer than the summary of the last checkpoint
            steps = max(steps, float(np.nanmax(self.columns["step"])))
        return min(1.0, steps / total) if total else 0.0

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric, for each accuracy also the error (1 - accuracy), and what is in `evaluated`."""
        found = {
            name: value
            for name, v in (self.summary.get("metrics") or {}).items()
            if (value := usable_number(v)) is not None
        }
        if self.status != "finished":
            for name, column in self.columns.items():
                if name not in AXES and len(values := column[np.isfinite(column)]):
                    found[name] = float(values[-1])
        for name in [name for name in found if name.endswith("/accuracy")]:
            found.setdefault(name.removesuffix("accuracy") + "error", 1 - found[name])
        return {**self.evaluated, **found}

    @cached_property
    def evaluated(self) -> dict[str, float]:
        """What evaluate.py found since on other data (`fashion_mnist/accuracy`), few-shot questions and tasks of
        lm-evaluation-harness (`sst2/shots_4/accuracy`)."""
        found, folder = dict[str, float](), self.folder / "evaluation"
        for file in sorted(folder.glob("*/metrics.json")):
            if (data := file.parent.name) == slug(str(self.config.get("dataset.name"))):
                continue
            for name, value in _content(file, self.folder).items():
                if name.startswith("test/") and (number := usable_number(value)) is not None:
                    found[f"{data.removesuffix('_few_shot')}/{name.removeprefix('test/')}"] = number
        for file in sorted((folder / "lm_eval").glob("*.json")):
            read = _content(file, self.folder)
            task, shots, metrics = (read.get(key) for key in ("task", "shots", "metrics"))
            if isinstance(metrics, Mapping) and isinstance(task, str) and isinstance(shots, int):
                for name, value in metrics.items():
                    if (number := usable_number(value)) is not None:
                        found[f"{slug(task)}/shots_{shots}/{name}"] = number
        return found

    @property
    def names(self) -> list[str]:
        """All names that `value` accepts."""
        costs = [name for name in COSTS if usable_number(self.summary.get(name)) is not None]
        return [*self.metrics, *costs, *self.config]

    def value(self, name: str) -> Value:
        """The value of a metric (the last one), a cost (parameters, flops, seconds ...) or a config key, or None."""
        if "/" in name:
            return self.metrics.get(name)
        if name in COSTS:
            return usable_number(self.summary.get(name))
        return self.config.get(name)

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """metrics.csv as (rows,) arrays, NaN where nothing was logged; {} if it is missing or cannot be read."""
        file = self.folder / "metrics.csv"
        return read_columns(file) if own_file(file, self.folder) else {}

    def curve(self, metric: str, x: str = "step") -> Curve | None:
        """The learning curve of a metric: two (n,) arrays, the axis and the finite values; None if there is none."""
        if x == TRAINING_FLOPS:
            # of texts those of one of the mean length, as they are padded only to the longest of a batch
            found = (usable_number(self.summary.get(name)) for name in ("flops_at_mean_length", "flops"))
            flops, curve = next((each for each in found if each), None), self.curve(metric, "examples")
            return (TRAINING * flops * curve[0], curve[1]) if flops and curve else None
        columns = self.columns
        if metric not in columns and metric.endswith("/error"):
            accuracy = self.curve(metric.removesuffix("error") + "accuracy", x)
            return (accuracy[0], 1 - accuracy[1]) if accuracy else None
        if metric not in columns or x not in columns:
            return None
        kept = np.isfinite(columns[metric]) & np.isfinite(columns[x])
        return (columns[x][kept], columns[metric][kept]) if kept.any() else None

    def profile(self, name: str) -> Profile | None:
        """The profile of a name: the one of the test, or else the newest; None if there is none."""
        paths = [(float(m["step"]), p) for p, m in self._during_training(".csv") if m["name"] == name]
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
        """The names that `profile` accepts."""
        tested = {p.stem.removeprefix("test_") for p in self._files if p.match("test_*.csv")}
        return sorted({m["name"] for _, m in self._during_training(".csv")} | tested)

    def pictures(self) -> list[Picture]:
        """Sorted by name and step, those of the test last.

        Explanations that evaluate.py made of the run's own data replace those of the test.
        """
        during = [Picture(m["name"], int(m["step"]), path) for path, m in self._during_training(".png", ".txt")]
        after = [
            Picture(path.stem.removeprefix("test_"), None, path)
            for path in self._files
            if path.stem.startswith("test_") and path.suffix in (".png", ".txt")
        ]
        explained = [Picture(self._explained_name(path), None, path) for path in self._explained]
        replaced = {picture.name for picture in explained}
        after = [picture for picture in after if picture.name not in replaced]
        return sorted([*during, *after, *explained], key=lambda p: (p.name, p.step is None, p.step or 0))

    def _explained_name(self, path: Path) -> str:
        """The picture's name, with the data set if it is not the run's own."""
        own = path.parent.name == slug(str(self.config.get("dataset.name")))
        return path.stem if own else f"{path.stem} on {path.parent.name}"

    def _during_training(self, *suffixes: str) -> Iterator[tuple[Path, re.Match[str]]]:
        for path in self._files:
            if path.suffix in suffixes and (match := STEP_FILE.fullmatch(path.stem)):
                yield path, match

    def forget_pictures(self) -> None:
        """Lists the pictures again on next access: they appear without the other files changing."""
        for name in ("_files", "_explained"):
            self.__dict__.pop(name, None)

    @cached_property
    def _explained(self) -> list[Path]:
        return [
            path for path in sorted((self.folder / "evaluation").glob("*/explain_*.png")) if own_file(path, self.folder)
        ]

    @cached_property
    def _files(self) -> list[Path]:
        try:
            return [path for path in sorted((self.folder / "pictures").iterdir()) if own_file(path, self.folder)]
        except OSError:
            return []


def own_file(path: Path, folder: Path) -> bool:
    """Whether a path is a regular file of a run's folder, or is not there.

    A link to a file elsewhere is none: the page is made to be shared, and a stranger's run could show any file in it. Nor
    are pipes and devices, whose reading never ends.
    """
    try:
        real = path.resolve()
        return real.is_relative_to(folder.resolve()) and (real.is_file() or not real.exists())
    except (OSError, RuntimeError):  # a link to itself
        return False


def _content(file: Path, folder: Path) -> dict[str, Any]:
    """A JSON object in a run's folder; empty where there is none that can be read."""
    try:
        if not own_file(file, folder) or file.stat().st_size > MAX_SIZE:
            return {}
        found = printable(json.loads(file.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV file of numbers, (rows,) float64 each, NaN for values that cannot be drawn; {} if unreadable.

    An unfinished last line, left by a killed process, is dropped.
    """
    import pyarrow as pa  # three times faster than the readers in NumPy and plain Python
    from pyarrow import csv

    try:
        data = path.read_bytes()
        data = data[: data.rindex(b"\n") + 1]
        names = printable(data[: data.index(b"\n")].decode().rstrip("\r")).split(",")
        table = csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(use_threads=False, block_size=max(len(data), 1), column_names=names, skip_rows=1),
            csv.ParseOptions(invalid_row_handler=lambda row: "skip"),
            csv.ConvertOptions(column_types={name: pa.float64() for name in names}),
        )
    except (OSError, ValueError):  # pyarrow's errors of content are ValueErrors
        return {}
    return {name: _numpy(column.combine_chunks()) for name, column in zip(table.column_names, table.columns)}


def _numpy(array: Any) -> np.ndarray:
    """An Arrow array as float64, (n,), NaN for null. Arrow's `to_numpy` would import pandas, which takes half a second."""
    valid, values = array.buffers()
    start, count = array.offset, len(array)
    found = np.frombuffer(values, np.float64)[start : start + count] if values is not None else np.full(count, np.nan)
    found = np.where(np.abs(found) < LARGEST, found, np.nan)
    if valid is None:
        return found
    present = np.unpackbits(np.frombuffer(valid, np.uint8), count=start + count, bitorder="little")[start:]
    return np.where(present, found, np.nan)


def usable_number(value: Any) -> float | int | None:
    """The value if it is a number that can be computed with, or None."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST else None
