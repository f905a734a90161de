"""The run's own files: metrics.csv, pictures and texts."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from epochal.config.duration import Length
from epochal.core.files import AXES, relative, write_atomically
from epochal.core.format import say
from epochal.tasks.artifacts import Artifacts
from epochal.training.loggers.base import ArtifactLogger
from epochal.training.run_folder import Run


class CSV(CSVLogger):
    """Lightning's CSVLogger, for tools that read its files.

    Args:
        run: Its folder is written to.
    """

    def __init__(self, *, run: Run) -> None:
        super().__init__(save_dir=run.folder, name="csv", version="")


class RunLogger(ArtifactLogger):
    """Writes `metrics.csv`, one row per logged step, and pictures and texts.

    Every row has the axes `step, epoch, examples, seconds`; a new metric adds a column. What is logged at the same step
    goes into the same row.

    Args:
        run: The folder to write to.
        length: Of the training.
        batch_size: Examples in a batch.
    """

    def __init__(self, run: Run, *, length: Length, batch_size: int) -> None:
        super().__init__()
        self.run, self.length, self.batch_size = run, length, batch_size
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
        """Seconds of training, those before a resume included."""
        return self.seconds_before + time.perf_counter() - self._started

    def start(self, step: int, seconds_before: float, *, has_rows: bool = False) -> None:
        """Begins the clock; after a resume, drops the rows that a killed process wrote past its last checkpoint.

        Args:
            step: The last checkpoint's.
            seconds_before: Of training, until then.
            has_rows: Whether rows had been logged until then; if none can be read, this is said.
        """
        self.seconds_before, self._started = seconds_before, time.perf_counter()
        rows: list[dict[str, str]] = []
        unreadable = 0
        if self.run.metrics.exists():
            self._columns, rows, unreadable = read_rows(self.run.metrics, step)
        if has_rows and not rows:
            say(f"{relative(self.run.metrics)} is missing or cannot be read; its rows begin after step {step:,}.")
        elif unreadable:
            say(f"{relative(self.run.metrics)}: rows that cannot be read are dropped, {unreadable:,} of them.")
        rows = [row for row in rows if int(row["step"]) <= step]
        if self.run.metrics.exists():
            self._rewrite(rows)
        if rows:  # what is logged at its step still belongs to it
            self._row = {**rows[-1], "step": int(rows[-1]["step"])}
        for row in rows:
            self.last |= {k: float(v) for k, v in row.items() if v and k not in AXES}

    def examples(self, steps: int) -> int:
        """The training examples of so many steps, from the beginning of the training."""
        return self.length.batches(steps) * self.batch_size

    def pause(self, seconds: float) -> None:
        """Does not count so many of the last seconds."""
        self._started += seconds

    def axes(self, step: int) -> dict[str, float]:
        return {
            "step": step,
            "epoch": round(step / self.length.steps_per_epoch, 4),
            "examples": self.examples(step),
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
            rows = [row for row in self._read() if int(row["step"]) != self._row["step"]]
            self._columns += new
            self._rewrite([*rows, self._row])
            return
        with self.run.metrics.open("r+" if self.run.metrics.exists() else "w", newline="") as stream:
            self._row_start = stream.seek(0, os.SEEK_END) if start is None else stream.seek(start)
            csv.DictWriter(stream, self._columns, lineterminator="\n").writerow(self._row)
            stream.truncate()

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    def log_artifacts(self, artifacts: Artifacts, step: int, *, final: bool) -> None:
        self.run.folder.stat()  # raises if it was deleted: it is not made again
        save_artifacts(artifacts, self.run.pictures, stem="test_{}" if final else "{}_" + f"{step:06}")

    def _read(self) -> list[dict[str, str]]:
        return read_rows(self.run.metrics)[1] if self.run.metrics.exists() else []

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows[:-1])
        self._row_start = len(text.getvalue().encode())
        writer.writerows(rows[-1:])
        write_atomically(self.run.metrics, text.getvalue())


def read_rows(file: Path, step: int | None = None) -> tuple[list[str], list[dict[str, str]], int]:
    """The columns and rows of a `metrics.csv`, which a hand or a crash may have damaged, and how many rows are unreadable.

    The end of the last row, which a kill may have cut off, counts as unreadable only if it is of this step or an earlier one.
    """
    *lines, end = file.read_bytes().decode("utf-8-sig", errors="replace").replace("\r\n", "\n").split("\n")
    head = _cells(lines[0]) if lines else []
    if "step" not in head or len(set(head)) < len(head):
        return list(AXES), [], len([line for line in lines[1:] if line])
    cells = [_cells(line) for line in lines[1:] if line]
    rows = [dict(zip(head, row)) for row in cells if len(row) == len(head)]
    rows = [row for row in rows if row["step"].isdecimal() and all(not v or _is_number(v) for v in row.values())]
    first, comma, _ = end.partition(",")
    cut = step is not None and bool(comma) and first.isdecimal() and int(first) <= step
    return head, rows, len(cells) - len(rows) + cut


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:  # such as a field of megabytes
        return []


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def save_artifacts(artifacts: Artifacts, folder: Path, stem: str) -> list[Path]:
    """Writes pictures, texts and profiles under their names put into `stem`, and tells the files."""
    files = []
    folder.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it since
    for name, picture in artifacts.pictures.items():
        files.append(folder / f"{stem.format(name)}.png")
        picture.save(files[-1])
    for name, text in artifacts.texts.items():
        files.append(folder / f"{stem.format(name)}.txt")
        write_atomically(files[-1], text + "\n")
    for name, profile in artifacts.profiles.items():
        files.append(folder / f"{stem.format(name)}.csv")
        positions = profile.positions or range(1, len(profile.values) + 1)
        rows = [f"{position},{value:.6g}" for position, value in zip(positions, profile.values)]
        write_atomically(files[-1], "\n".join([f"{profile.position},{profile.value}", *rows]) + "\n")
    return files
