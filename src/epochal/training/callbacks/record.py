"""Keeps a run's summary and pictures up to date."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from epochal.core.errors import DivergedError, PrunedError
from epochal.training.callbacks.checkpoints import Checkpoints
from epochal.training.cost import peak_memory_mb
from epochal.training.loggers.base import ArtifactLogger, log_artifacts
from epochal.training.loggers.files import RunLogger
from epochal.training.run_folder import Run


class Record(pl.Callback):
    """Writes `summary.json` and pictures, measures the time, and ends the training at its last step with a validation.

    Args:
        run: The folder to write to.
        logger: Has the newest metrics.
        checkpoints: Has the best metric.
        known: What is known before the training: model, dataset, parameters ...
        total_steps: The training's length.
        resumed_step: The step that training resumes at, 0 for a new run.
    """

    def __init__(
        self,
        run: Run,
        logger: RunLogger,
        checkpoints: Checkpoints,
        known: dict[str, Any],
        *,
        total_steps: int,
        resumed_step: int = 0,
    ) -> None:
        self.run, self.logger, self.checkpoints = run, logger, checkpoints
        self.known = {**known, "code": code_by_steps(run.summary(), known, resumed_step)}
        self.total_steps, self.resumed_step = total_steps, resumed_step
        self._mark: float | None = None  # when the current stretch of training began; None during a validation
        self._marked_step = 0
        self._trained = {"seconds": 0.0, "steps": 0}  # without validations, all processes of this run together
        self._seconds = 0.0
        self._opened = False
        self._has_rows = False  # in metrics.csv, when the checkpoint was saved

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if trainer.world_size > 1:  # rank zero made the folder
            self.run.move(Path(trainer.strategy.broadcast(str(self.run.folder))))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.logger.start(self.resumed_step, self._seconds, has_rows=self._has_rows)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._begin(trainer)
        self.write(trainer, "running")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        if not self._opened:
            self._open_loggers(trainer, pl_module)
        pl_module.log_training_row()
        if trainer.global_step >= self.total_steps:
            trainer.should_stop = True  # unlike max_steps, this makes Lightning validate once more

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._end(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if trainer.is_global_zero:
            log_artifacts(trainer.loggers, pl_module.artifacts, trainer.global_step)
            self.write(trainer, "running")
        self._begin(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._end(trainer)
        self._seconds = self.logger.seconds

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            log_artifacts(trainer.loggers, pl_module.artifacts, trainer.global_step, final=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        if isinstance(exception, PrunedError):
            return  # no failure; Job.__exit__ writes the status
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        with contextlib.suppress(OSError):  # of a full disk, or a folder that was deleted: `exception` says it
            status, error = ("stopped", None) if stopped else ("failed", f"{exception}")
            self.write(trainer, status, error=error, diverged=isinstance(exception, DivergedError))

    def state_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.logger.seconds,
            "has_rows": bool(self.logger.last),
            **{f"trained_{k}": v for k, v in self._trained.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seconds, self._has_rows = state["seconds"], state.get("has_rows", False)  # not in version 0.1
        self._trained = {"seconds": state["trained_seconds"], "steps": state["trained_steps"]}

    @property
    def examples_per_second(self) -> float | None:
        """Of the training, without validations."""
        seconds, steps = self._trained["seconds"], self._trained["steps"]
        if self._mark is not None:
            seconds += time.perf_counter() - self._mark
        return self.logger.examples(int(steps)) / seconds if steps and seconds else None

    def write(self, trainer: pl.Trainer, status: str, error: str | None = None, diverged: bool = False) -> None:
        """Writes `summary.json` with the current values."""
        if not trainer.is_global_zero:
            return
        step = min(trainer.global_step, self.total_steps)
        self.run.write_summary(
            {
                "status": status,
                "error": error,
                "diverged": diverged,
                **self.known,
                "metrics": dict(self.logger.last),
                "best": dict(self.checkpoints.best),
                "examples_per_second": self.examples_per_second,
                "seconds": self._seconds if self._mark is None else self.logger.seconds,
                "peak_memory_mb": peak_memory_mb(),
                "steps": step,
                "total_steps": self.total_steps,
                "epochs": step / self.logger.length.steps_per_epoch,
            }
        )

    def _open_loggers(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Opens W&B after the first step, so that this need not wait; the second that it takes is not counted as training."""
        self._opened, started = True, time.perf_counter()
        for logger in trainer.loggers:
            if isinstance(logger, ArtifactLogger) and trainer.is_global_zero:
                logger.open_run()
        took = time.perf_counter() - started
        self.logger.pause(took)
        pl_module.exclude_from_speed(took)
        if self._mark is not None:
            self._mark += took

    def _begin(self, trainer: pl.Trainer) -> None:
        self._mark, self._marked_step = time.perf_counter(), trainer.global_step

    def _end(self, trainer: pl.Trainer) -> None:
        if self._mark is not None:
            self._trained["seconds"] += time.perf_counter() - self._mark
            self._trained["steps"] += trainer.global_step - self._marked_step
            self._mark = None


def code_by_steps(summary: dict[str, Any], known: dict[str, Any], step: int) -> list[dict[str, Any]]:
    """Commit and versions of the code by the step from which it trained.

    Args:
        summary: As the process before left it; empty for a new run.
        known: With those of this process.
        step: That this process begins at.
    """
    code = {key: known.get(key) for key in ("git_commit", "versions")}
    first = {"from_step": 0, **{key: summary.get(key) for key in code}}  # version 0.1 kept no list
    kept = summary.get("code", [first])
    kept = [entry for entry in kept if isinstance(entry, dict)] if isinstance(kept, list) else []  # a hand was in it
    earlier = [entry for entry in kept if isinstance(start := entry.get("from_step"), int) and start < step]
    if earlier and all(earlier[-1].get(key) == value for key, value in code.items()):
        return earlier
    return [*earlier, {"from_step": step, **code}]
