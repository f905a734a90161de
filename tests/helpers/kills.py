"""Runs that are killed: where a run can be killed, and a process that kills itself at one of these places."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from helpers.training import composed, train

HOOKS = (
    "on_train_start",
    "on_train_batch_start",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_end",
    "on_test_start",
    "on_test_batch_start",
    "on_test_end",
)
CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Places:
    """Counts the places that a run comes to, and kills the process at one of them.

    Places are Lightning's hooks, each opening, making, linking and replacing of a file in the outputs folder, and the
    middle of writing a checkpoint and a row of metrics.csv.

    Args:
        outputs: The outputs folder.
        at: The name of a place and how often the run has come there when it is killed; None counts only.
    """

    def __init__(self, outputs: Path, at: tuple[str, int] | None) -> None:
        self.outputs, self.at, self.seen = outputs, at, Counter[str]()

    def come(self, name: str) -> bool:
        """Whether this is where the run is to be killed."""
        self.seen[name] += 1
        return (name, self.seen[name]) == self.at

    def pass_by(self, name: str) -> None:
        if self.come(name):
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Watches this process from now on; it cannot be undone."""
        import torch

        def heard(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(arguments[2], int) and arguments[2] & CHANGING:
                self.file("open", arguments[0])
            elif event == "os.mkdir":
                self.file("make", arguments[0])

        sys.addaudithook(heard)
        for verb in ("link", "replace"):
            setattr(os, verb, self.around(getattr(os, verb), verb))
        save, begin, writerow = torch.save, csv.DictWriter.__init__, csv.DictWriter.writerow

        def save_half(content: Any, stream: Any) -> None:
            if self.come("half of a checkpoint"):
                save(content, whole := io.BytesIO())
                self.die_within(stream, whole.getvalue())
            save(content, stream)

        def keep_stream(writer: Any, stream: Any, *rest: Any, **named: Any) -> None:
            writer.stream = stream
            begin(writer, stream, *rest, **named)

        def write_half(writer: Any, row: Any) -> Any:
            if self.come("half of a row"):
                keep_stream(other := csv.DictWriter.__new__(csv.DictWriter), whole := io.StringIO(), writer.fieldnames)
                writerow(other, row)
                self.die_within(writer.stream, whole.getvalue())
            return writerow(writer, row)

        torch.save = save_half  # type: ignore[assignment]
        csv.DictWriter.__init__, csv.DictWriter.writerow = keep_stream, write_half  # type: ignore[method-assign]

    def die_within(self, stream: Any, content: Any) -> None:
        stream.write(content[: len(content) // 2])
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def around(self, real: Any, verb: str) -> Any:
        def call(source: Any, destination: Any, *rest: Any, **named: Any) -> None:
            self.file(verb, destination)
            real(source, destination, *rest, **named)
            self.file(f"after {verb}", destination)

        return call

    def file(self, verb: str, path: Any) -> None:
        if isinstance(path, str | os.PathLike) and str(path).startswith(str(self.outputs)):
            within = "/".join(Path(path).relative_to(self.outputs).parts[2:]) or "the folder"
            within = re.sub(r"^pictures/.+", "a picture", re.sub(r"\.[0-9a-f]{8}$", "", within))
            self.pass_by(f"{verb} {within}")


def train_until_killed_at(
    overrides: tuple[str, ...], outputs: Path, at: tuple[str, int] | None, counted: Path | None = None
) -> None:
    """Trains in this process, which kills itself at this place; without one it counts the places.

    Args:
        overrides: Of the run, without `output_dir`.
        outputs: The outputs folder.
        at: See `Places`.
        counted: A file for how often the run came to each place, as JSON.
    """
    import pytorch_lightning as pl
    import torch

    from epochal.training.resume import finished_before

    torch.set_num_threads(1)
    if finished_before(composed(*overrides, f"output_dir={outputs}")):  # as the command does
        return
    places, started = Places(outputs, at), time.monotonic()
    places.watch()
    hooks = {hook: lambda *_, hook=hook: places.pass_by(hook) for hook in HOOKS}
    train(*overrides, f"output_dir={outputs}", callbacks=(type("Killer", (pl.Callback,), hooks)(),))
    if counted is not None:
        counted.write_text(json.dumps({"places": places.seen, "seconds": time.monotonic() - started}))
