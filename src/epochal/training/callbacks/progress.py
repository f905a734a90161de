"""Progress of a run in the terminal or in a notebook."""

from __future__ import annotations

import html
import time
from statistics import median
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

from epochal.config.duration import Length
from epochal.core.format import duration_text, number_text

REFRESH = 0.3  # seconds
LONG = 3600  # seconds on a CPU, above which to say how to be quicker


class TerminalBar:
    """Rich's progress bar, drawn only when it is told to.

    Args:
        console: Where to draw.
        total: Steps of the training.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._bar = Bar(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("[cyan]{task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,  # a thread that draws would slow the step that it interrupts
        )
        self._task = self._bar.add_task("", total=total, epoch="", metrics="")
        self._bar.start()

    def show(self, step: int, epoch: str, metrics: str) -> None:
        self._bar.update(self._task, completed=step, epoch=epoch, metrics=metrics, refresh=True)

    def stop(self) -> None:
        self._bar.stop()


class NotebookBar:
    """A progress bar below a notebook's cell, as HTML that is replaced; it needs no widgets.

    Args:
        total: Steps of the training.
    """

    def __init__(self, total: int) -> None:
        from IPython.display import HTML, display

        self._total, self._html = total, HTML
        self._handle: Any = display(HTML(""), display_id=True)

    def show(self, step: int, epoch: str, metrics: str) -> None:
        words = f"step {step:,} of {self._total:,}, epoch {epoch} &nbsp; {html.escape(metrics)}"
        self._handle.update(self._html(f'<progress value="{step}" max="{self._total}"></progress> {words}'))

    def stop(self) -> None:
        """What was shown last stays."""


class Progress(pl.Callback):
    """One bar for the whole run in a terminal or notebook; a line for each validation in a file or pipe.

    Args:
        console: Where to print.
        length: Of the training.
    """

    def __init__(self, console: Console, length: Length) -> None:
        self.console, self.length = console, length
        self.total_steps, self.steps_per_epoch = length.steps, length.steps_per_epoch
        self._bar: TerminalBar | NotebookBar | None = None
        self._next = 0.0  # when to look again, so that a step costs next to nothing
        self._ends: list[float] | None = []  # when the first steps ended; None once the time was estimated
        self._validated = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        if self.console.is_jupyter:
            self._bar = NotebookBar(self.total_steps)
        elif self.console.is_terminal:
            self._bar = TerminalBar(self.console, self.total_steps)
        if self._bar is not None:
            self._bar.show(trainer.global_step, "", "")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        now = time.perf_counter()
        if self._ends is not None:
            self._ends.append(now)
        if now < self._next or not trainer.is_global_zero:
            return
        self._next = now + REFRESH
        step = trainer.global_step
        if self._ends is not None and len(self._ends) > 3 and (now - self._ends[0] > 3 or len(self._ends) > 200):
            # the usual step, so that a validation or the opening of a logger among them does not count
            usual = median(end - start for start, end in zip(self._ends, self._ends[1:], strict=False))
            batches = self.length.batches(self.total_steps) - self.length.batches(step)
            self._estimate(usual * batches, trainer)
        if self._bar is not None:
            loss = trainer.callback_metrics.get("train/loss")
            metrics = f"loss {loss:.3f} {self._validated}" if loss is not None else self._validated
            epoch = f"{step / self.steps_per_epoch:.1f}/{self.total_steps / self.steps_per_epoch:.1f}"
            self._bar.show(step, epoch, metrics)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        values = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
        shown = "val/" + pl_module.progress_metric
        self._validated = f"{shown} {number_text(shown, values[shown])}" if shown in values else ""
        if self._bar is None:
            metrics = "  ".join(f"{name} {number_text(name, value)}" for name, value in values.items())
            epoch = trainer.global_step / self.steps_per_epoch
            self.console.print(f"step {trainer.global_step:,} of {self.total_steps:,}, epoch {epoch:.2f}:  {metrics}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._bar is not None:
            epochs = f"{trainer.global_step / self.steps_per_epoch:.1f}"
            self._bar.show(trainer.global_step, epochs, self._validated)
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def _estimate(self, seconds: float, trainer: pl.Trainer) -> None:
        self._ends = None
        if seconds < 20:
            return
        self.console.print(f"About {duration_text(seconds)} to go, validations not counted.")
        if seconds > LONG and trainer.strategy.root_device.type == "cpu":
            self.console.print(
                "[yellow]That is long on a CPU. Shorter: duration=10minutes, or dataset.train_size=0.1, or a smaller model."
            )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
