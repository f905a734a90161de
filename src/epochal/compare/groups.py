"""Groups of runs, the config keys in which runs differ, and means over a group."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np

from epochal.compare.labels import label
from epochal.compare.records import Curve, Record, Value

# keys that are not compared: they do not change what is trained
IGNORED = ("seed", "output_dir", "experiment", "resume", "allow", "threads", "default_duration")
IGNORED_GROUPS = ("logger.", "requested.", "asked.", "claim.", "sweep.", "hydra.")
ORDER = ("model", "dataset", "task", "optimizer", "scheduler", "trainer", "callbacks")  # of varying keys
MAX_POINTS = 400  # of a mean curve, at most
ALIKE = ("task.name", "dataset.name", "dataset.path")  # runs that differ in these are not ranked together
TRIALS = ("debug", "overfit")  # trainers whose runs only show that something runs, or can learn at all


class Spread(NamedTuple):
    """A value over n runs: std is the sample standard deviation (n - 1), None for a single run."""

    mean: float
    std: float | None
    n: int


class MeanCurve(NamedTuple):
    """A curve over n runs: x, mean and std are (points,); std is 0 for a single run."""

    x: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    n: int


@dataclass(frozen=True, eq=False)
class Group:
    """Runs with the same values of some keys.

    Attributes:
        values: These, by key.
        records: The runs.
    """

    values: dict[str, Value]
    records: tuple[Record, ...]

    @property
    def label(self) -> str:
        return label(self.values)

    @property
    def finished(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.status == "finished")

    @property
    def counted(self) -> tuple[Record, ...]:
        """The runs that its means are over: the finished ones; while there are none, those that have not failed, or all."""
        return self.finished or tuple(record for record in self.records if record.status != "failed") or self.records

    def spread(self, name: str) -> Spread | None:
        """Mean, standard deviation and n of a value over the counted runs; None if none of them has it."""
        values = [float(v) for r in self.counted if isinstance(v := r.value(name), int | float)]
        return Spread(mean(values), stdev(values) if len(values) > 1 else None, len(values)) if values else None

    def mean_curve(self, metric: str, x: str = "step") -> MeanCurve | None:
        """Mean and standard deviation of the counted runs' curves, where all of them have values; None if nowhere."""
        curves = [curve for record in self.counted if (curve := record.curve(metric, x)) is not None]
        shared = together(curves)
        if shared is None:
            return None
        grid, values = shared
        std = values.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(len(grid))
        return MeanCurve(grid, values.mean(axis=0), std, len(curves))


def together(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray] | None:
    """Curves on a common axis, (points,), as (curves, points), where all of them have values; None if nowhere.

    Values are interpolated linearly where curves were logged at different places, as over seconds.
    """
    if not curves:
        return None
    first, last = max(xs[0] for xs, _ in curves), min(xs[-1] for xs, _ in curves)
    grid = np.unique(np.concatenate([xs for xs, _ in curves]))
    grid = grid[(grid >= first) & (grid <= last)]
    if not len(grid):
        return None
    grid = grid[np.unique(np.linspace(0, len(grid) - 1, min(len(grid), MAX_POINTS)).round().astype(int))]
    return grid, np.stack([np.interp(grid, xs, ys) for xs, ys in curves])


def varying(records: Sequence[Record], named: Collection[str] = ()) -> list[str]:
    """The config keys in which runs differ, those of the model first.

    Left out are the seed, output paths, and keys that are determined by others: with `model=mlp,resnet` the learning
    rates that come with the two models. Keys from the command line are never left out.

    Args:
        records: The runs.
        named: Keys that a claim tells its runs apart by, which are never left out instead: what its grid sets along with
            them says nothing more.
    """
    keys = sorted({key for record in records for key in record.config}, key=_rank)
    columns = {key: tuple(record.config.get(key) for record in records) for key in keys if not _is_ignored(key)}
    columns = {key: column for key, column in columns.items() if len(set(column)) > 1}
    overridden = {*named} or {key for record in records for key in record.overridden}
    overridden |= {f"{key}.name" for key in overridden}  # model=resnet sets model.name
    found: list[str] = []
    # names before what comes with them: the patch size that fits a data set follows its name, not the other way round
    for key in sorted(columns, key=lambda key: (key not in overridden, not key.endswith(".name"))):
        combinations = set(zip(*(columns[other] for other in found))) if found else {()}
        with_key = set(zip(*(columns[other] for other in found), columns[key]))
        twin = any(columns[key] == columns[other] for other in found)  # such as an interpolation, ${other.key}
        if not twin and (key in overridden or len(with_key) > len(combinations)):
            found.append(key)
    return sorted(found, key=_rank)


def grouped(records: Iterable[Record], by: Sequence[str]) -> list[Group]:
    """Groups of runs with the same values of some names, sorted by these values."""
    groups: dict[tuple[Value, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record.value(name) for name in by), []).append(record)
    ordered = sorted(groups, key=lambda values: [_order(value) for value in values])
    return [Group(dict(zip(by, values)), tuple(groups[values])) for values in ordered]


def trial(record: Record) -> str:
    """debug or overfit, if it is of such a trainer; else empty."""
    name = record.value("trainer.name")
    return str(name) if name in TRIALS else ""


def kinds(records: Iterable[Record]) -> list[Group]:
    """Runs that can be ranked together: of one task and data set. Trials, which are none of them, come last."""
    found: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        found.setdefault((trial(record), *(str(record.value(key)) for key in ALIKE)), []).append(record)
    return [Group(_kind(found[key][0], key[0]), tuple(found[key])) for key in sorted(found)]


def _kind(record: Record, trainer: str) -> dict[str, Value]:
    """By what it is ranked: its trainer, if it is a trial, its data set and task."""
    names = {"dataset.name": record.value("dataset.name"), "task.name": record.value("task.name")}
    return {"trainer.name": f"trainer={trainer}", **names} if trainer else names


def _is_ignored(key: str) -> bool:
    # a group without keys, as of logger=none, is a key itself
    return key in IGNORED or f"{key}.".startswith(IGNORED_GROUPS) or key.endswith(("._target_", "._partial_"))


def _rank(key: str) -> tuple[int, bool, str]:
    """Sort key: the model first, in each config group its name first; top-level keys before trainer and callbacks."""
    group = key.partition(".")[0]
    place = ORDER.index(group) if group in ORDER else len(ORDER) - 2.5
    return int(2 * place), not key.endswith(".name"), key


def _order(value: Value) -> tuple[int, float, str]:
    """Sort key for values of different types: None, then numbers, then strings."""
    if value is None:
        return 0, 0.0, ""
    return (2, 0.0, value) if isinstance(value, str) else (1, float(value), "")
