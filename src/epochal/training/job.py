"""A run that is ready to go, and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from rich.console import Console

from epochal.core.errors import DivergedError, PrunedError
from epochal.core.files import relative
from epochal.core.format import verbatim
from epochal.core.program import command_line, typed
from epochal.data import DataModule
from epochal.tasks import Artifacts, Task
from epochal.training.callbacks.record import Record
from epochal.training.checkpoint_io import load_weights, read_checkpoint
from epochal.training.console import save_animations, save_curves, show_report
from epochal.training.loggers.base import ArtifactLogger
from epochal.training.run_folder import Run


@dataclass
class Job:
    """A run that is ready to go: its parts, and what to do with them in which order."""

    config: DictConfig
    run: Run
    data: DataModule
    task: Task
    trainer: pl.Trainer
    record: Record
    console: Console
    checkpoint: Path | None  # to resume from

    def fit(self) -> None:
        """Trains to the end, from the checkpoint if there is one.

        Raises:
            EpochalError: If the loss or a weight is not finite.
        """
        with self._interruptible():
            self.trainer.fit(self.task, datamodule=self.data, ckpt_path=self.checkpoint, weights_only=True)

    def test(self) -> None:
        """Tests the best weights, once, on the test part."""
        load_weights(self.task, read_checkpoint(self.run.best))
        self.task.artifacts = Artifacts()  # of the last validation; with trainer.limit_test_batches=0 no others follow
        with self._interruptible():
            self.trainer.test(self.task, datamodule=self.data, verbose=False)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Raises KeyboardInterrupt where Lightning turned a Ctrl-C into a SystemExit, and a sentence where the disk is full."""
        try:
            yield
        except SystemExit as end:
            if isinstance(end.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        except OSError as error:
            if sentence := self.run.explained(error):
                raise sentence from error
            raise

    def report(self) -> None:
        """Marks the run as finished in its summary, and prints the results."""
        with self._interruptible():
            if self.trainer.is_global_zero:
                save_curves(self.run)  # before the run counts as finished, which it stays
                save_animations(self.run, self.task.animated)
            self.record.write(self.trainer, "finished")
        if self.trainer.is_global_zero:
            show_report(self)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        """Releases the run's folder and closes its loggers; prints how to resume a run that did not finish.

        A run that its search pruned is no failure: its error is not raised again.
        """
        pruned = isinstance(error, PrunedError)
        if pruned:
            self.record.write(self.trainer, "pruned")
        elif error is not None and self.trainer.is_global_zero:
            if self.run.summary().get("status") == "running":
                with contextlib.suppress(OSError):  # of a full disk, or a folder that was deleted
                    self.record.write(self.trainer, "failed", error=str(error))
            if isinstance(error, DivergedError) and self.run.last.exists():
                kept = relative(self.run.last)
                self.console.print(verbatim(f"\nThe last good checkpoint is kept: {kept}"), soft_wrap=True)
            elif self.run.last.exists():
                folder = relative(self.run.folder)
                line = command_line("train", typed("resume", folder))
                self.console.print(verbatim(f"\nTo go on from the last checkpoint: {line}"), soft_wrap=True)
            elif self.run.folder.is_dir():
                self.console.print(
                    "\nThe run ended before its first checkpoint: resumed, it begins at step 0.", soft_wrap=True
                )
                error.begins_anew = not self.console.quiet  # type: ignore[attr-defined]  # a grid goes on with other runs
        self.run.release()
        for logger in self.trainer.loggers:
            if isinstance(logger, ArtifactLogger):
                logger.close(failed=error is not None and not pruned)
        return pruned
