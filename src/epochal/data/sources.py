"""Where data comes from: a local copy, any file or folder, or the Hugging Face Hub, all through `load_dataset`."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.hub import hub_is_reachable

if TYPE_CHECKING:
    from datasets import Dataset

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class Source:
    """One data set: `local` where it lies on this machine, None where it is the Hub's."""

    dataset: str  # the choice of the group, for messages
    path: str
    config: str | None
    revision: str | None
    local: Path | None

    def fingerprint(self) -> dict[str, Any]:
        """What tells this source from another one and from a changed one, without reading it or asking the Hub."""
        if self.local is None:
            return {"hub": self.path, "config": self.config, "revision": self.revision}
        files = [self.local] if self.local.is_file() else sorted(f for f in self.local.rglob("*") if f.is_file())
        listing = [(str(f.relative_to(self.local)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        part = {"config": self.config} if self.config else {}
        return {"local": str(self.local), "files": hashlib.sha256(repr(listing).encode()).hexdigest(), **part}


def locate(dataset: str, path: str | None, *, config: str | None = None, revision: str | None = None) -> Source:
    """Finds the data set: a copy in `EPOCHAL_DATA` first, then a file or folder of that name, then the Hub.

    Raises:
        ConfigError: If the path names neither, or a folder that is empty.
    """
    if not path:
        raise ConfigError(
            f"dataset={dataset} needs dataset.path=<a folder, a file or the id of a data set on the Hub>."
        )
    local = None
    if HUB_ID.fullmatch(path) and (copies := os.environ.get("EPOCHAL_DATA")):
        root = Path(copies).expanduser().absolute()
        if not root.is_dir():
            raise ConfigError(f"EPOCHAL_DATA={copies} is no folder. Point it at your local copies, or unset it.")
        if (root / path.rpartition("/")[2]).exists():
            local = root / path.rpartition("/")[2]
    if local is None and Path(path).expanduser().exists():
        local = Path(path).expanduser().absolute()
    if local is None and not HUB_ID.fullmatch(path):
        raise ConfigError(f"dataset.path={path} does not exist.")
    if local is not None and local.is_dir() and not any(f.is_file() for f in local.rglob("*")):
        raise ConfigError(
            f"The folder {local} is empty; dataset={dataset} wants data in it, e.g. train.parquet, test.parquet."
        )
    return Source(dataset=dataset, path=path, config=config, revision=revision, local=local)


def open_splits(source: Source, scratch: Path) -> dict[str, Dataset]:
    """The splits that there are, by the names train, validation and test.

    Arrow copies of local files go to `scratch`; those of the Hub stay in the Hub's own cache.

    Raises:
        ConfigError: If the source is not there, cannot be reached or cannot be read.
    """
    online = source.local is not None or hub_is_reachable()
    import datasets
    import huggingface_hub.constants

    # else each request is retried for 23 seconds; set here, because other libraries may have imported these before
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = not online
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    datasets.disable_progress_bars() if source.local is not None else datasets.enable_progress_bars()
    try:
        if source.local is None:
            found = datasets.load_dataset(source.path, source.config, revision=source.revision)
        elif source.local.is_file():
            kind = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}.get(
                source.local.suffix, "text"
            )
            options: dict[str, Any] = {"sample_by": "document"} if kind == "text" else {}
            found = datasets.load_dataset(kind, data_files=str(source.local), cache_dir=str(scratch), **options)
        else:
            part = source.local / source.config if source.config else None
            if part is not None and part.is_dir():  # as on the Hub, a folder for each config
                found = datasets.load_dataset(str(part), cache_dir=str(scratch))
            else:
                found = datasets.load_dataset(str(source.local), source.config, cache_dir=str(scratch))
    except (DatasetsError, OSError, ValueError) as error:
        cause = _first_cause(error)
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise cause from error  # a full disk is the cache's to explain
        first_line = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        if source.local is not None:
            raise ConfigError(f"{source.local} cannot be read as a data set: {first_line}") from error
        name = source.path.rpartition("/")[2]
        if not online:
            raise ConfigError(
                f"dataset={source.dataset} ({source.path}) is not on this machine and the Hub cannot be reached. Put a copy "
                f"into {os.environ.get('EPOCHAL_DATA', '$EPOCHAL_DATA')}/{name} (train.parquet, test.parquet), or choose "
                "dataset=digits, which needs none."
            ) from error
        if isinstance(error, DatasetNotFoundError):
            raise ConfigError(
                f"There is no data set {source.path} on the Hub, or it needs a login; nor is there a file or folder of that name."
            ) from error
        raise ConfigError(f"{source.path} cannot be read from the Hub: {first_line}") from error
    splits = {}
    for role, names in SPLIT_NAMES.items():
        for name in names:
            if name in found:
                splits[role] = found[name]
                break
    if "train" not in splits:
        if len(found) > 1:
            raise ConfigError(f"{source.path} has no split named train; it has {', '.join(found)}.")
        splits = {"train": next(iter(found.values()))}
    if not len(splits["train"]):
        raise ConfigError(f"{source.path} has no rows.")
    return splits


def _first_cause(error: BaseException) -> BaseException:
    """What `datasets` wraps into "An error occurred while generating the dataset"."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def check_column(source: Source, option: str, column: str | None, columns: list[str]) -> None:
    """Raises ConfigError if there is no such column, or none was given and none could be guessed."""
    if column is None:
        raise ConfigError(
            f"{source.path} has no column that looks like the {option.removesuffix('_column')}s; it has: {', '.join(columns)}. "
            f"If one of them is, name it by dataset.{option}."
            + (" A folder of images wants a folder in it for each class." if columns == ["image"] else "")
        )
    if column not in columns:
        raise ConfigError(
            f"dataset.{option}={column} is no column of {source.path}.{did_you_mean(column, columns)} "
            f"It has: {', '.join(columns)}."
        )
