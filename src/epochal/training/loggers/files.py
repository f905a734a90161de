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

from epochal.core.files import AXES, write_atomically
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
        examples_per_step, steps_per_epoch: From which the axes of a step follow.
    """

    def __init__(self, run: Run, *, examples_per_step: int, steps_per_epoch: float) -> None:
        super().__init__()
        self.run, self.examples_per_step, self.steps_per_epoch = run, examples_per_step, steps_per_epoch
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

    def start(self, step: int, seconds_before: float) -> None:
        """Begins the clock; after a resume, drops the rows that a killed process wrote past its last checkpoint."""
        self.seconds_before, self._started = seconds_before, time.perf_counter()
        if not self.run.metrics.exists():
            return
        whole, _, _ = self.run.metrics.read_text().rpartition("\n")  # what follows the last newline, a kill cut off
        reader = csv.DictReader(io.StringIO(whole))
        self._columns = list(reader.fieldnames or AXES)
        rows = [row for row in reader if int(row["step"]) <= step]
        self._rewrite(rows)
        if rows:  # what is logged at its step still belongs to it
            self._row = {**rows[-1], "step": int(rows[-1]["step"])}
        for row in rows:
            self.last |= {k: float(v) for k, v in row.items() if v and k not in AXES}

    def pause(self, seconds: float) -> None:
        """Does not count so many of the last seconds."""
        self._started += seconds

    def axes(self, step: int) -> dict[str, float]:
        return {
            "step": step,
            "epoch": round(step / self.steps_per_epoch, 4),
            "examples": step * self.examples_per_step,
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
            rows = self._read()[: -1 if start is not None else None]
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
        save_artifacts(artifacts, self.run.pictures, stem="test_{}" if final else "{}_" + f"{step:06}")

    def _read(self) -> list[dict[str, str]]:
        if not self.run.metrics.exists():
            return []
        with self.run.metrics.open(newline="") as stream:
            return list(csv.DictReader(stream))

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows[:-1])
        self._row_start = len(text.getvalue().encode())
        writer.writerows(rows[-1:])
        write_atomically(self.run.metrics, text.getvalue())


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
