"""Finds run folders and reads them as records. Read-only, and without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from epochal.compare.records import STATUSES, Record, Skipped, Value, own_file, usable_number
from epochal.config.compose import check_size, flat
from epochal.core.errors import ConfigError
from epochal.core.files import expanded
from epochal.core.format import printable

READ = ("config.yaml", "summary.json", "metrics.csv", "overrides.yaml")  # the files of a run, beside its pictures


def read(paths: Iterable[str | Path], known: Iterable[Record] = ()) -> tuple[list[Record], list[Skipped]]:
    """Reads the runs in some folders.

    Args:
        paths: Run folders, folders of run folders, or patterns (`outputs/runs/*`).
        known: Records of an earlier call; those whose files have not changed are reused.

    Returns:
        The runs, and the folders that hold none.

    Raises:
        ConfigError: If a path does not exist.
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


def _folders(path: str | Path) -> Iterator[Path]:
    """The folders that a path or pattern stands for, sorted by name."""
    given = expanded(path).absolute()
    if not os.path.exists(given):  # unlike Path.exists it raises nothing, however long the name
        try:
            base = next(folder for folder in given.parents if os.path.isdir(folder))  # its own signs are no pattern
            matches = sorted(base.glob(str(given.relative_to(base)))) if _is_pattern(path) else []
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
    """The folder itself if it is a run; else its subfolders, each replaced by the runs in it if there are any."""
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
    """Sorted, without hidden ones; [] if the folder cannot be opened."""
    try:
        return sorted(path for path in folder.iterdir() if os.path.isdir(path) and not path.name.startswith("."))
    except OSError:
        return []


def _is_run(folder: Path) -> bool:
    return os.path.isfile(folder / "config.yaml")


def _is_pattern(path: str | Path) -> bool:
    return any(sign in str(path) for sign in "*?[")


def _record(folder: Path, known: Record | None) -> Record | str:
    """The run in a folder, or the reason why there is none."""
    if not os.path.isdir(folder):
        return "a file, not a run folder"
    if not _is_run(folder):
        next(folder.iterdir(), None)  # raises if the folder cannot be opened
        return "not a run folder: neither it nor a folder in it has a config.yaml"
    for name in READ:
        if not own_file(folder / name, folder):
            return f"refused: its {name} is no file in this folder"
    times = [_modified(folder / name) for name in ("config.yaml", "summary.json", "metrics.csv")]
    stamp = (*times, *map(_modified, sorted((folder / "evaluation").glob("*"))))
    if known is not None and known.stamp == stamp:
        known.forget_pictures()
        return known
    values, summary = _config(folder / "config.yaml"), _summary(folder / "summary.json")
    typed = _typed(folder / "overrides.yaml")
    if isinstance(values, str):
        return values
    if isinstance(summary, str):
        return summary
    if isinstance(typed, str):
        return typed
    return Record(
        folder=folder,
        status=summary["status"],
        config=values,
        summary=summary,
        typed=typed,
        touched=max(times) / 1e9,
        stamp=stamp,
    )


def _config(path: Path) -> dict[str, Value] | str:
    """Every key of a config.yaml, dotted, or what is wrong with it."""
    try:
        check_size(path)
        config = yaml.load(path.read_bytes(), yaml.CSafeLoader)
        if not isinstance(config, dict) or not all(isinstance(config.get(g), dict) for g in ("model", "dataset")):
            return "not a run of Epochal: its config.yaml has no model and dataset"
        config.pop("claim", None)  # the same in all runs of an experiment
        return {printable(key): plain_value(value) for key, value in flat(config).items()}
    except Exception:  # PyYAML raises whatever its tags come upon, and a YAML that contains itself recurses for ever
        return "broken: its config.yaml cannot be read"


def _summary(path: Path) -> dict[str, Any] | str:
    """A summary.json, or what is wrong with it."""
    try:
        summary = printable(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return "half-finished: it has no summary.json; the run ended before it began"
    except (OSError, ValueError, RecursionError):
        return "broken: its summary.json cannot be read"
    status = summary.get("status") if isinstance(summary, dict) else None
    if status not in STATUSES or not all(isinstance(summary.get(key), dict | None) for key in ("metrics", "best")):
        return "broken: its summary.json does not say how the run went"
    return summary


def plain_value(value: Any) -> Value:
    """Strings, booleans and usable numbers as they are, all else as text."""
    value = printable(value)
    if isinstance(value, str | bool | None) or usable_number(value) is not None:
        return value
    return str(value) if isinstance(value, int | float) else json.dumps(value, default=str)


def _typed(path: Path) -> tuple[str, ...] | str:
    """The overrides in an overrides.yaml, which tell a claim whose run it is; () without one; or what is wrong with it."""
    try:
        check_size(path)
        overrides = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    except FileNotFoundError:
        return ()
    except Exception:  # as in a config.yaml
        overrides = None
    return tuple(map(str, overrides)) if isinstance(overrides, list) else "broken: its overrides.yaml cannot be read"


def _modified(path: Path) -> int:
    """Modification time in nanoseconds; 0 if the file does not exist."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
