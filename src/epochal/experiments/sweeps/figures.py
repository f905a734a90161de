"""The figures of a search: its history, value against each parameter, parallel coordinates, Pareto front, importance."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from epochal.core.format import number_text
from epochal.core.metrics import find
from epochal.experiments.sweeps.settings import Objective
from epochal.experiments.sweeps.space import Parameter, value_text
from epochal.experiments.sweeps.study import Study
from epochal.experiments.sweeps.words import leaves, shortened, state
from epochal.plots.vega import (
    COLOURS,
    HEIGHT,
    WIDTH,
    Row,
    Series,
    number_axis,
    save,
    series_scales,
    spans_decades,
    specification,
)

MIN_TRIALS = 8  # trials needed for importances
BLUE, ORANGE, GREY, RED = COLOURS[0], COLOURS[1], COLOURS[6], "#a3123f"
DIAGONAL = "M-.8,-.8L.8,.8M.8,-.8L-.8,.8"
STYLES = {
    "finished": Series("finished", BLUE, "circle", (1, 0), opacity=0.55),
    "best": Series("best", ORANGE, "diamond", (1, 0), opacity=1),
    "pruned": Series("pruned", GREY, "cross", (1, 0), hollow=True),
    "diverged": Series("diverged", RED, DIAGONAL, (1, 0), hollow=True),
    "failed": Series("failed", "#444444", "square", (1, 0), hollow=True),
}
FRONT = ("finished", "best")  # drawn in front of the others
PANEL = (190, 150)  # width and height in pixels of a panel of several
EDGE = 5  # pixels from the edge of a plot to the trials that have no value
LABEL = 12  # characters of a tick or an axis in a figure
SPACING = 100  # pixels between parallel axes
BEYOND = 0.11  # how far beyond an axis, as a fraction of it, trials stand that have no value on it


def draw(study: Study) -> list[str]:
    """Writes the figures for which there are enough trials, and returns their names."""
    one = len(study.objectives) == 1
    specs = {"history": history(study)} if one else {"front": front(study)}
    specs |= {"parameters": parameters(study), "parallel": parallel(study), "importance": importance(study)}
    drawn = {name: spec for name, spec in specs.items() if spec is not None}
    for name, spec in drawn.items():
        save(spec, study.folder, name)
    return list(drawn)


@dataclass(frozen=True)
class Point:
    """A trial as it is drawn.

    Attributes:
        trial: Of the study.
        kind: finished, best, pruned, diverged or failed; best are those of a Pareto front too.
        values: Of the objectives, of a pruned trial its last; None without any.
    """

    trial: FrozenTrial
    kind: str
    values: Sequence[float] | None


def points(study: Study) -> list[Point]:
    """The trials that have ended."""
    best = {trial.number for trial in study.best(1)}
    found = []
    for trial in study.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
        kind = "best" if trial.number in best else state(trial)
        values = trial.values if kind in ("finished", "best", "pruned") and trial.values else None
        found.append(Point(trial, kind, values))
    return found


def marks(
    drawn: Sequence[Point], objective: int, study: Study, x: Row, y: Row, where: Any, size: tuple[int, int]
) -> list[Row]:
    """Layers: the trials with a value, and at the worst edge those without.

    Args:
        drawn: The trials.
        objective: Which of their values is on the y axis.
        study: That they are of.
        x: Encoding of the field `x`.
        y: Encoding of the field `y`.
        where: The function that gives a trial's place on the x axis; None where it has none.
        size: Width and height of the plot.
    """
    rows = [
        {"x": where(p.trial), "y": p.values[objective] if p.values else None, "series": p.kind}
        for p in sorted(drawn, key=lambda point: FRONT.index(point.kind) if point.kind in FRONT else -1)
        if where(p.trial) is not None
    ]
    kinds = [style for kind, style in STYLES.items() if any(p.kind == kind for p in drawn)]
    scales = {name: encoding for name, encoding in series_scales(kinds).items() if name != "strokeDash"}
    worst_at_top = study.objectives[objective].direction == "minimize"
    mark = {"type": "point", "size": 42, "strokeWidth": 1.3, "opacity": 1}
    bigger = {"condition": {"test": "datum.series == 'best'", "value": 110}, "value": 42}
    valued, others = [r for r in rows if r["y"] is not None], [r for r in rows if r["y"] is None]
    layers = [{"data": {"values": valued}, "mark": mark, "encoding": {"x": x, "y": y, "size": bigger, **scales}}]
    for row, kind in enumerate(("diverged", "failed")):
        lost = [r for r in others if r["series"] == kind]
        place = EDGE + row * 2 * EDGE
        y = {"value": place if worst_at_top else size[1] - place}
        layers += [{"data": {"values": lost}, "mark": mark, "encoding": {"x": x, "y": y, **scales}}] if lost else []
    return layers


def edge_words(drawn: Sequence[Point]) -> str:
    """What a caption says of the trials without a value."""
    kinds = [kind for kind in ("diverged", "failed") if any(p.kind == kind for p in drawn)]
    words = f" Trials that {' or '.join(kinds)} stand at the edge, without a value." if kinds else ""
    return words + (" A pruned trial stands at its last validation." if any(p.kind == "pruned" for p in drawn) else "")


def history(study: Study) -> Row | None:
    """Each trial's value, of pruned trials the last one, and a line with the best value so far; None without values."""
    objective, drawn = study.objectives[0], points(study)
    values = [point.values[0] for point in drawn if point.values]
    if not values:
        return None
    better = max if objective.direction == "maximize" else min
    steps: list[Row] = []
    for trial in study.finished():
        value = trial.values[0]
        steps.append({"x": trial.number, "y": better(value, steps[-1]["y"]) if steps else value})
    if steps:
        steps.append({"x": drawn[-1].trial.number, "y": steps[-1]["y"]})
    x = {
        "field": "x",
        "type": "quantitative",
        "scale": {"padding": 8, "nice": False},
        "axis": {"title": "trial", "tickMinStep": 1, "grid": False},
    }
    y = {"field": "y", **axis(objective, values)}
    line = {
        "data": {"values": steps},
        "mark": {"type": "line", "interpolate": "step-after", "color": ORANGE},
        "encoding": {"x": x, "y": y},
    }
    layers = marks(drawn, 0, study, x, y, lambda trial: trial.number, (WIDTH, HEIGHT))
    return specification([line, *layers], "Line: the best so far." + edge_words(drawn))


def parameters(study: Study) -> Row | None:
    """The value of each objective against each parameter, a panel each; None without values."""
    drawn = points(study)
    varying = [p for p in study.space.parameters if p.size > 1 and any(p.name in point.trial.params for point in drawn)]
    if not varying or not any(point.values for point in drawn):
        return None
    alone = len(varying) * len(study.objectives) == 1
    size = (WIDTH, HEIGHT) if alone else PANEL
    panels = []
    for parameter in varying:
        x, where = place(parameter, size[0])
        for number, objective in enumerate(study.objectives):
            values = [point.values[number] for point in drawn if point.values]
            y = {"field": "y", **axis(objective, values)}
            panel = specification(marks(drawn, number, study, {"field": "x", **x}, y, where, size), "")
            panels.append({"layer": panel["layer"], "width": size[0], "height": size[1]})
    front = "best: the Pareto front." if len(study.objectives) > 1 else "the best is the diamond."
    columns = len(study.objectives) if len(study.objectives) > 1 else 3 if len(varying) > 4 else 2
    spec = specification([], f"Value against each parameter; {front}" + edge_words(drawn))
    if alone:
        return spec | {"layer": panels[0]["layer"]}
    del spec["layer"], spec["width"], spec["height"]
    shared = {"resolve": {"scale": {"y": "shared"}}} if len(study.objectives) == 1 else {}
    return spec | {"concat": panels, "columns": columns, **shared}


def place(parameter: Parameter, width: int) -> tuple[Row, Any]:
    """The x axis of a parameter, and the function that gives a trial's place on it."""
    name = parameter.name
    if parameter.choices is None:
        ends = [float(parameter.low), float(parameter.high)]
        x = number_axis(name, ends, horizontal=True, log=parameter.log, ticks_at_values=False)
        x["scale"] |= {"domain": ends, "padding": 8}
        return x, lambda trial: trial.params.get(name)
    texts = [value_text(choice) for choice in parameter.choices]
    labels = dict(zip(texts, shortened(texts, max(LABEL // 2, width // (6 * len(texts))))))
    x = {
        "type": "nominal",
        "sort": None,
        "scale": {"domain": list(labels.values()), "type": "point", "padding": 0.5},
        "axis": {"title": name, "grid": False, "labelAngle": 0, "labelOverlap": False},
    }
    if sum(len(label) + 2 for label in labels.values()) * 5.5 > width:
        x["axis"] |= {"labelAngle": -40}
    return x, lambda trial: labels[value_text(trial.params[name])] if name in trial.params else None


@dataclass(frozen=True)
class Axis:
    """An upright axis of parallel coordinates; places are 0 at its lower and 1 at its upper end."""

    title: str
    places: dict[int, float]  # by the trial's number
    ticks: list[tuple[float, str]]


def parallel(study: Study) -> Row | None:
    """A line for each trial through its parameters and values (parallel coordinates); None with fewer than three axes."""
    drawn = [point for point in points(study) if point.kind != "failed"]
    varying = [p for p in study.space.parameters if p.size > 1 and any(p.name in point.trial.params for point in drawn)]
    if len(varying) + len(study.objectives) < 3 or not any(point.values for point in drawn):
        return None
    axes = [parameter_axis(parameter, drawn) for parameter in varying]
    axes += [objective_axis(study, number, drawn) for number in range(len(study.objectives))]
    sign = 1 if study.objectives[0].direction == "maximize" else -1
    lines = [
        {"x": x, "y": axis.places[p.trial.number], "trial": p.trial.number, "kind": p.kind}
        | {"rank": sign * p.values[0] if p.values else 0}
        for p in drawn
        for x, axis in enumerate(axes)
    ]
    kinds = {line["kind"] for line in lines}
    words = ["A line for each trial, the darker the better."]
    if "best" in kinds:
        alone = f"the best, trial {study.best(1)[0].number}"
        words.append(f"Orange: {'the Pareto front' if len(study.objectives) > 1 else alone}.")
    words += [f"{how}: {kind}." for how, kind in (("Grey", "pruned"), ("Red, dashed", "diverged")) if kind in kinds]
    layers = parallel_layers(axes, lines)
    return specification(layers, " ".join(words)) | {"width": max(WIDTH, SPACING * (len(axes) - 1))}


def parallel_layers(axes: Sequence[Axis], lines: Sequence[Row]) -> list[Row]:
    """The upright axes, the lines of the trials in front of each other, and the ticks and names of the axes."""
    titles = shortened(leaves([axis.title for axis in axes]), SPACING // 6)
    ticks: list[Row] = [{"x": x, "y": y, "text": text} for x, axis in enumerate(axes) for y, text in axis.ticks]
    bottom, top = min(tick["y"] for tick in ticks) - BEYOND / 4, max(tick["y"] for tick in ticks) + BEYOND
    heads = [{"x": x, "y": top, "text": title} for x, title in enumerate(titles)]
    rules = [{"x": x, "y": y, "trial": x} for x in range(len(axes)) for y in (0, 1)]
    detail = {"field": "trial", "type": "nominal"}
    colours = {"range": ["#cfe0ee", "#7fb2d6", "#004c80"]}
    by_value = {"field": "rank", "type": "quantitative", "legend": None, "scale": colours}

    def place(field: str, low: float, high: float) -> Row:
        return {"field": field, "type": "quantitative", "axis": None, "scale": {"domain": [low, high], "nice": False}}

    x, y = place("x", 0, len(axes) - 1), place("y", bottom, top)

    def line(rows: Sequence[Row], colour: str | None, width: float, **more: Any) -> Row:
        mark = {"type": "line", "strokeWidth": width, **({"color": colour} if colour else {}), **more}
        encoding = {"x": x, "y": y, "detail": detail, **({} if colour else {"color": by_value})}
        return {"data": {"values": rows}, "mark": mark, "encoding": encoding}

    def text(rows: Sequence[Row], **mark: Any) -> Row:
        encoding = {"x": x, "y": y, "text": {"field": "text"}}
        return {"data": {"values": rows}, "mark": {"type": "text"} | mark, "encoding": encoding}

    def of(kind: str) -> list[Row]:
        return [row for row in lines if row["kind"] == kind]

    beside = {"align": "left", "dx": 4, "fontSize": 9.5}
    return [
        line(rules, "#888888", 1),
        line(of("pruned"), "#bbbbbb", 0.8),
        line(of("diverged"), RED, 0.9, strokeDash=[4, 3]),
        line(of("finished"), None, 1.4),
        line(of("best"), ORANGE, 2.6),
        text(ticks, **beside, color="white", stroke="white", strokeWidth=3),
        text(ticks, **beside, color="#333333"),
        text(heads, fontSize=11, color="#222222", baseline="middle"),
    ]


def parameter_axis(parameter: Parameter, drawn: Sequence[Point]) -> Axis:
    """The axis of a parameter; trials without it are below it."""
    name = parameter.name
    if parameter.choices is not None:
        texts = [value_text(choice) for choice in parameter.choices]
        step = 1 / max(1, len(texts) - 1)
        places = {text: number * step for number, text in enumerate(texts)}
        ticks = list(zip(places.values(), shortened(texts, LABEL)))
        found = {p.trial.number: places[value_text(p.trial.params[name])] for p in drawn if name in p.trial.params}
    else:
        ends = (float(parameter.low), float(parameter.high))
        found = {
            p.trial.number: fraction(p.trial.params[name], ends, parameter.log) for p in drawn if name in p.trial.params
        }
        ticks = [(fraction(tick, ends, parameter.log), f"{tick:.3g}") for tick in tick_values(ends, parameter.log)]
    lacking = {p.trial.number: -BEYOND for p in drawn if name not in p.trial.params}
    return Axis(name, found | lacking, ticks + ([(-BEYOND, "not set")] if lacking else []))


def objective_axis(study: Study, number: int, drawn: Sequence[Point]) -> Axis:
    """The axis of an objective; trials without a value are beyond its worst end."""
    objective = study.objectives[number]
    values = [point.values[number] for point in drawn if point.values]
    log, ends = spans_decades(values), (min(values), max(values))
    worst = -BEYOND if objective.direction == "maximize" else 1 + BEYOND
    found = {p.trial.number: fraction(p.values[number], ends, log) if p.values else worst for p in drawn}
    ticks = [(fraction(tick, ends, log), number_text(objective.name, tick)) for tick in tick_values(ends, log)]
    lacking = [p for p in drawn if not p.values]
    return Axis(objective.name, found, ticks + ([(worst, lacking[0].kind)] if lacking else []))


def fraction(value: float, ends: tuple[float, float], log: bool) -> float:
    """The place of a value between two ends."""
    low, high, value = (math.log(v) if log else v for v in (*ends, value))
    return 0.5 if high == low else (value - low) / (high - low)


def tick_values(ends: tuple[float, float], log: bool) -> list[float]:
    """Both ends, and what is written between them."""
    low, high = ends
    if not log:
        return [low, *(low + i / 4 * (high - low) for i in (1, 2, 3)), high] if high > low else [low]
    powers = [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    return [low, *(power for power in powers if 0.08 < fraction(power, ends, True) < 0.92), high]


def front(study: Study) -> Row | None:
    """The first objective against the second, the trials of the Pareto front joined by a line; None without trials."""
    x_name, y_name = study.objectives[1], study.objectives[0]
    drawn = [point for point in points(study) if point.values]
    if not drawn:
        return None
    best = [{"x": p.values[1], "y": p.values[0]} for p in drawn if p.values and p.kind == "best"]
    xs, ys = [p.values[1] for p in drawn if p.values], [p.values[0] for p in drawn if p.values]
    x = {"field": "x", **axis(x_name, xs, horizontal=True)}
    y = {"field": "y", **axis(y_name, ys)}
    line = {
        "data": {"values": best},
        "mark": {"type": "line", "color": ORANGE},
        "encoding": {"x": x, "y": y},
    }
    places = {p.trial.number: p.values[1] for p in drawn if p.values}
    layers = marks(drawn, 0, study, x, y, lambda trial: places[trial.number], (WIDTH, HEIGHT))
    lost = len(study.diverged())
    words = "No trial is better than one of the front in one objective and as good in the others."
    return specification([line, *layers], words + (f" Not shown: {lost} that diverged." if lost else ""))


def importance(study: Study) -> Row | None:
    """How much each parameter decides whether a trial is among the best quarter; None where that cannot be told.

    PED-ANOVA: Watanabe, Bansal, Hutter, 2023 (arXiv 2304.10255). Trials that diverged are among the worst.
    """
    trials = study.trials(TrialState.COMPLETE)
    varying = {parameter.name for parameter in study.space.parameters if parameter.size > 1}
    if len(varying) < 2 or len(trials) < MIN_TRIALS or not study.finished():
        return None
    evaluator = PedAnovaImportanceEvaluator(
        target_quantile=0.25
    )  # the default, a tenth, is less than one of few trials
    sign = -1 if study.objectives[0].direction == "maximize" else 1
    worst = max(sign * trial.values[0] for trial in study.finished())

    def target(trial: FrozenTrial) -> float:
        value = sign * trial.values[0]
        return value if math.isfinite(value) else worst + 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the direction, which target takes care of
        try:
            found = get_param_importances(study.optuna, evaluator=evaluator, target=target)
        except ValueError:  # every trial has the same value
            return None
    found = {name: value for name, value in found.items() if name in varying}
    if not all(math.isfinite(value) for value in found.values()) or sum(found.values()) == 0:
        return None
    rows = [{"parameter": name, "fraction": value} for name, value in found.items()]
    y = {"field": "parameter", "type": "nominal", "sort": None, "axis": {"title": None, "labelLimit": 200}}
    x = {"field": "fraction", "type": "quantitative"}
    bars = {
        "data": {"values": rows},
        "mark": {"type": "bar", "color": BLUE},
        "encoding": {"y": y, "x": x | {"axis": {"title": "importance", "format": "~%"}}},
    }
    caption = f"What sets the best quarter of {len(trials)} trials apart by {study.objectives[0].name} (PED-ANOVA)."
    return specification([bars], caption, height=30 * len(rows) + 10)


def axis(objective: Objective, values: Sequence[float], *, horizontal: bool = False) -> Row:
    """Type, scale and axis of an objective: in percent, or logarithmic where values span decades."""
    percent, log = find(objective.name).percent, spans_decades(values)
    made = number_axis(objective.name, values, percent=percent, horizontal=horizontal, log=log)
    made["scale"] |= {"padding": 12} if not log or horizontal else {}
    return made
