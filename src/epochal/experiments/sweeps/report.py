"""The report of a search: a table of the best trials, what became of the others, `trials.csv`, and the figures."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence

from optuna.trial import FrozenTrial
from rich.console import Console
from rich.table import Table

from epochal.core.files import relative, write_atomically
from epochal.core.format import count_text, number_text, verbatim
from epochal.core.program import command_line, typed
from epochal.experiments.sweeps import JOURNAL
from epochal.experiments.sweeps.figures import draw
from epochal.experiments.sweeps.space import setting_text, value_text
from epochal.experiments.sweeps.study import Study
from epochal.experiments.sweeps.words import KINDS, leaves, shortened, state

BEST = 10  # trials in the table
NAMED = 3  # trials that diverged, and that failed, by their values
GAP = 2  # characters between two columns
DIGITS = (6, 4, 3)  # significant ones of a value, as many as there is room for
NARROWEST = 6  # characters of a column that is cut


def report(study: Study, console: Console) -> None:
    """Prints the best trials and those that failed; writes `trials.csv` and figures into the study's folder."""
    trials = study.trials()
    kinds = [state(trial) for trial in trials]
    console.print()
    if best := study.best(BEST):
        console.print(table(study, best, console.width))
        console.print()
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds)
    counts = counts.replace("running", "not finished yet")  # or its process was killed
    console.print(f"{count_text(len(trials), 'trial')}: {counts}.", highlight=False)
    if study.exhausted and "running" not in kinds:
        early = f", so the search ends before sweep.n_trials={study.settings.n_trials}"
        early = early if len(study.counted) < study.settings.n_trials else ""
        text = f"{study.space.size} of {study.space.count_text}: all were tried{early}."
        console.print(text, highlight=False)
    for kind in ("diverged", "failed"):
        lost = [trial for trial in trials if state(trial) == kind]
        for trial in lost[:NAMED]:
            words = f" trial {trial.number} {kind}  {setting_text(trial.params)}  {trial.user_attrs.get('error')}"
            console.print(verbatim(("✗", "red"), words), soft_wrap=True)
        if len(lost) > NAMED:
            console.print(verbatim(("✗", "red"), f" {len(lost) - NAMED} more {kind}: trials.csv"), soft_wrap=True)
    write_atomically(study.folder / "trials.csv", as_csv(study, trials))
    pictures, folder = draw(study), relative(study.folder)
    console.print()
    for name in pictures:
        console.print(verbatim(f"figure         {folder}/{name}.png"), soft_wrap=True)
    console.print(verbatim(f"every trial    {folder}/trials.csv"), soft_wrap=True)
    lines = {"all runs": command_line("compare", shlex.quote(folder))}
    if best and (run := best[0].user_attrs.get("run")):
        lines = {"the best run": command_line("evaluate", typed("run", relative(study.folder / run)))} | lines
    lines["in a browser"] = f"optuna-dashboard {shlex.quote(f'{folder}/{JOURNAL}')}"
    for what, line in lines.items():
        console.print(verbatim(f"{what:15}", (line, "bold")), soft_wrap=True)


def table(study: Study, trials: Sequence[FrozenTrial], width: int) -> Table:
    """A row for each trial, at most `width` characters wide: heads and values are cut, in the middle, before that.

    With more columns than fit, the values stand below each other in one.
    """
    many = len(study.objectives) > 1
    title = "The Pareto front: no trial is better in one and as good in the other." if many else "The best trials"
    made = Table(title=title, title_justify="left", box=None, padding=(0, GAP, 0, 0), header_style="bold")
    first = [("trial", [str(trial.number) for trial in trials])]
    for number, objective in enumerate(study.objectives):
        first.append((objective.name, [number_text(objective.name, trial.values[number]) for trial in trials]))
    room = width - sum(max(map(len, [head, *cells])) + GAP for head, cells in first)
    columns = columns_within(study, trials, room)
    for head, _ in [*first, *(columns or ())]:
        made.add_column(verbatim(head), justify="right", no_wrap=True)
    if columns is None:
        made.add_column("setting", overflow="fold")
        names = varying(study, trials)
        values = [cells(trials, name, DIGITS[1]) for name in names]
        columns = [("setting", [one_line(leaves(names), row) for row in zip(*values)])]
    for row in zip(*(cells for _, cells in [*first, *columns])):
        made.add_row(*map(verbatim, row))
    return made


def columns_within(study: Study, trials: Sequence[FrozenTrial], room: int) -> list[tuple[str, list[str]]] | None:
    """Head and cells of each key that varies, in so many characters together; None if they cannot be read then."""
    names = varying(study, trials)
    for digits in DIGITS:
        for heads in (names, leaves(names)):
            columns = [(head, cells(trials, name, digits)) for head, name in zip(heads, names)]
            if total(columns) <= room:
                return columns
    heads, values = [head for head, _ in columns], [column for _, column in columns]
    widths = [max(map(len, [head, *column])) for head, column in columns]
    while sum(widths) + GAP * len(widths) > room and max(widths, default=0) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    cut = [shortened([head], limit)[0] for head, limit in zip(heads, widths)]
    columns = [(head, shortened(column, limit)) for head, column, limit in zip(cut, values, widths)]
    return columns if total(columns) <= room and len(set(cut)) == len(cut) else None


def varying(study: Study, trials: Sequence[FrozenTrial]) -> list[str]:
    """The keys of which these trials have one of several values."""
    names = [parameter.name for parameter in study.space.parameters if parameter.size > 1]
    return [name for name in names if any(name in trial.params for trial in trials)]


def one_line(names: Sequence[str], values: Sequence[str]) -> str:
    """`lr=0.003 hidden=64`, without the keys that have no value."""
    return " ".join(f"{name}={value}" for name, value in zip(names, values) if value != "–")


def total(columns: Sequence[tuple[str, list[str]]]) -> int:
    """The width of columns, the gaps behind them included."""
    return sum(max(map(len, [head, *cells])) + GAP for head, cells in columns)


def cells(trials: Sequence[FrozenTrial], name: str, digits: int) -> list[str]:
    """The values of a key, numbers with so many significant digits or as many more as set them apart; `–` for none."""
    values = [trial.params.get(name) for trial in trials]
    full = ["–" if value is None else value_text(value) for value in values]
    for count in range(digits, max(DIGITS)):
        short = [f"{value:.{count}g}" if isinstance(value, float) else text for value, text in zip(values, full)]
        if len(set(short)) == len(set(full)):
            return short
    return full


def as_csv(study: Study, trials: Sequence[FrozenTrial]) -> str:
    """A row for each trial: number, state, run, objectives and parameters."""
    text = io.StringIO()
    names = [parameter.name for parameter in study.space.parameters]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "run", *(objective.name for objective in study.objectives), *names])
    for trial in trials:
        kind, found = state(trial), trial.values
        values = found if found is not None and kind != "diverged" else [""] * len(study.objectives)
        parameters = (trial.params.get(name, "") for name in names)
        writer.writerow([trial.number, kind, trial.user_attrs.get("run", ""), *values, *parameters])
    return text.getvalue()
