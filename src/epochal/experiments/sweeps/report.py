"""The report of a search: a table of the best trials, and figures of its history, Pareto front and importances."""

from __future__ import annotations

import csv
import io
import math
import shlex
import warnings
from collections.abc import Sequence

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from epochal.core.files import relative, write_atomically
from epochal.core.format import number_text, verbatim
from epochal.core.metrics import find
from epochal.core.program import command_line, typed
from epochal.experiments.sweeps import JOURNAL
from epochal.experiments.sweeps.settings import Objective
from epochal.experiments.sweeps.space import value_text
from epochal.experiments.sweeps.study import Study
from epochal.plots.vega import COLOURS, Row, save, specification

BEST = 10  # trials in the table
MIN_TRIALS = 8  # finished trials needed for importances
STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


def report(study: Study, console: Console) -> None:
    """Prints the best and the failed trials; writes `trials.csv` and figures into the study's folder."""
    trials = study.trials()
    counts = {name: sum(trial.state == state for trial in trials) for state, name in STATES.items()}
    console.print()
    if best := study.best(BEST):
        console.print(table(study, best))
    console.print(", ".join(f"{count} {name}" for name, count in counts.items() if count) + ".", highlight=False)
    for trial in study.trials(TrialState.FAIL):
        values = " ".join(f"{name}={value_text(value)}" for name, value in trial.params.items())
        words = f" trial {trial.number}  {values}  {trial.user_attrs.get('error')}"
        console.print(verbatim(("✗", "red"), words), soft_wrap=True)
    write_atomically(study.folder / "trials.csv", as_csv(study, trials))
    pictures = draw(study)
    folder = relative(study.folder)
    if pictures:
        where = f"\nPictures of the search: {folder}/{', '.join(pictures)} (.png, .svg)."
        console.print(verbatim(where), soft_wrap=True)
    if best and (run := best[0].user_attrs.get("run")):
        line = command_line("evaluate", typed("run", relative(study.folder / run)))
        console.print(verbatim("The best run:  ", (line, "bold")), soft_wrap=True)
    lines = command_line("compare", shlex.quote(folder)), f"optuna-dashboard {shlex.quote(f'{folder}/{JOURNAL}')}"
    console.print(verbatim("All of them:   ", (lines[0], "bold")), soft_wrap=True)
    console.print(verbatim("In a browser:  ", (lines[1], "bold")), soft_wrap=True)


def table(study: Study, trials: Sequence[FrozenTrial]) -> Table:
    """A row for each trial."""
    front = len(study.objectives) > 1
    title = "The Pareto front: no trial is better in one and as good in the other." if front else "The best trials"
    made = Table(title=title, title_justify="left", box=None, padding=(0, 2), header_style="bold")
    made.add_column("trial", justify="right")
    for objective in study.objectives:
        made.add_column(objective.name, justify="right")
    names = [parameter.name for parameter in study.space]
    for name in names:
        made.add_column(verbatim(name), justify="right")
    for trial in trials:
        values = [number_text(o.name, value) for o, value in zip(study.objectives, trial.values, strict=True)]
        made.add_row(str(trial.number), *values, *(verbatim(value_text(trial.params[name])) for name in names))
    return made


def as_csv(study: Study, trials: Sequence[FrozenTrial]) -> str:
    """A row for each trial: number, state, run, objectives and parameters."""
    text = io.StringIO()
    names = [parameter.name for parameter in study.space]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "run", *(objective.name for objective in study.objectives), *names])
    for trial in trials:
        values = trial.values if trial.values is not None else [""] * len(study.objectives)
        writer.writerow(
            [
                trial.number,
                STATES.get(trial.state, "waiting"),
                trial.user_attrs.get("run", ""),
                *values,
                *(trial.params.get(name, "") for name in names),
            ]
        )
    return text.getvalue()


def draw(study: Study) -> list[str]:
    """Writes the figures for which there are enough trials, and returns their names."""
    one = len(study.objectives) == 1
    specs = {"history": history(study)} if one else {"front": front(study)}
    specs["importance"] = importance(study)
    drawn = {name: spec for name, spec in specs.items() if spec is not None}
    for name, spec in drawn.items():
        save(spec, study.folder, name)
    return list(drawn)


def history(study: Study) -> Row | None:
    """Each trial's value, of pruned trials the last one, and a line with the best value so far; None without trials."""
    objective = study.objectives[0]
    trials = [trial for trial in study.trials(TrialState.COMPLETE, TrialState.PRUNED) if trial.values]
    if not trials:
        return None
    better = max if objective.direction == "maximize" else min
    rows: list[Row] = []
    steps: list[Row] = []
    for trial in trials:
        value = trial.values[0]
        rows.append({"trial": trial.number, "value": value, "state": STATES[trial.state]})
        if trial.state == TrialState.COMPLETE:
            steps.append({"trial": trial.number, "value": better(value, steps[-1]["value"]) if steps else value})
    if steps:
        steps.append({"trial": trials[-1].number, "value": steps[-1]["value"]})
    x = {
        "field": "trial",
        "type": "quantitative",
        "scale": {"padding": 8, "nice": False},
        "axis": {"title": "trial", "tickMinStep": 1, "grid": False},
    }
    y = {"field": "value", **axis(objective)}
    kinds = [STATES[TrialState.COMPLETE], STATES[TrialState.PRUNED]]
    legend = {
        "shape": {"field": "state", "type": "nominal", "scale": {"domain": kinds, "range": ["circle", "cross"]}},
        "color": {"field": "state", "type": "nominal", "scale": {"domain": kinds, "range": [COLOURS[0], COLOURS[6]]}},
    }
    return specification(
        [
            {
                "data": {"values": steps},
                "mark": {"type": "line", "interpolate": "step-after", "color": COLOURS[1]},
                "encoding": {"x": x, "y": y},
            },
            {
                "data": {"values": rows},
                "mark": {"type": "point", "filled": True, "size": 45},
                "encoding": {"x": x, "y": y, **legend},
            },
        ],
        "Line: the best so far. A pruned trial stands at its last validation.",
    )


def front(study: Study) -> Row | None:
    """The first objective against the second, the trials of the Pareto front joined by a line; None without trials."""
    x_name, y_name = study.objectives[1], study.objectives[0]
    trials = study.trials(TrialState.COMPLETE)
    if not trials:
        return None
    best = {trial.number for trial in study.best(BEST)}
    rows = [
        {"trial": t.number, "x": t.values[1], "y": t.values[0], "front": "front" if t.number in best else "others"}
        for t in trials
    ]
    x = {"field": "x", **axis(x_name, log=min(row["x"] for row in rows) > 0)}
    y = {"field": "y", **axis(y_name)}
    kinds = {"domain": ["front", "others"], "range": [COLOURS[1], COLOURS[6]]}
    return specification(
        [
            {
                "data": {"values": [row for row in rows if row["front"] == "front"]},
                "mark": {"type": "line", "color": COLOURS[1]},
                "encoding": {"x": x, "y": y},
            },
            {
                "data": {"values": rows},
                "mark": {"type": "point", "filled": True, "size": 45},
                "encoding": {"x": x, "y": y, "color": {"field": "front", "type": "nominal", "scale": kinds}},
            },
        ],
        "No trial is better than one of the front in one objective and as good in the others.",
    )


def importance(study: Study) -> Row | None:
    """How much each parameter decides whether a trial is among the best quarter; None where that cannot be told.

    PED-ANOVA: Watanabe, Bansal, Hutter, 2023 (arXiv 2304.10255).
    """
    if len(study.space) < 2 or len(study.trials(TrialState.COMPLETE)) < MIN_TRIALS:
        return None
    evaluator = PedAnovaImportanceEvaluator(
        target_quantile=0.25
    )  # the default, a tenth, is less than one of few trials
    target = None
    if len(study.objectives) > 1:
        sign = -1 if study.objectives[0].direction == "maximize" else 1

        def target(trial: FrozenTrial) -> float:
            return sign * trial.values[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the direction, which target takes care of
        try:
            found = get_param_importances(study.optuna, evaluator=evaluator, target=target)
        except ValueError:  # every trial has the same value
            return None
    if not all(math.isfinite(fraction) for fraction in found.values()) or sum(found.values()) == 0:
        return None
    rows = [{"parameter": name, "fraction": fraction} for name, fraction in found.items()]
    bars = {
        "data": {"values": rows},
        "mark": {"type": "bar", "color": COLOURS[0]},
        "encoding": {
            "y": {"field": "parameter", "type": "nominal", "sort": None, "axis": {"title": None, "labelLimit": 200}},
            "x": {"field": "fraction", "type": "quantitative", "axis": {"title": "importance", "format": "~%"}},
        },
    }
    trials = len(study.trials(TrialState.COMPLETE))
    caption = f"What sets the best quarter of {trials} finished trials apart by {study.objectives[0].name} (PED-ANOVA)."
    return specification([bars], caption, height=30 * len(rows) + 10)


def axis(objective: Objective, *, log: bool = False) -> Row:
    """Type, scale and axis of an objective, accuracies and errors in percent."""
    scale = {"type": "log", "nice": False} if log else {"zero": False}
    percent = find(objective.name).percent
    return {
        "type": "quantitative",
        "scale": scale,
        "axis": {"title": objective.name, "format": "~%" if percent else "~s" if log else "~g", "tickCount": 5},
    }
