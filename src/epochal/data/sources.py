"""Finds and opens data: a local copy, any file or folder, or the Hugging Face Hub, all by `datasets.load_dataset`."""

from __future__ import annotations

import errno
import functools
import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.files import expanded, relative
from epochal.core.hub import hub_is_reachable
from epochal.data import image_folders

if TYPE_CHECKING:
    from datasets import Dataset

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")  # suffixes of files with columns
FILES = (*TABLES, ".txt", ".md", ".gz", ".zip", ".npz", ".png", ".jpg")  # a path that ends so is no id on the Hub
BINARY = (".parquet", ".arrow")  # of these, those that say themselves how their texts are encoded
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test", "test_matched"),
}


@dataclass(frozen=True)
class Source:
    """A data set on this machine or on the Hub."""

    dataset: str  # the choice in conf/dataset, for messages
    path: str  # as the config gives it
    config: str | None
    revision: str | None
    local: Path | None  # the file or folder; None: on the Hub
    encoding: str | None = None  # of its text files; None: UTF-8, or the one that their byte order mark tells
    files: tuple[Path, ...] | None = None  # those of the folder that it is made of; None: all

    def contents(self) -> list[Path]:
        """The files of a source on this machine."""
        assert self.local is not None
        if self.local.is_file():
            return [self.local]
        return image_folders.files_in(self.local) if self.files is None else list(self.files)

    def fingerprint(self) -> dict[str, Any]:
        """A key that changes with the source: names, sizes and times of its files, or its id on the Hub."""
        if self.local is None:
            return {"hub": self.path, "config": self.config, "revision": self.revision}
        files = self.contents()
        listing = [(str(f.relative_to(self.local)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        part: dict[str, Any] = {"config": self.config} if self.config else {}
        part |= {"encoding": self.encoding} if self.encoding else {}
        if self.local.is_dir() and any(map(image_folders.is_picture, files)):
            part["pictures"] = image_folders.VERSION
        if self.files is not None and any(f.suffix.lower() in TABLES for f in self.files):
            part["matched"] = True  # older caches of tables hold all of the folder
        return {"local": str(self.local), "files": hashlib.sha256(repr(listing).encode()).hexdigest(), **part}


def locate(
    dataset: str,
    path: str | None,
    *,
    config: str | None = None,
    revision: str | None = None,
    encoding: str | None = None,
) -> Source:
    """Finds a data set: first a file or folder of that name, then a copy in the folder `EPOCHAL_DATA`, then the Hub.

    Args:
        dataset: The choice in conf/dataset, for messages.
        path: Local file or folder, or id on the Hub.
        config, revision: Of a data set on the Hub, see `StoredData`.
        encoding: Of its text files, see `StoredData`.

    Raises:
        ConfigError: If the path can be none of them, or the folder is empty.
    """
    if not path:
        raise ConfigError(
            f"dataset={dataset} needs dataset.path=<a folder, a file or the id of a data set on the Hub>."
        )
    local = expanded(path).absolute() if os.path.exists(expanded(path)) else None
    if local is None and HUB_ID.fullmatch(path) and (copies := os.environ.get("EPOCHAL_DATA")):
        root = Path(copies).expanduser().absolute()
        if not root.is_dir():
            raise ConfigError(f"EPOCHAL_DATA={copies} is no folder. Point it at your local copies, or unset it.")
        if (root / path.rpartition("/")[2]).exists():
            local = root / path.rpartition("/")[2]
    elif local is not None and Path(path).is_absolute():
        path = relative(local)  # for messages; it was made absolute in the run's config
    if local is None and (not HUB_ID.fullmatch(path) or Path(path).suffix.lower() in FILES):
        raise ConfigError(f"dataset.path={path} does not exist.")
    if local is not None and local.is_dir() and not image_folders.files_in(local):
        raise ConfigError(
            f"The folder {local} is empty; dataset={dataset} expects data in it, e.g. train.parquet, test.parquet."
        )
    return Source(dataset=dataset, path=path, config=config, revision=revision, local=local, encoding=encoding)


def matching(dataset: str, path: str | None, **options: Any) -> Source | None:
    """The files that a pattern such as `books/**/*.txt` matches, sorted; None if the path is no pattern.

    Args:
        **options: config, revision and encoding, see `locate`.

    Raises:
        ConfigError: If it matches none.
    """
    if not path or not glob.has_magic(path) or os.path.exists(expanded(path)):
        return None
    found = sorted(Path(name).absolute() for name in glob.glob(str(expanded(path)), recursive=True))
    files = tuple(file for file in found if file.is_file())
    if not files:
        raise ConfigError(f"dataset.path={path} matches no file.")
    folder = Path(os.path.commonpath([file.parent for file in files]))
    return Source(dataset, path, **{"config": None, "revision": None, **options}, local=folder, files=files)


def check_all_read(source: Source, typed: Set[str]) -> None:
    """Raises ConfigError if one of these options was typed and a source of its kind has no use for it."""
    if source.local is None:
        if source.encoding and "encoding" in typed:
            raise ConfigError(
                f"dataset.encoding={source.encoding} is of local text files, and {source.path} is read from the Hub: leave "
                "it out."
            )
        return
    if "revision" in typed:
        raise ConfigError(
            f"dataset.revision={source.revision} is of data sets on the Hub, and {source.path} is read from "
            f"{source.local}, whose revision nobody knows: leave it out"
            + (", or unset EPOCHAL_DATA to read it from the Hub." if "EPOCHAL_DATA" in os.environ else ".")
        )
    if "config" in typed and (source.local.is_file() or source.files is not None):
        raise ConfigError(
            f"dataset.config={source.config} is a part of a data set on the Hub or of a folder, and {source.path} has none: "
            "leave it out."
        )
    if "encoding" in typed and all(file.suffix.lower() in BINARY for file in source.contents()):
        kinds = " and ".join(sorted({file.suffix.lower() for file in source.contents()}))
        raise ConfigError(
            f"dataset.encoding={source.encoding} is of text files, and {source.path} holds {kinds}: leave it out."
        )


def open_splits(source: Source, scratch: Path) -> dict[str, Dataset]:
    """The splits of the source, by the names "train", "validation" and "test" as far as it has them.

    `datasets` writes Arrow copies of local files to scratch; data of the Hub stays in the Hub's own cache.

    Raises:
        ConfigError: If the source does not exist, cannot be reached, cannot be read, or has no training rows.
    """
    online = source.local is not None or hub_is_reachable()
    import datasets
    import huggingface_hub.constants

    # Offline, each request would be retried for 23 seconds. Set here and not by the environment, which both libraries
    # read when they are imported, perhaps long before.
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = not online
    from datasets.exceptions import DatasetsError

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it would log is in the error that follows
    datasets.disable_progress_bars() if source.local is not None else datasets.enable_progress_bars()
    try:
        found = _load(source, scratch)
    except (DatasetsError, OSError, ValueError) as error:
        cause = _first_cause(error)
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise cause from error  # `cache.cached` says that the disk is full
        raise _not_readable(source, error, cause, online) from error
    return by_role(source, found)


def by_role(source: Source, found: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The splits by the names "train", "validation" and "test"; a single one is train, whatever its name.

    Raises:
        ConfigError: If none is train, or it has no rows.
    """
    splits = {}
    for role, names in SPLIT_NAMES.items():
        if name := next((name for name in names if name in found), None):
            splits[role] = found[name]
    if "train" not in splits:
        if len(found) > 1:
            raise ConfigError(f"{source.path} has no split named train; it has {', '.join(found)}.")
        splits = {"train": next(iter(found.values()))}
    if not len(splits["train"]):
        raise ConfigError(f"{source.path} has no rows.")
    return splits


def _load(source: Source, scratch: Path) -> Any:
    """All splits by the names that the source gives them."""
    import datasets

    if source.local is None:
        return datasets.load_dataset(source.path, source.config, revision=source.revision)
    if source.local.is_file() or source.files is not None:
        kinds = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
        files = source.contents()
        kind, *others = sorted({kinds.get(file.suffix.lower(), "text") for file in files})
        if others:
            raise ConfigError(f"{source.path} matches files of several kinds ({kind}, {', '.join(others)}); take one.")
        options: dict[str, Any] = {"sample_by": "document"} if kind == "text" else {}
        return datasets.load_dataset(kind, data_files=[*map(_literal, files)], cache_dir=str(scratch), **options)
    folder, config = source.local, source.config
    if config and (folder / config).is_dir():  # as on the Hub, a folder for each configuration
        folder, config = folder / config, None
    if (images := image_folders.open_folder(folder)) is not None:
        return images
    with literal_paths(folder):
        return datasets.load_dataset(str(folder), config, cache_dir=str(scratch))


def _literal(file: Path) -> str:
    """A path for `datasets`, which takes brackets, stars and question marks in it for patterns."""
    return glob.escape(str(file)) if glob.has_magic(str(file)) else str(file)


@contextmanager
def literal_paths(folder: Path) -> Iterator[None]:
    """Makes `datasets` take brackets, stars and question marks in the folder's own path as they are."""
    from datasets import data_files

    if not glob.has_magic(str(folder)):
        yield
        return
    resolve = data_files.resolve_pattern

    @functools.wraps(resolve)
    def literal(pattern: str, base_path: str, *arguments: Any, **options: Any) -> list[str]:
        return resolve(pattern, glob.escape(base_path), *arguments, **options)

    data_files.resolve_pattern = literal
    try:
        yield
    finally:
        data_files.resolve_pattern = resolve


def _first_cause(error: BaseException) -> BaseException:
    """The exception that `datasets` has wrapped into "An error occurred while generating the dataset"."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _not_readable(source: Source, error: BaseException, cause: BaseException, online: bool) -> ConfigError:
    from datasets.exceptions import DatasetNotFoundError

    first_line = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    if source.local is not None:
        return ConfigError(f"{source.local} cannot be read as a data set: {first_line}")
    if not online:
        copies, name = os.environ.get("EPOCHAL_DATA", "$EPOCHAL_DATA"), source.path.rpartition("/")[2]
        return ConfigError(
            f"dataset={source.dataset} ({source.path}) is not on this machine and the Hub cannot be reached. Put a "
            f"copy into {copies}/{name} (train.parquet, test.parquet), or choose data that needs none: dataset=digits of "
            "images, dataset=python_stdlib of text."
        )
    if isinstance(error, DatasetNotFoundError):
        return ConfigError(
            f"There is no data set {source.path} on the Hub, or it needs a login; nor is there a file or folder of "
            "that name."
        )
    return ConfigError(f"{source.path} cannot be read from the Hub: {first_line}")


def check_column(source: Source, option: str, column: str | None, columns: list[str]) -> str:
    """Returns the column.

    Args:
        option: The option in the group `dataset` that names it, e.g. "label_column".
        column: The one that was given or guessed; None if none could be guessed.
        columns: All of the source.

    Raises:
        ConfigError: If there is no such column, or it is None.
    """
    if column is None:
        raise ConfigError(
            f"{source.path} has no column that looks like the {option.removesuffix('_column')}s; it has: "
            f"{', '.join(columns)}. If one of them is, name it by dataset.{option}."
            + (" A folder of images must have a folder in it for each class." if columns == ["image"] else "")
        )
    if column not in columns:
        raise ConfigError(
            f"dataset.{option}={column} is no column of {source.path}.{did_you_mean(column, columns)} "
            f"It has: {', '.join(columns)}."
        )
    return column


def find_label_column(source: Source, features: Any, given: str | None, usual: Iterable[str]) -> str:
    """The column with the classes: the given one, the first of type ClassLabel, or the first of the usual names.

    Raises:
        ConfigError: If there is none.
    """
    import datasets

    typed = next((n for n, f in features.items() if isinstance(f, datasets.ClassLabel)), None)
    column = given or typed or usual_column(features, usual)
    return check_column(source, "label_column", column, list(features))


def usual_column(columns: Iterable[str], usual: Iterable[str]) -> str | None:
    """The first of the usual names that a column has, in capitals or not; None if there is none."""
    by_name = {column.lower(): column for column in reversed(list(columns))}
    return next((by_name[name] for name in usual if name in by_name), None)


def whole_labels(labels: list[Any]) -> list[Any]:
    """Labels that are all whole numbers as such, also where they are written 1.0, as pandas does beside missing ones."""
    numbers = [label for label in labels if label is not None]
    if not numbers or not all(isinstance(n, float) and n.is_integer() for n in numbers):
        return labels
    return [None if label is None else int(label) for label in labels]


def encode_labels(
    source: Source, feature: Any, values: dict[str, list[Any]]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Classes as integers.

    Args:
        feature: Of the label column; a ClassLabel names the classes, else they are the values of train, sorted.
        values: The label of each row, by role.

    Returns:
        Labels (N,) int64 in [0, number of classes), by role, and the names of the classes.

    Raises:
        ConfigError: If there is a label that train does not have.
    """
    import datasets

    classes: list[Any]
    if isinstance(feature, datasets.ClassLabel):
        classes, names = list(range(feature.num_classes)), list(feature.names)
    else:
        classes = sorted(set(values["train"]))
        names = [str(value) for value in classes]
    for role, found in values.items():
        if unknown := set(found) - set(classes):
            new = ", ".join(map(str, sorted(unknown)[:3]))
            raise ConfigError(f"{source.path} has labels in {role} that train does not have: {new}.")
    number_of = {value: number for number, value in enumerate(classes)}
    return {role: np.array([number_of[v] for v in found], np.int64) for role, found in values.items()}, names
