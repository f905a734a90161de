"""The runs of a claim as one small CSV file, which can be kept with the code and judged again without training.

A row is a run: its overrides, seed, status, the hash of its whole config, the commit, costs, and the values that the claim's
tests and plots are about and that trials are chosen by. Learning curves and pictures are not in it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from epochal.compare.claims import named_keys
from epochal.compare.design import Design
from epochal.compare.records import Record, Value
from epochal.core.errors import ConfigError

FIXED = (
    *("experiment", "budget", "overrides", "seed", "status", "diverged", "error", "commit", "config"),
    *("val_examples", "test_examples", "best_metric", "best"),
)
AUTO = "auto"  # the value of a key that a run decides by its data; the column with what was decided
KEPT = ("parameters", "flops", "seconds", "steps")  # costs


def archive_text(records: Iterable[Record], claim: Mapping[str, Any], design: Design) -> str:
    """The runs as CSV, in the order of their names."""
    entries = [*(claim.get("tests") or []), *(claim.get("needs") or []), *claim["plots"]]
    names = {entry["y"] for entry in entries if "y" in entry}
    names |= {design.tuning.metric} if design.tuning else set()
    names -= {*KEPT}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*FIXED, AUTO, *KEPT, *sorted(names)])
    for record in sorted(records, key=lambda record: record.name):
        sizes, best = record.summary.get("sizes") or {}, record.summary.get("best") or {}
        typed = design.own(record.typed)
        composed = design.config(typed) or {}
        decided = {key: record.value(key) for key in sorted(named_keys(claim)) if composed.get(key) == AUTO}
        values = [
            *(record.value("experiment"), record.value("budget"), json.dumps(typed), record.seed, record.status),
            *(diverged := record.summary.get("diverged"), record.error if diverged else None),
            record.summary.get("git_commit"),
            *(config_hash(composed), sizes.get("val"), sizes.get("test")),
            *(best.get("metric"), best.get("value"), json.dumps(decided) if decided else None),
            *(record.value(name) for name in (*KEPT, *sorted(names))),
        ]
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def read_archive(path: Path) -> list[Record]:
    """The runs of a file that `archive_text` wrote.

    Each has the config that its experiment composes now for its overrides; `summary["same_config"]` tells whether that is what
    it was made with.

    Raises:
        ConfigError: If it is no such file, or the experiment or its grid no longer has one of the runs.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read ({error}).") from error
    if not rows or not {*FIXED} <= rows[0].keys() or any(None in row or None in row.values() for row in rows):
        raise ConfigError(f"{path} is no record of runs; give run folders, or a file of docs/records.")
    designs: dict[tuple[str, str], Design] = {}
    try:
        return [_record(path, number, row, designs) for number, row in enumerate(rows, start=2)]
    except ValueError as error:
        raise ConfigError(f"{path} is no record of runs: {error}") from error


def config_hash(config: Mapping[str, Value]) -> str:
    """Of the keys that are compared, 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(sorted(config.items())).encode()).hexdigest()[:12]


def _record(path: Path, line: int, row: dict[str, str], designs: dict[tuple[str, str], Design]) -> Record:
    key = (row["experiment"], row["budget"])
    if key not in designs:
        designs[key] = Design(row["experiment"], row["budget"] or None)
    typed = tuple(map(str, json.loads(row["overrides"])))
    composed = designs[key].config(typed)
    if composed is None:
        raise ValueError(f"line {line} is none of the grid that experiment={key[0]} has now: {' '.join(typed)}")
    values = {name: _number(text, line) for name, text in row.items() if name not in (*FIXED, AUTO) and text}
    decided = json.loads(row.get(AUTO) or "{}")  # records from before there was this column have none
    groups = {key.partition(".")[0] for key in decided}
    asked = {f"requested.{key}": value for key, value in composed.items() if key.partition(".")[0] in groups}
    config: dict[str, Value] = {
        **composed,
        **asked,
        **decided,
        "experiment": row["experiment"],
        "budget": row["budget"] or None,
        "seed": int(row["seed"]),
    }
    metrics = {name: value for name, value in values.items() if "/" in name}
    summary: dict[str, Any] = {name: value for name, value in values.items() if "/" not in name}
    summary |= {"metrics": metrics, "error": row["error"] or None, "diverged": row["diverged"] == "True"}
    sizes = {split: row[f"{split}_examples"] for split in ("val", "test")}
    summary |= {"sizes": {split: int(size) for split, size in sizes.items() if size}}
    if row["best_metric"] and row["best"]:
        summary["best"] = {"metric": row["best_metric"], "value": _number(row["best"], line)}
    summary |= {"git_commit": row["commit"] or None, "same_config": row["config"] == config_hash(composed)}
    return Record(path / str(line), row["status"], config, summary, typed)


def _number(text: str, line: int) -> float | int:
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError as error:
        raise ValueError(f"{text} in line {line} is no number") from error
