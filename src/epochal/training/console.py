"""Terminal output before and after a run."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from epochal.core.files import relative as relative
from epochal.core.files import write_atomically
from epochal.core.format import duration_text, number_text, short, verbatim
from epochal.core.program import command_line, typed
from epochal.data import DataModule
from epochal.plots.charts import line_chart
from epochal.plots.images import animation
from epochal.plots.terminal import grid_in_terminal
from epochal.tasks import Task
from epochal.training.run_folder import Run

if TYPE_CHECKING:
    from epochal.training.job import Job

STEP = re.compile(r"_(\d{6,})\.png$")  # of a picture of a validation
LINES = 24  # of a text in the terminal


def show_panel(
    console: Console,
    config: DictConfig,
    run: Run,
    known: dict[str, Any],
    data: DataModule,
    task: Task,
    *,
    total_steps: int,
    resumed_step: int,
) -> None:
    """Prints what is about to run, in five lines."""
    rows = Table.grid(padding=(0, 2))
    sizes = data.sizes()
    flops = f", {short(known['flops'])} FLOPs an example" if known["flops"] else ""
    if mean := known.get("flops_at_mean_length"):
        lengths = " and ".join(f"{length:.0f}" for length in known["mean_lengths"] if length is not None)
        flops += f", {short(mean)} at the mean length of {lengths} tokens"
    trained = f", {short(known['trained_parameters'])} of them trained" if "trained_parameters" in known else ""
    rows.add_row("network", f"{short(known['parameters'])} parameters{trained}{flops}")
    rows.add_row(
        "data", f"{sizes['train']:,} {data.unit} to learn from, {sizes['val']:,} to validate, {sizes['test']:,} to test"
    )
    for note in (data.note, *task.notes(data)):
        if note:  # what was left out, and what the task says
            rows.add_row("", verbatim(note))
    where = f", going on from step {resumed_step:,}" if resumed_step else ""
    rows.add_row("training", f"{total_steps:,} steps of {config.dataset.batch_size} ({config.duration}){where}")
    rows.add_row("kept in", verbatim(relative(run.folder)))
    names = (config.model.name, "bold"), " × ", (config.dataset.name, "bold"), " × ", config.task.name.replace("_", " ")
    title = verbatim(*names)
    console.print(Panel(rows, title=title, title_align="left", expand=False, border_style="cyan"))


def show_report(job: Job) -> None:
    """Prints how the run went as a table, draws its curves, and shows the line to type next."""
    console, summary = job.console, job.run.summary()
    table = Table(title_justify="left", show_header=False, box=None, padding=(0, 2))
    for name, value in summary["metrics"].items():
        if name.startswith("test/"):
            table.add_row(verbatim(name), f"[bold]{number_text(name, value)}[/]")
    if "train/loss" in summary["metrics"]:
        table.add_row("train/loss", number_text("train/loss", summary["metrics"]["train/loss"]))
    if best := summary["best"].get("metric"):
        value, step = summary["best"]["value"], summary["best"]["step"]
        table.add_row(verbatim(best), f"{number_text(best, value)} (best, at step {step:,})")
    table.add_row("parameters", f"{summary['parameters']:,}")
    if summary["flops"]:
        mean = summary.get("flops_at_mean_length")
        at_mean = f"; {mean:,} at the mean length" if mean else ""
        table.add_row("FLOPs", f"{summary['flops']:,} an example, forward{at_mean}")
    if summary["examples_per_second"]:
        table.add_row("speed", f"{summary['examples_per_second']:,.0f} examples/s")
    table.add_row("time", f"{duration_text(summary['seconds'])}, {summary['epochs']:.1f} epochs")
    console.print()
    console.print(table)
    show_examples(console, job.task)
    show_texts(console, job.task.artifacts.texts)
    folder = relative(job.run.folder)
    console.print(verbatim(f"\nPictures are in {folder}{os.sep}pictures. More, and other data:"), soft_wrap=True)
    console.print(verbatim("    ", (command_line("evaluate", typed("run", folder)), "bold")), soft_wrap=True)


def save_curves(run: Run) -> None:
    """Draws each metric of the validation by step, beside that of the training if there is one."""

    with run.metrics.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for metric in {name.removeprefix("val/") for name in rows[0] if name.startswith("val/")}:
        series = {}
        for split, label in (("train", "training"), ("val", "validation")):
            points = [(int(row["step"]), float(v)) for row in rows if (v := row.get(f"{split}/{metric}"))]
            if points:
                series[label] = ([step for step, _ in points], [value for _, value in points])
        picture = line_chart(series, title=metric.replace("_", " "), x_label="step", y_label=metric.replace("_", " "))
        picture.save(run.pictures / f"curve_{metric}.png")


def save_animations(run: Run, names: Iterable[str]) -> None:
    """Writes `pictures/<name>.gif` of the pictures that validations left under each name, where there are several."""
    for name in names:
        files = {
            int(match[1]): file for file in run.pictures.glob(f"{name}_*.png") if (match := STEP.search(file.name))
        }
        if len(files) > 1:
            frames = [(f"step {step:,}", Image.open(files[step])) for step in sorted(files)]
            write_atomically(run.pictures / f"{name}.gif", animation(frames))


def show_examples(console: Console, task: Any) -> None:
    """Prints a few test images with their predictions, where the terminal has colours."""
    examples = getattr(task, "examples", None)
    if examples is None or console.color_system is None or max(examples[0].shape[2:]) > 32:
        return

    images, predictions, labels = examples
    names = task.data.classes.names
    few = 8 if images.shape[3] <= 8 else 4
    captions = [names[p] if p == t else f"{names[p]} not {names[t]}" for p, t in zip(predictions, labels, strict=True)]
    wrong = [p != t for p, t in zip(predictions, labels, strict=True)]
    console.print()
    console.print(grid_in_terminal(images[:few], captions[:few], columns=few, highlight=wrong[:few]))


def show_texts(console: Console, texts: dict[str, str]) -> None:
    """Prints the beginning of each text, up to an empty line; all of it is in a file."""
    for name, text in texts.items():
        lines = text.splitlines()
        if len(lines) > LINES:
            end = max((number for number, line in enumerate(lines[:LINES]) if not line), default=LINES)
            left = len(lines) - end
            lines = [*lines[:end], "", f"and {left:,} more lines in the file {name}.txt"]
        panel = Panel(verbatim("\n".join(lines)), title=verbatim(name), title_align="left", border_style="dim")
        console.print(panel)


def rows_table(rows: list[tuple[str, ...]]) -> Table:
    """A table of rows, the first of which is its head; all columns but the first and last are numbers."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for number, head in enumerate(rows[0]):
        table.add_column(verbatim(head), justify="right" if 0 < number < len(rows[0]) - 1 else "left")
    for row in rows[1:]:
        table.add_row(*map(verbatim, row))
    return table
