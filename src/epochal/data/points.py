"""Points in the plane and the classes they are of: what a small network can be watched learning.

Kinds and scale are those of TensorFlow Playground (Smilkov et al.: Direct-Manipulation Visualization of Deep Networks, 2017,
arXiv 1708.03788), for any number of classes.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError
from epochal.core.files import expanded
from epochal.core.seeds import mix
from epochal.core.specs import Classes, Inputs, Outputs, Series
from epochal.data.batching import Batch, BatchIndices
from epochal.data.counter_rng import normal, uniform
from epochal.data.datamodule import SPLITS, DataModule, check_count

SPAN = 6.0  # all points lie in the square from -SPAN to SPAN
RADIUS = 5.0  # of the points without noise
MOST_CLASSES = 8
LEAST_OWN, MOST_OWN = 10, 100_000  # points of a file
HEADER = ["x", "y", "class"]


def circles(drawn: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Rings around each other, the first class in the middle; drawn: (N, 2) in [0, 1); (N, 2)."""
    radius = RADIUS * (labels + 0.8 * drawn[:, 0]) / (classes - 0.2)
    return _polar(radius, 2 * math.pi * drawn[:, 1])


def spiral(drawn: Tensor, labels: Tensor, classes: int) -> Tensor:
    """An arm of 1.75 turns for each class; as `circles`."""
    return _polar(RADIUS * drawn[:, 0], 2 * math.pi * (1.75 * drawn[:, 0] + labels / classes))


def xor(drawn: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Exclusive or: the first class where x and y have one sign, with a gap along the axes; as `circles`."""
    gap = 0.3
    size = gap + (RADIUS - gap) * (2 * drawn - 1).abs()
    side = torch.where(drawn[:, 0] < 0.5, -1.0, 1.0).double()  # of x
    return size * torch.stack((side, side * (1 - 2 * labels)), dim=1)


def blobs(drawn: Tensor, labels: Tensor, classes: int) -> Tensor:
    """A normal distribution for each class, around a point of a circle; as `circles`."""
    centres = _polar(torch.full_like(drawn[:, 0], 0.6 * RADIUS), 2 * math.pi * (labels / classes + 1 / 8))
    return centres + 0.6 * torch.special.ndtri(drawn.clamp(min=2.0**-54))


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack((radius * torch.sin(angle), radius * torch.cos(angle)), dim=1)


KINDS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "circles": circles,
    "spiral": spiral,
    "xor": xor,
    "blobs": blobs,
}


class PointRows(Dataset[Batch]):
    """Points (N, 1, 2) and their labels (N,)."""

    def __init__(self, points: Tensor, labels: Tensor) -> None:
        self.points, self.labels = points, labels

    def __getitem__(self, batch: BatchIndices) -> Batch:
        return Batch(self.points[batch.rows], self.labels[batch.rows], batch.seed)


class Points(DataModule):
    """Classification of points (x, y) in the square from -6 to 6, each read as a series of one step.

    Made points depend on (split_seed, split, row) alone; those of a file are divided by split_seed, a fifth for validation
    and a fifth for the test.

    Args:
        kind: circles, spiral, xor, blobs, or own, the points of a file.
        classes: How many, 2 to 8; of xor always 2, of own those of the file.
        noise: Standard deviation of what is added to x and y.
        train_size, validation, test: Points; of own those of the file.
        path: Of kind own: a CSV file with the columns x, y and class.
        split_seed: Decides the points, or how those of a file are divided.
        **options: See `DataModule`.

    Raises:
        ConfigError: If an option is out of range, or kind and path do not go together.
    """

    targets: ClassVar = ("classes",)
    yields: ClassVar = Series
    unit: ClassVar = "points"

    def __init__(
        self,
        *,
        kind: str = "spiral",
        classes: int = 2,
        noise: float = 0.1,
        train_size: int = 1_000,
        validation: int = 500,
        test: int = 1_000,
        path: str | None = None,
        split_seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if kind not in (*KINDS, "own"):
            raise ConfigError(f"dataset.kind={kind} must be one of {', '.join(KINDS)} and own.")
        if (kind == "own") != (path is not None):
            raise ConfigError("dataset.path is the file of dataset.kind=own; give both, or neither.")
        check_count("classes", classes, 2)
        if classes > MOST_CLASSES or (kind == "xor" and classes != 2):
            raise ConfigError(f"dataset.classes={classes} must be {'2 for xor' if kind == 'xor' else 'from 2 to 8'}.")
        if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise <= 1:
            raise ConfigError(f"dataset.noise={noise} must be a number from 0 to 1.")
        self._counts = {"train": train_size, "val": validation, "test": test}
        for option, count in zip(("train_size", "validation", "test"), self._counts.values(), strict=True):
            check_count(option, count)
        self.kind, self.noise, self.path, self.split_seed, self._made = kind, noise, path, split_seed, classes

    def prepare(self) -> None:
        if self.kind == "own":
            splits = self._own()
        else:
            self.classes = Classes(tuple(map(str, range(self._made))))
            splits = {split: self._make(split) for split in SPLITS}
        digest = hashlib.sha256(repr(self.classes.names).encode())
        for points, labels in splits.values():
            digest.update(points.numpy().tobytes() + labels.numpy().tobytes())
        self.check_batch_size(len(splits["train"][1]))
        self._rows = {split: PointRows(*rows) for split, rows in splits.items()}
        self.fingerprint = digest.hexdigest()[:16]

    def _make(self, split: str) -> tuple[Tensor, Tensor]:
        """Points (N, 1, 2) and labels (N,) of a split; the classes take turns."""
        seed, numbers = mix(self.split_seed, SPLITS.index(split)), torch.arange(self._counts[split])
        labels = numbers % self._made
        points = KINDS[self.kind](uniform(seed, numbers, 2), labels, self._made)
        points = points + self.noise * normal(mix(seed, 1), numbers, 2)
        return points.clamp(-SPAN, SPAN).float()[:, None], labels

    def _own(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The points of the file by split, in the order of the file."""
        assert self.path is not None
        points, names = read_points(expanded(self.path))
        self.classes = Classes(tuple(sorted(set(names))))
        labels = torch.tensor([self.classes.names.index(name) for name in names])
        order = np.random.default_rng(self.split_seed).permutation(len(labels))
        held = len(labels) // 5
        parts = {"train": order[2 * held :], "val": order[:held], "test": order[held : 2 * held]}
        rows = {split: torch.from_numpy(np.sort(part)) for split, part in parts.items()}
        return {split: (torch.from_numpy(points)[found][:, None], labels[found]) for split, found in rows.items()}

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], target: str) -> list[tuple[Inputs, Outputs]]:
        classes = config.get("classes", 2)
        count = classes if isinstance(classes, int) and 2 <= classes <= MOST_CLASSES else 2
        return [(Series(1, 2), Classes(tuple(map(str, range(count)))))]

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        return Series(1, 2), self.classes

    def rows(self, split: str) -> tuple[PointRows, int]:
        rows = self._rows[split]
        return rows, len(rows.labels)

    def text(self, split: str, number: int) -> str:
        """A point as it is written, e.g. "(1.20, -0.35)"."""
        x, y = self._rows[split].points[number, 0].tolist()
        return f"({x:.2f}, {y:.2f})"

    def encode(self, examples: Sequence[Any]) -> tuple[Tensor, None]:
        try:
            points = torch.tensor([[float(x), float(y)] for x, y in examples]).reshape(-1, 1, 2)
        except (TypeError, ValueError) as error:
            raise ConfigError("A point is given as two numbers, such as [1.5, -2].") from error
        return points, None


def read_points(path: Path) -> tuple[np.ndarray, list[str]]:
    """Points (N, 2) float32 of a CSV file with the columns x, y and class, and the names of their classes.

    Raises:
        ConfigError: If the file cannot be read, has other columns, fewer than 10 or more than 100,000 points, one that is
            out of the square, or not 2 to 8 classes.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file, strict=True)) or [[]]
        rows = [row for row in rows if row]
        points = np.array([[float(x), float(y)] for x, y, _ in rows], np.float32).reshape(-1, 2)
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"dataset.path={path} cannot be read as points: it must be a CSV file with the columns x, y and class."
        ) from error
    if [name.strip() for name in header] != HEADER:
        raise ConfigError(f"dataset.path={path} must have the columns x, y and class in its first line.")
    names = [row[2].strip() for row in rows]
    if not LEAST_OWN <= len(rows) <= MOST_OWN:
        raise ConfigError(
            f"dataset.path={path} has {len(rows):,} points; there must be from {LEAST_OWN} to {MOST_OWN:,}."
        )
    if not (np.abs(points) <= SPAN).all():
        raise ConfigError(f"dataset.path={path} has a point outside the square from -{SPAN:g} to {SPAN:g}.")
    if not 2 <= len(set(names)) <= MOST_CLASSES:
        raise ConfigError(f"dataset.path={path} has {len(set(names))} classes; there must be from 2 to {MOST_CLASSES}.")
    return points, names


def grid(size: int) -> Tensor:
    """The middles of size x size equal squares of the plane, from the upper left, row by row: (size * size, 1, 2)."""
    middles = SPAN * ((2 * torch.arange(size) + 1) / size - 1)
    y, x = torch.meshgrid(-middles, middles, indexing="ij")
    return torch.stack((x, y), dim=2).reshape(-1, 1, 2)
