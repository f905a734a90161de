"""What data sets read from files or the Hub have in common: where they come from, and how rows are held out."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from epochal.core.errors import ConfigError
from epochal.data import sources
from epochal.data.datamodule import DataModule


class StoredData(DataModule):
    """Data from a local file or folder, or from the Hugging Face Hub, which is read once and kept in the cache.

    A validation or test split that the source does not have is held out of its training split.

    Args:
        path: Local file or folder, or id on the Hub.
        config: Configuration (subset) of a data set on the Hub.
        revision: Git revision of a data set on the Hub.
        validation: What to hold out for validation: a fraction in (0, 1) of the training split, or a count. Unused if
            the source has a validation split.
        test: The same for the test.
        train_size: How much of the rest to train on: a fraction in (0, 1] or a count; None is all of it.
        **options: See `DataModule`.
    """

    encoding: str | None = (
        None  # of local text files, by its name in Python; None: UTF-8, or as a byte order mark tells
    )

    def __init__(
        self,
        *,
        path: str | None,
        config: str | None = None,
        revision: str | None = None,
        validation: int | float = 0.1,
        test: int | float = 0.1,
        train_size: int | float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path, self.config, self.revision = None if path is None else str(path), config, revision
        self.validation, self.test, self.train_size = validation, test, train_size

    def check_typed(self, typed: Set[str]) -> None:
        if self.path is not None:
            sources.check_all_read(self.locate(), typed)

    def locate(self) -> sources.Source:
        """The file, folder or data set on the Hub that the options name.

        Raises:
            ConfigError: If they name none.
        """
        return sources.locate(self.name, self.path, config=self.config, revision=self.revision, encoding=self.encoding)


class StoredExamples(StoredData):
    """Stored data of independent examples, of which random ones are held out.

    Args:
        split_seed: Decides which rows are held out and which are trained on. It is not the run's seed, so that runs
            with different seeds are tested on the same rows.
        **options: See `StoredData`.
    """

    def __init__(self, *, split_seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.split_seed = split_seed

    def split_key(self) -> dict[str, Any]:
        """The options that decide which rows each split has, for the key of a cache."""
        sizes = {"validation": self.validation, "test": self.test, "train_size": self.train_size}
        return {**sizes, "split_seed": self.split_seed}

    def split_rows(self, counts: Mapping[str, int], order: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
        """Which rows each split has.

        Args:
            counts: Number of rows by role: "train", and "validation" and "test" if the source has them.
            order: (N,) the row numbers of train, shuffled; rows are held out from the beginning.

        Returns:
            By split ("test", "val", "train") the role that its rows come from, and their numbers, ascending.

        Raises:
            ConfigError: If `validation`, `test` or `train_size` asks for no row, or for more than there are.
        """
        splits = {}
        for split, role, part in (("test", "test", self.test), ("val", "validation", self.validation)):
            if role in counts:
                splits[split] = role, np.arange(counts[role])
            else:
                held_out = count_of(part, len(order) - 1, f"dataset.{role}")
                splits[split], order = ("train", np.sort(order[:held_out])), order[held_out:]
        kept = count_of(self.train_size, len(order), "dataset.train_size")
        splits["train"] = "train", np.sort(order[:kept])
        return splits


def count_of(part: int | float | None, total: int, option: str, unit: str = "rows") -> int:
    """The number of rows that a part of the total is.

    Args:
        part: A count, or a fraction in (0, 1] as a float; None is all.
        total: Number of rows there are.
        option: Its name in the config, for the message.
        unit: What is counted.

    Raises:
        ConfigError: If that is no row, or more than there are.
    """
    if part is None:
        return total
    count = round(part * total) if isinstance(part, float) and part <= 1 else int(part)
    if not 1 <= count <= total:
        raise ConfigError(
            f"{option}={part} makes {count:,} of {total:,} {unit}; give a count up to {total:,} or a fraction."
        )
    return count


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A shuffled order (N,) of the rows, of which every prefix has the classes (N,) in about their proportions."""
    random = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[random.permutation(rows)] = (np.arange(len(rows)) + random.random(len(rows))) / len(rows)
    return np.argsort(place, kind="stable")
