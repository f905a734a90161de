"""The runs that the lab shows, and the trainings that it starts, stops and resumes: each in a process of its own."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from epochal.compare.records import Picture, Record
from epochal.compare.report.curves import curves
from epochal.compare.scan import read
from epochal.config.allowlist import ALLOWED, check_targets
from epochal.config.instantiate import target_class
from epochal.core.errors import ConfigError, EpochalError
from epochal.core.files import Lock, relative
from epochal.core.format import number_text
from epochal.core.metrics import metric_label
from epochal.data import ImageData, SentenceData
from epochal.training.callbacks.watch import FOLDER
from epochal.training.run_folder import Run

FRESH = 1.0  # seconds for which a list of the runs is good enough
MAX_LOAD = 0.1  # fraction of the time spent on reading it, which slows trainings down
POINTS = 300  # of a curve
LOGS = ".lab"  # folder in the outputs folder with what the started trainings print
TOLD = 4_000  # characters of it that the page shows
MOST_ARGUMENTS, MOST_CHARACTERS = 100, 4_000
REFUSED = (
    "hydra.",
    "hydra/",
    "output_dir=",
    "resume=",
    "allow=",
)  # a training of the page stays within its outputs folder
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)")  # colours and links of a terminal
TEST_FIRST = ("test/accuracy", "test/bits_per_byte", "test/fid", "test/loss", "val/accuracy", "val/loss", "train/loss")


@dataclass
class Started:
    """A training that this server started.

    Attributes:
        process: Its own, which outlives the server.
        line: As it would be typed.
        log: File of what it prints.
        since: Seconds since 1970.
        watched: Folder of the frames that the page shows of it, if it does; see `training.callbacks.watch`.
    """

    process: subprocess.Popen[bytes]
    line: str
    log: Path
    since: float
    watched: Path | None = None


class Runs:
    """Finds the runs below an outputs folder; requests name them by ids, never by paths.

    Args:
        output_dir: The outputs folder.
        allow: Packages of the user's whose classes the configs of runs may make.
    """

    def __init__(self, output_dir: Path, allow: tuple[str, ...] = ()) -> None:
        self.output_dir, self._allow = output_dir, allow
        self._records: dict[str, Record] = {}
        self._due = float("-inf")  # when the folders are read again
        self._lock = threading.Lock()
        self._started: list[Started] = []
        self._rooms: dict[tuple[str, str], list[str]] = {}  # by the classes of task and data

    def records(self) -> dict[str, Record]:
        """The runs by id, the newest first, at most FRESH seconds old, or older where reading takes long; for any thread."""
        with self._lock:
            started = time.monotonic()
            if started >= self._due:
                found, _ = read(self._folders(), self._records.values())
                found.sort(key=lambda record: (record.touched, record.folder.name), reverse=True)
                self._records = {run_id(record.folder): record for record in found}
                took = time.monotonic() - started
                self._due = started + took + max(FRESH, took / MAX_LOAD)
            return self._records

    def _folders(self) -> list[Path]:
        """Folders with runs: of single runs, of each experiment, of each sweep."""
        try:
            folders = sorted(path for path in self.output_dir.iterdir() if path.is_dir())
        except OSError:
            return []
        sweeps = [path for path in (self.output_dir / "sweeps").glob("*") if path.is_dir()]
        return [path for path in (*folders, *sweeps) if path.name[:1] != "." and any(path.glob("*/config.yaml"))]

    def record(self, run: str) -> Record:
        """The run of an id.

        Raises:
            ConfigError: If there is none.
        """
        found = self._records.get(run) or self.records().get(run)
        if found is None or not found.folder.is_dir():
            self._due = float("-inf")
            raise ConfigError("This run is no longer there; the list of runs has those that are.")
        return found

    def folder(self, run: str) -> Path:
        """The folder of an id.

        Raises:
            ConfigError: If there is none.
        """
        return self.record(run).folder

    def listed(self, known: str = "") -> dict[str, Any] | None:
        """What the page's list says of each run, and the version of the list; None if that is the one that is known."""
        records = self.records()
        parts = [(run, record.stamp, record.shown_status, self._has_weights(record)) for run, record in records.items()]
        version = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        if version == known:
            return None
        return {"version": version, "runs": [self._told(run, record) for run, record in records.items()]}

    def told(self, run: str) -> dict[str, Any]:
        """A run with its learning curves, its newest pictures and its config."""
        record = self.record(run)
        pictures = [{"name": picture.name, "step": picture.step} for picture in newest(record)]
        return {
            **self._told(run, record),
            "curves": curves(record, POINTS),
            "pictures": pictures,
            "config": record.config,
        }

    def picture(self, run: str, name: str, step: int | None) -> bytes | None:
        """The PNG file of a picture that `told` names, None if it is not among them (any more)."""
        found = next((each for each in newest(self.record(run)) if (each.name, each.step) == (name, step)), None)
        try:
            return None if found is None else found.path.read_bytes()
        except FileNotFoundError:  # deleted meanwhile
            return None

    def _told(self, run: str, record: Record) -> dict[str, Any]:
        value = record.value
        return {
            "id": run,
            "name": record.name,
            "folder": relative(record.folder),
            **{group: str(value(f"{group}.name") or "?") for group in ("model", "dataset", "task")},
            "experiment": value("experiment"),
            "status": record.shown_status,
            "progress": round(record.progress, 3),
            "error": record.error,
            "result": self._result(record),
            "typed": " ".join(shlex.quote(override) for override in record.typed),
            "touched": record.touched,
            "rooms": self.rooms(record),
        }

    @staticmethod
    def _result(record: Record) -> str | None:
        """The number that tells best how good it is, with the name of its split and its own."""
        metrics = record.metrics
        name = next((name for name in TEST_FIRST if name in metrics), None)
        return None if name is None else f"{metric_label(name)} {number_text(name, metrics[name])}"

    def rooms(self, record: Record) -> list[str]:
        """The rooms of the page that can show a run's network; none before it has a checkpoint."""
        if not self._has_weights(record):
            return []
        targets = str(record.value("task._target_")), str(record.value("dataset._target_"))
        if targets not in self._rooms:
            self._rooms[targets] = self._rooms_of(targets)
        found = self._rooms[targets]
        return [*found, "chat"] if found == ["write"] and record.value("dataset.template") == "chat" else found

    @staticmethod
    def _has_weights(record: Record) -> bool:
        return any((record.folder / "checkpoints" / name).is_file() for name in ("best.ckpt", "last.ckpt"))

    def _rooms_of(self, targets: tuple[str, str]) -> list[str]:
        """By the classes of task and data, as far as they may be made."""
        try:
            check_targets(OmegaConf.create([{"_target_": target} for target in targets]), (*ALLOWED, *self._allow))
            task, data = map(target_class, targets)
        except EpochalError:
            return []
        head = getattr(task, "head", None)
        if head in ("next_token", "target_text"):
            return ["write"]
        if head == "adversarial":
            return ["generate"]
        if head == "classes" and issubclass(data, ImageData):
            return ["see"]
        return ["write"] if head == "classes" and issubclass(data, SentenceData) else []

    def start(self, arguments: Sequence[str], watched: Path | None = None) -> int:
        """Starts `epochal train` in a process that outlives this one; returns its number for `started`.

        Args:
            arguments: Overrides.
            watched: Folder for frames of the training, see `Started`.

        Raises:
            ConfigError: If an argument is none that the page may give.
        """
        arguments = checked(arguments)
        return self._start(arguments, shlex.join(["epochal", "train", *arguments]), watched)

    def watched(self, number: int) -> tuple[Path, int | None]:
        """The folder with the frames of a started training, and its exit status, None while it goes on.

        Raises:
            ConfigError: If this server started none by that number, or it is not watched.
        """
        found = self._started[number] if 0 <= number < len(self._started) else None
        if found is None or found.watched is None:
            raise ConfigError("This server has started no such training.")
        return found.watched, found.process.poll()

    def resume(self, run: str) -> int:
        """Goes on with a run that was stopped, failed or was killed; returns the number for `started`.

        Raises:
            ConfigError: If there is no such run, or it has finished, or is being trained.
        """
        record = self.record(run)
        if record.status in ("finished", "pruned"):
            raise ConfigError(f"{record.name} has {record.status}; there is nothing to resume.")
        if holder_of(record.folder) is not None:
            raise ConfigError(f"{record.name} is being trained.")
        argument = f"resume={relative(record.folder)}"
        return self._start([f"resume={record.folder}"], shlex.join(["epochal", "train", argument]))

    def _start(self, arguments: Sequence[str], line: str, watched: Path | None = None) -> int:
        folder = self.output_dir / LOGS
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{len(self._started)}.txt"
        command = [sys.executable, "-m", "epochal", "train", *arguments]
        if not any(argument.startswith("resume=") for argument in arguments):
            command.append(f"output_dir={self.output_dir}")
        environment = {**os.environ, "COLUMNS": "100", "PYTHONUNBUFFERED": "1"}
        if watched is not None:
            environment[FOLDER] = str(watched)
        with log.open("wb") as printed:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C in the server's terminal does not reach it
            )
        self._started.append(Started(process, line, log, time.time(), watched))
        return len(self._started) - 1

    def started(self, number: int) -> dict[str, Any]:
        """How a started training is getting on: its exit status, what it printed last, and its runs.

        Raises:
            ConfigError: If this server started none by that number.
        """
        if not 0 <= number < len(self._started):
            raise ConfigError("This server has started no such training.")
        found = self._started[number]
        status = found.process.poll()
        text = (
            ESCAPES.sub("", found.log.read_bytes()[-4 * TOLD :].decode("utf-8", "replace"))
            if found.log.exists()
            else ""
        )
        text = "\n".join(line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")).strip()
        runs = [
            run
            for run, record in self.records().items()
            if record.touched >= found.since and Lock(record.folder / ".lock").holder()[0] == str(found.process.pid)
        ]
        return {"number": number, "line": found.line, "status": status, "said": text[-TOLD:], "runs": runs}

    def stop(self, run: str) -> None:
        """Tells the process that trains a run to save and end, as Ctrl-C does.

        Raises:
            ConfigError: If there is no such run, or nobody on this machine trains it.
        """
        record = self.record(run)
        holder = holder_of(record.folder)
        if holder is None:
            raise ConfigError(f"{record.name} is not being trained.")
        process, host = holder
        if host != socket.gethostname() or not process.isdecimal():
            raise ConfigError(f"{record.name} is being trained on {host}; stop it there.")
        os.kill(int(process), signal.SIGTERM)


def run_id(folder: Path) -> str:
    """Twelve hexadecimal digits that stand for a run's folder."""
    return hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:12]


def holder_of(folder: Path) -> tuple[str, str] | None:
    """Process and machine that train the run in a folder now; None if nobody does."""
    run = Run(folder)
    try:
        if run.claim():
            run.release()
            return None
    except ConfigError:  # a folder that cannot be written is being trained by nobody here
        return None
    return run.lock.holder()


def checked(arguments: Sequence[str]) -> list[str]:
    """The arguments of a training that the page starts: overrides such as `model=resnet`, and -m.

    Raises:
        ConfigError: If one is no such argument, or would lead out of the outputs folder, or there are too many.
    """
    if not all(isinstance(argument, str) for argument in arguments):
        raise ConfigError("The arguments of a training are texts such as model=resnet.")
    if len(arguments) > MOST_ARGUMENTS or sum(map(len, arguments)) > MOST_CHARACTERS:
        raise ConfigError(
            f"A training takes at most {MOST_ARGUMENTS} arguments of {MOST_CHARACTERS:,} characters in all."
        )
    for argument in arguments:
        if argument not in ("-m", "--multirun") and (argument.startswith("-") or "=" not in argument):
            raise ConfigError(f"{argument!r} is no override; give such as model=resnet dataset.batch_size=64.")
        if (found := next((key for key in REFUSED if argument.lstrip("+~").startswith(key)), None)) is not None:
            raise ConfigError(f"{found.rstrip('=./')} cannot be given on the page; type the line in a terminal.")
    return list(arguments)


def newest(record: Record) -> list[Picture]:
    """Of each name the picture of the test, or the last one before it; curves are drawn by the page."""
    record.forget_pictures()
    pictures = [p for p in record.pictures() if p.path.suffix == ".png" and not p.name.startswith("curve_")]
    return list({picture.name: picture for picture in pictures}.values())
