"""Figures: one Vega-Lite specification a plot gives its PNG and SVG for a paper and the interactive plot of the page."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from epochal.compare.groups import Group, grouped, together
from epochal.compare.labels import label, title, value_text
from epochal.core.files import slug
from epochal.core.format import count_text
from epochal.core.metrics import is_share, larger_is_better
from epochal.plots.vega import COLOURS, CONFIG, DASHES, HEIGHT, SERIES, SHAPES, WIDTH

if TYPE_CHECKING:
    from epochal.compare.comparison import Comparison, Plot
    from epochal.compare.records import Record

Row = dict[str, Any]
Groups = Sequence[tuple["Series", Group]]

PAPER_COLOURS, PAPER_DASH = ("#6a6a6a", "#9a9a9a"), (3, 3)  # of published points
TONES = (0.85, 0.4, 0.1)  # opacity of bars side by side, which tells them apart without colour

LETTERS = 62  # of a legend, in a line
POINTS = 200  # of a curve: more than a column's width can show
LINES = 60  # curves of single runs in one plot; beyond, their bands say it better
DIGIT = "substring('⁰¹²³⁴⁵⁶⁷⁸⁹', {0}, {0} + 1)"
BY_FACTORS = ("parameters", "flops", "optimizer.lr", "optimizer.weight_decay")  # seen on a logarithmic axis
EXPONENT = "round(log(datum.value) / LN10)"
POWER = (  # a tick of a logarithmic axis: 10⁻⁸
    f"'10' + ({EXPONENT} < 0 ? '⁻' : '') + (abs({EXPONENT}) > 9 ? '¹' : '') + " + DIGIT.format(f"abs({EXPONENT}) % 10")
)
PARAMS = (  # of lines and points; the wheel alone scrolls the page
    {"name": "chosen", "select": {"type": "point", "fields": ["series"]}, "bind": "legend"},
    {
        "name": "zoom",
        "select": {"type": "interval", "zoom": "wheel![event.ctrlKey || event.shiftKey]"},
        "bind": "scales",
    },
)
MARKS = 6  # on a curve
DECADES = 1.5  # values that span more get a logarithmic axis
DEPTH = 12  # decades of a logarithmic axis: a vanished gradient leaves below
MEASURED = ("seconds", "examples_per_second", "peak_memory_mb")


@dataclass(frozen=True)
class Series:
    """What stands in the legend, and how it is drawn: told apart by colour, and without it by shape and dash."""

    name: str
    colour: str
    shape: str
    dash: Sequence[int]
    tone: float = TONES[0]
    hollow: bool = False


@dataclass
class Drawn:
    """The numbers of one plot, and what its caption must say of them."""

    means: list[Row]  # series, x, y, low, high, n; of lines also whether a mark stands there
    singles: list[Row]  # series, run, x, y
    says: str
    x_title: str
    y_title: str


def figure(comparison: Comparison, plot: Plot) -> dict[str, Any]:
    """The plot as a Vega-Lite specification that holds its numbers; `description` is its caption.

    Errors and accuracies are shares, with their axis in percent. A group's points or lines are means over its runs.

    Args:
        comparison: The runs, the published points and the footnote.
        plot: What against what.
    """
    groups = grouped(plot.chosen(comparison.drawn), by=plot.group)
    groups = [group for group in groups if plot.has_values(group.records)]
    shown = _best(groups, plot.y)
    note = f"The best {SERIES} of {len(groups)} groups are drawn." if len(groups) > SERIES else ""
    ours = styles(shown)
    measure = {"curves": _curves, "points": _points, "bars": _points, "profile": _profiles}[plot.kind]
    drawn = measure(plot, list(zip(ours, shown)), comparison.keys)
    paper, published = _published(plot, comparison)
    caption = " ".join(part for part in (drawn.says, note, comparison.footnote) if part)
    build = _bar_layers if plot.kind == "bars" else _line_layers
    datasets = {"means": drawn.means, "singles": drawn.singles, "published": published}
    datasets = {name: rows for name, rows in datasets.items() if rows}  # Vega complains of a layer without data
    layers = [layer for layer in build(plot, drawn, [*ours, *paper], published) if layer["data"]["name"] in datasets]
    if layers and plot.kind != "bars":
        next(layer for layer in layers if "stroke" in layer["encoding"])["params"] = PARAMS
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": caption,
        "title": {"text": textwrap.wrap(caption, LETTERS + 36) or ""},
        "width": WIDTH,
        "height": HEIGHT,
        "datasets": datasets,
        "layer": layers or [{"mark": "point", "data": {"values": []}, "encoding": {}}],
        "config": CONFIG,
    }


def stem(number: int, plot: Plot) -> str:
    """A figure's file name without its suffix: figure_1_train-error_by_model.depth."""
    return f"figure_{number}_{slug(plot.y)}_by_{slug(plot.x or ('position' if plot.kind == 'profile' else 'group'))}"


def styles(groups: Sequence[Group]) -> list[Series]:
    """Colour follows the first key in which the groups differ, the dash the rest; up to six groups, each has a shape.

    Where that would make two groups look the same, colour, shape and dash count through the groups.
    """
    keys = [key for key in (groups[0].values if groups else ()) if len({str(g.values[key]) for g in groups}) > 1]
    each = list(range(len(groups)))
    first = _numbers(group.values[keys[0]] for group in groups) if len(keys) > 1 else each
    rest = _numbers([group.values[key] for key in keys[1:]] for group in groups) if len(keys) > 1 else each
    if max([*first, *rest], default=0) >= len(DASHES):
        first = rest = each
    shapes = each if len(each) <= len(SHAPES) else rest
    return [
        Series(
            group.label,
            COLOURS[first[i] % len(COLOURS)],
            SHAPES[shapes[i] % len(SHAPES)],
            DASHES[rest[i] % len(DASHES)],
            TONES[i % len(TONES)],
        )
        for i, group in enumerate(groups)
    ]


def _numbers(values: Iterable[Any]) -> list[int]:
    """Equal values become equal numbers, counted from 0 as they first appear."""
    seen: dict[str, int] = {}
    return [seen.setdefault(str(value), len(seen)) for value in values]


# ---- what is drawn ----


def _best(groups: list[Group], y: str) -> list[Group]:
    """At most SERIES, in their own order."""
    if len(groups) <= SERIES:
        return groups
    sign = -1 if larger_is_better(y) else 1
    spreads = [group.spread(y) for group in groups]
    worth = [math.inf if spread is None else sign * spread.mean for spread in spreads]
    return [groups[i] for i in sorted(sorted(range(len(groups)), key=worth.__getitem__)[:SERIES])]


def _curves(plot: Plot, groups: Groups, keys: Sequence[str]) -> Drawn:
    found = [(series, record, record.curve(plot.y, plot.x)) for series, group in groups for record in group.records]
    curves = [(series, record, *curve) for series, record, curve in found if curve is not None]
    return Drawn(*_banded(curves), title(plot.x), title(plot.y))


def _profiles(plot: Plot, groups: Groups, keys: Sequence[str]) -> Drawn:
    """As curves; a value that vanished to nothing, such as a gradient, leaves a logarithmic plot at its lower edge."""
    found = [(series, record, record.profile(plot.y)) for series, group in groups for record in group.records]
    profiles = [(series, record, profile) for series, record, profile in found if profile is not None]
    labels = profiles[0][2][:2] if profiles else ("position", title(plot.y))
    values = np.concatenate([profile.y for *_, profile in profiles]) if profiles else np.zeros(0)
    least, below = -math.inf, ""
    if (values >= 0).all() and _wide(values[values > 0]):
        least = values.max() * 10.0 ** -(DEPTH + 3)  # zero has no place on a logarithmic axis
        if values.min() < values.max() * 10.0**-DEPTH:
            below = f" Values below 1e-{DEPTH} of the largest are not shown."
    curves = [(series, record, p.x, np.maximum(p.y, least)) for series, record, p in profiles]
    means, singles, says = _banded(curves)
    return Drawn(means, singles, says + below, *labels)


def _banded(curves: list[tuple[Series, Record, np.ndarray, np.ndarray]]) -> tuple[list[Row], list[Row], str]:
    """A mean line and a band for each series, the single runs where they are few, and the words for it.

    The mean goes over finished runs, if there are any, and as far as all of them go: it never jumps where one ends.
    """
    means: list[Row] = []
    singles: list[Row] = []
    counts = []
    for number, series in enumerate(dict.fromkeys(series for series, *_ in curves)):
        mine = [(record, x, y) for s, record, x, y in curves if s is series]
        whole = [(x, y) for record, x, y in mine if record.status == "finished"] or [(x, y) for _, x, y in mine]
        counts.append(len(whole))
        if (joined := together(whole)) is None:
            continue
        grid, values = (part[..., _thin(joined[0])] for part in joined)
        marks = set((np.linspace(0.5, MARKS - 0.5, MARKS) / MARKS * len(grid) + number).astype(int) % max(len(grid), 1))
        means += [
            _row(series, x=x, y=ys.mean(), low=ys.min(), high=ys.max(), n=len(ys), marked=i in marks)
            for i, (x, ys) in enumerate(zip(grid, values.T))
        ]
        if len(curves) <= LINES and len(mine) > 1:
            singles += [_row(series, run=record.name, x=x[i], y=y[i]) for record, x, y in mine for i in _thin(x)]
    if max(counts, default=0) < 2:
        return means, singles, "Line: a single run." if counts else ""
    thin = "; thin lines: single runs" if singles else ""
    return means, singles, f"Line: mean over {_count(counts)}; band: lowest to highest{thin}."


def _thin(x: np.ndarray) -> np.ndarray:
    """Places of at most POINTS of the values, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))


def _points(plot: Plot, groups: Groups, keys: Sequence[str]) -> Drawn:
    """The mean at each x, its standard deviation, and every run; of finished runs, if there are any.

    Where each run has an x of its own, such as its seconds, those that agree in all varying keys have one mean.
    """
    means: list[Row] = []
    singles: list[Row] = []
    counts = []
    for series, group in groups:
        for place in grouped(group.counted, by=keys if _is_measured(plot.x) else [plot.x] if plot.x else []):
            runs = [(run, float(y)) for run in place.records if isinstance(y := run.value(plot.y), int | float)]
            xs = [run.value(plot.x) for run, _ in runs]
            if plot.kind == "bars":
                xs = [value_text(x) if plot.x and plot.group != (plot.x,) else series.name for x in xs]
            if not runs or None in xs:
                continue
            singles += [_row(series, run=run.name, x=x, y=y) for x, (run, y) in zip(xs, runs)]
            mean, spread = _mean_and_std([y for _, y in runs])
            x = xs[0] if plot.kind == "bars" else float(np.mean(xs))  # type: ignore[arg-type]  # all are numbers
            means.append(_row(series, x=x, y=mean, low=mean - spread, high=mean + spread, n=len(runs)))
            counts.append(len(runs))
    mark = "Bar" if plot.kind == "bars" else "Large marks"
    says = f"{mark}: mean over {_count(counts)}" if counts else "No run has these values"
    whiskers = "; whiskers: one standard deviation; small marks: single runs" if max(counts, default=0) > 1 else ""
    return Drawn(means, singles, f"{says}{whiskers}.", title(plot.x), title(plot.y))


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _is_measured(name: str) -> bool:
    """Whether every run has a value of its own, so that there is none to average at."""
    return name in MEASURED or "/" in name


def _published(plot: Plot, comparison: Comparison) -> tuple[list[Series], list[Row]]:
    """The paper's points of the same x and y."""
    entries = [entry for entry in comparison.published if (entry.x, entry.y) == (plot.x, plot.y)]
    series = [
        Series(entry.label, PAPER_COLOURS[i % 2], SHAPES[i % len(SHAPES)], PAPER_DASH, hollow=True)
        for i, entry in enumerate(entries)
    ]
    rows = [
        _row(s, x=value_text(x) if plot.kind == "bars" else float(x), y=float(y))
        for s, entry in zip(series, entries)
        for x, y in entry.points
    ]
    return series, rows


def _row(series: Series, **values: Any) -> Row:
    """A row of a data set, its numbers short: seven digits are more than a screen can show."""
    return {"series": series.name} | {k: float(f"{v:.7g}") if isinstance(v, float) else v for k, v in values.items()}


def _count(counts: Sequence[int]) -> str:
    """3 runs, or 1 to 3 runs."""
    low, high = min(counts, default=0), max(counts, default=0)
    return count_text(high, "run") if low == high else f"{low} to {high} runs"


# ---- how it is drawn ----


def _wide(values: Iterable[float]) -> bool:
    """Whether the values are positive and span more decades than a linear axis can show."""
    found = [value for value in values if math.isfinite(value)]
    return bool(found) and min(found) > 0 and max(found) > min(found) * 10**DECADES


def _axis(
    name: str, said: str, values: Sequence[float], *, along: bool, log: bool, ticks: bool = False
) -> dict[str, Any]:
    """The scale and axis of a number: in percent for shares, with its own ticks for the few values of a config key."""
    axis: Row = {"title": said, "grid": not along, "tickCount": 5}
    scale: Row = {"nice": not along, "padding": 12 if ticks else 4 if along else 0}
    if is_share(name):
        axis["format"] = "~%"
    elif max(map(abs, values), default=0) >= 10_000:
        axis["format"] = ".3~s"
    if log:
        top = max(values)
        low = max(min(v for v in values if v > 0), top * 10.0**-DEPTH)
        scale |= {"type": "log"}
        if not along:
            low, top = _rounded(low, top)
            scale |= {"domain": [low, top], "nice": False}
        powers = [10.0**e for e in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(top) + 1e-9) + 1)]
        if len(powers) > 2:  # else Vega's ticks between them are needed
            axis |= {"values": powers[:: math.ceil(len(powers) / 7)]}
        if len(powers) > 4:
            axis |= {"labelExpr": POWER}
    else:
        scale["zero"] = False
    if ticks and len(different := sorted(set(values))) <= 8:
        axis |= {"values": different}
        axis.setdefault("format", "~g")  # Vega would write 0.001 and 0.003 with two digits, both as 0.00
    if "values" in axis:
        axis["tickCount"] = len(axis["values"])  # with fewer, Vega would leave every other out
    return {"type": "quantitative", "scale": scale, "axis": axis}


def _rounded(low: float, top: float) -> tuple[float, float]:
    """A little more than the values: to the next of 1, 2, 5, 10."""
    steps = [
        m * 10.0**e for e in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(top)) + 2) for m in (1, 2, 5)
    ]
    return max(step for step in steps if step <= low), min(step for step in steps if step >= top)


def _line_layers(plot: Plot, drawn: Drawn, series: Sequence[Series], published: Sequence[Row]) -> list[Row]:
    rows, points = [*drawn.means, *drawn.singles, *published], plot.kind == "points"
    xs = [row["x"] for row in rows]
    ys = [y for row in rows for y in (row["y"], row.get("low", row["y"]), row.get("high", row["y"]))]
    log_x = points and bool(xs) and min(xs) > 0 and (plot.x in BY_FACTORS or _wide(xs))
    x = {"field": "x", **_axis(plot.x or "position", drawn.x_title, xs, along=True, log=log_x, ticks=points)}
    y = _axis(plot.y, drawn.y_title, ys, along=False, log=_log_y(plot, ys))
    scales, tips = _scales(series), _tips(plot, drawn)
    stroke, dash, filled = scales["stroke"], scales["strokeDash"], {k: scales[k] for k in ("stroke", "fill", "shape")}

    def layer(data: str, mark: Row, faded: float = 1, /, **encoding: Any) -> Row:
        """A mark over a data set; a click on the legend fades the other groups."""
        opacity = {"condition": {"param": "chosen", "value": faded}, "value": faded / 10}
        return {
            "data": {"name": data},
            "mark": {"clip": True, **mark},
            "encoding": {"x": x, "y": {"field": "y", **y}, "opacity": opacity, **encoding},
        }

    spread = {"y": {"field": "low", **y}, "y2": {"field": "high"}}
    if points:
        behind = [
            layer("means", {"type": "rule", "strokeWidth": 1.2}, stroke=stroke, **spread),
            layer("singles", {"type": "point", "size": 20}, 0.45, tooltip=tips["singles"], **filled),
        ]
    else:
        behind = [
            layer("means", {"type": "area"}, 0.16, fill=scales["fill"], **spread),
            layer("singles", {"type": "line", "strokeWidth": 0.6}, 0.45, stroke=stroke, detail={"field": "run"}),
        ]
    line = layer("means", {"type": "line", "strokeWidth": 1.8}, stroke=stroke, strokeDash=dash)
    mark = layer("means", {"type": "point", "size": 50}, tooltip=tips["means"], **filled)
    paper = layer("published", {"type": "line", "strokeWidth": 1.2}, stroke=stroke, strokeDash=dash)
    hollow = layer("published", {"type": "point", "size": 45}, tooltip=tips["published"], **filled)
    hover = []
    if not points:  # a mark here and there tells lines apart without colour; all others answer the mouse
        mark["transform"] = [{"filter": "datum.marked"}]
        hover = [layer("means", {"type": "point", "size": 120, "filled": True}, 0, tooltip=tips["means"])]
    return [*behind, line, paper, mark, hollow, *hover]


def _bar_layers(plot: Plot, drawn: Drawn, series: Sequence[Series], published: Sequence[Row]) -> list[Row]:
    ys = [row[key] for row in drawn.means for key in ("low", "high")] + [
        row["y"] for row in (*drawn.singles, *published)
    ]
    places = list(dict.fromkeys(row["x"] for row in (*drawn.means, *published)))
    alone = all(row["x"] == row["series"] for row in drawn.means)  # each group at a place of its own needs no legend
    slanted = (
        {"labelAngle": -35, "labelLimit": 160, "labelOverlap": False}
        if sum(map(len, places)) > 45
        else {"labelAngle": 0}
    )
    axis = {"title": drawn.x_title if plot.x else None, **slanted}
    x = {"field": "x", "type": "nominal", "sort": places, "axis": axis}
    y = _axis(plot.y, drawn.y_title, ys, along=False, log=False)
    y["scale"] = {"zero": True}
    scales, tips = _scales(series, legend=not alone or bool(published)), _tips(plot, drawn)
    beside = {} if alone else {"xOffset": {"field": "series", "sort": [s.name for s in series]}}
    filled = {k: scales[k] for k in ("stroke", "fill", "shape")}

    def layer(data: str, mark: Row, **encoding: Any) -> Row:
        return {
            "data": {"name": data},
            "mark": mark,
            "encoding": {"x": x, "y": {"field": "y", **y}, **beside, **encoding},
        }

    bars = layer(
        "means",
        {"type": "bar"},
        stroke=scales["stroke"],
        fill=scales["fill"],
        fillOpacity=scales["tone"],
        tooltip=tips["means"],
    )
    layers = [bars, layer("means", {"type": "rule"}, y={"field": "low", **y}, y2={"field": "high"})]
    layers += [
        layer(
            "singles",
            {"type": "point", "size": 18, "filled": False},
            stroke=scales["stroke"],
            shape=scales["shape"],
            tooltip=tips["singles"],
        ),
        layer("published", {"type": "point", "size": 45}, tooltip=tips["published"], **filled),
    ]
    return layers


def _log_y(plot: Plot, ys: Sequence[float]) -> bool:
    return not plot.y.endswith("accuracy") and _wide(ys)


def _scales(series: Sequence[Series], *, legend: bool = True) -> dict[str, Row]:
    """One legend for colour, fill, shape, dash and tone: they all go by the series."""
    names = [s.name for s in series]
    longest = max((len(name) for name in names), default=0)
    columns = max(1, min(len(names), LETTERS // (longest + 6)))
    shown = {"columns": columns, "labelLimit": WIDTH - 20, "symbolOpacity": 1} if legend and len(names) > 1 else None

    def scale(channel_range: Sequence[Any]) -> Row:
        return {
            "field": "series",
            "type": "nominal",
            "scale": {"domain": names, "range": channel_range},
            "legend": shown,
        }

    dashes = scale([s.dash for s in reversed(series)])
    dashes["scale"]["domain"] = names[::-1]  # in the others' order, Vega-Lite would draw the legend's symbols dashed
    return {
        "stroke": scale([s.colour for s in series]),
        "fill": scale(["transparent" if s.hollow else s.colour for s in series]),
        "shape": scale([s.shape for s in series]),
        "strokeDash": {**dashes, "legend": None},
        "tone": scale([s.tone for s in series]),
    }


def _tips(plot: Plot, drawn: Drawn) -> dict[str, list[Row]]:
    """What the mouse is told: group, place, value, and of a mean its spread and n."""
    form = {"format": ".2%" if is_share(plot.y) else ".4~g"}
    kind = "nominal" if plot.kind == "bars" else "quantitative"
    group = {"field": "series", "type": "nominal", "title": "group"}
    x = {"field": "x", "type": kind, "title": drawn.x_title}
    y = {"field": "y", "type": "quantitative", "title": drawn.y_title, **form}
    spread = [{"field": f, "type": "quantitative", **form} for f in ("low", "high")]
    runs = {"field": "n", "type": "quantitative", "title": "runs"}
    return {
        "means": [group, x, {**y, "title": f"mean {drawn.y_title}"}, *spread, runs],
        "singles": [{"field": "run", "type": "nominal"}, x, y],
        "published": [group, x, y],
    }


def heading(plot: Plot) -> str:
    """What the plot shows, in words: training error by depth."""
    along = plot.x or ("position" if plot.kind == "profile" else "")
    words = f"{title(plot.y)} by {' and '.join(map(title, [along] if along else plot.group or ('run',)))}"
    where = f" ({label(dict(plot.where))})" if plot.where else ""
    return words[0].upper() + words[1:] + where
