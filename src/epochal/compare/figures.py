"""Figures: one Vega-Lite specification a plot gives its PNG and SVG for a paper and the interactive plot of the page."""

from __future__ import annotations

import math
import os
import secrets
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epochal.compare.groups import Group, grouped, key_text
from epochal.runs import slug

if TYPE_CHECKING:
    from epochal.compare.definition import Comparison, Plot
    from epochal.compare.reading import Record

Row = dict[str, Any]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#808080")  # Okabe-Ito; grey for black
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2), (12, 3))
PAPER_DASH = (3, 3)  # of published points
TONES = (0.85, 0.4, 0.1)  # opacity of bars side by side, which tells them apart without colour

WIDTH, HEIGHT = (
    340,
    220,
)  # pixels without axes: with them a column of a paper, 9 cm, at 10 pixels a millimetre and SCALE 2
SCALE = 3
POINTS = 200  # of a curve: more than a column's width can show
LINES = 60  # curves of single runs in one plot; beyond, their bands say it better
SERIES = 24  # groups in one plot
ZOOM = "wheel![event.ctrlKey || event.shiftKey]"  # the wheel alone scrolls the page
MARKS = 6  # on a curve
DECADES = 1.5  # values that span more get a logarithmic axis
DEPTH = 12  # decades of a logarithmic axis: a vanished gradient leaves below
MEASURED = ("seconds", "examples_per_second", "peak_memory_mb")
PARTS = {"train": "training", "val": "validation", "test": "test"}

CONFIG: dict[str, Any] = {
    "font": "Helvetica, Arial, sans-serif",
    "background": "white",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 10,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "gridColor": "#e4e4e4",
        "domainColor": "#888888",
        "tickColor": "#888888",
        "labelColor": "#333333",
        "titleColor": "#222222",
        "labelOverlap": "greedy",
        "titlePadding": 6,
    },
    "legend": {
        "orient": "bottom",
        "title": None,
        "labelFontSize": 10,
        "labelColor": "#222222",
        "symbolSize": 70,
        "symbolStrokeWidth": 1.6,
        "rowPadding": 3,
        "columnPadding": 14,
        "symbolLimit": SERIES,
    },
    "title": {
        "orient": "bottom",
        "anchor": "start",
        "frame": "bounds",
        "fontSize": 8.5,
        "fontWeight": "normal",
        "color": "#666666",
        "lineHeight": 11,
        "offset": 10,
    },
}


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

    means: list[Row]  # series, x, y, low, high, n
    singles: list[Row]  # series, run, x, y
    says: list[str]


def figure(plot: Plot, comparison: Comparison) -> dict[str, Any]:
    """The plot as a Vega-Lite specification that holds its numbers; `description` is its caption.

    Errors and accuracies are shares, with their axis in percent. A group's points or lines are means over its runs.

    Args:
        plot: What against what.
        comparison: Its runs, its published points and its footnote.
    """
    groups = grouped(comparison.records, by=plot.group)
    shown, notes = groups[:SERIES], []
    if len(groups) > SERIES:
        notes.append(f"The first {SERIES} of {len(groups)} groups are drawn.")
    ours = styles(shown)
    measure = {"curves": _curves, "points": _points, "bars": _bars, "profile": _profiles}[plot.kind]
    drawn = measure(plot, list(zip(ours, shown)))
    paper, published = _published(plot, comparison)
    caption = " ".join([*drawn.says, *notes, comparison.footnote(plot)]).strip()
    build = _bar_layers if plot.kind == "bars" else _line_layers
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": caption,
        "title": {"text": textwrap.wrap(caption, 92) or ""},
        "width": WIDTH,
        "height": HEIGHT,
        "datasets": {"means": drawn.means, "singles": drawn.singles, "published": published},
        **build(plot, drawn, [*ours, *paper], published),
        "config": CONFIG,
    }


def save(spec: Mapping[str, Any], folder: Path, stem: str) -> list[Path]:
    """Writes `<stem>.png`, three pixels to each of the specification's, and `<stem>.svg`; each whole or not at all."""
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    images = {
        "png": vl_convert.vegalite_to_png(dict(spec), scale=SCALE),
        "svg": vl_convert.vegalite_to_svg(dict(spec)).encode(),
    }
    for suffix, content in images.items():
        write_bytes(folder / f"{stem}.{suffix}", content)
    return [folder / f"{stem}.{suffix}" for suffix in images]


def write_bytes(path: Path, content: bytes) -> None:
    """The whole file or none of it."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def stem(number: int, plot: Plot) -> str:
    """A figure's file name without its suffix: figure_1_train-error_by_model.depth."""
    return f"figure_{number}_{slug(plot.y)}_by_{slug(plot.x or 'position')}"


def heading(plot: Plot) -> str:
    """What the plot shows, in words: training error by depth."""
    words = f"{title(plot.y)} by {title(plot.x or 'position')}"
    return words[0].upper() + words[1:]


def title(name: str) -> str:
    """A metric or config key in a reader's words: training error, depth, learning rate."""
    part, _, rest = name.partition("/")
    if rest:
        return f"{PARTS.get(part, part)} {rest.replace('_', ' ')}"
    return {"flops": "FLOPs of one example", "peak_memory_mb": "peak memory (MB)"}.get(name, key_text(name))


def styles(groups: Sequence[Group]) -> list[Series]:
    """Colour and shape follow the first key in which the groups differ, the dash follows the rest.

    Where that would run out of shapes or dashes, all three count through the groups.
    """
    keys = [key for key in (groups[0].values if groups else ()) if len({str(g.values[key]) for g in groups}) > 1]
    first = _numbers(str(group.values[keys[0]]) if keys else "" for group in groups)
    rest = _numbers(str([group.values[key] for key in keys[1:]]) for group in groups)
    if len(keys) < 2 or max(first) >= len(SHAPES) or max(rest) >= len(DASHES):
        first = rest = list(range(len(groups)))
    return [
        Series(
            group.label,
            COLOURS[i % len(COLOURS)],
            SHAPES[i % len(SHAPES)],
            DASHES[j % len(DASHES)],
            TONES[n % len(TONES)],
        )
        for n, (group, i, j) in enumerate(zip(groups, first, rest))
    ]


def _numbers(values: Iterable[str]) -> list[int]:
    """Equal values become equal numbers, counted from 0 as they first appear."""
    seen: dict[str, int] = {}
    return [seen.setdefault(value, len(seen)) for value in values]


# ---- what is drawn ----


def _curves(plot: Plot, groups: Sequence[tuple[Series, Group]]) -> Drawn:
    assert plot.x is not None
    found = [(series, record, record.curve(plot.y, plot.x)) for series, group in groups for record in group.records]
    curves = [(series, record, *curve) for series, record, curve in found if curve is not None and len(curve[0])]
    return _banded(curves)


def _profiles(plot: Plot, groups: Sequence[tuple[Series, Group]]) -> Drawn:
    found = [(series, record, record.profile(plot.y)) for series, group in groups for record in group.records]
    profiles = [(series, record, p.x, p.y) for series, record, p in found if p is not None]
    return _banded(profiles)


def _banded(curves: list[tuple[Series, Record, np.ndarray, np.ndarray]]) -> Drawn:
    """A mean line and a band for each series, and the single runs where they are few.

    The mean goes over finished runs, if there are any, and as far as all of them go: it never jumps where one ends.
    """
    means: list[Row] = []
    singles: list[Row] = []
    counts = []
    for series in dict.fromkeys(series for series, *_ in curves):
        mine = [(record, x, y) for s, record, x, y in curves if s is series]
        whole = [(x, y) for record, x, y in mine if record.shown_status == "finished"] or [(x, y) for _, x, y in mine]
        grid, values = _together(whole)
        counts.append(len(whole))
        for x, column in zip(grid, values.T):
            if (present := column[np.isfinite(column)]).size:
                low, high = float(present.min()), float(present.max())
                means.append(_row(series, x=x, y=present.mean(), low=low, high=high, n=len(present)))
        if len(curves) <= LINES and len(mine) > 1:
            for record, x, y in mine:
                at = _thin(x)
                singles += [_row(series, run=record.name, x=a, y=b) for a, b in zip(x[at], y[at]) if math.isfinite(b)]
    says = [f"Line: mean over {_count(counts)}."]
    if max(counts, default=0) > 1:
        says = [f"Line: mean over {_count(counts)}; band: lowest to highest{'; thin: single runs' if singles else ''}."]
    return Drawn(means, singles, says if counts else [])


def _together(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Curves on one grid: x (P,) and values (N, P), as far as all go; straight lines join a curve's points."""
    if len(curves) == 1 or all(np.array_equal(x, curves[0][0]) for x, _ in curves):
        at = _thin(curves[0][0])
        return curves[0][0][at], np.stack([y[at] for _, y in curves])
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    points = np.unique(np.concatenate([x for x, _ in curves]))
    grid = points[(points >= start) & (points <= end)]
    grid = grid[_thin(grid)]
    return grid, np.stack([np.interp(grid, x, y) for x, y in curves])


def _thin(x: np.ndarray) -> np.ndarray:
    """Places of at most POINTS of the values, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int)) if len(x) else np.arange(0)


def _points(plot: Plot, groups: Sequence[tuple[Series, Group]]) -> Drawn:
    """The mean of the finished runs at each x, its standard deviation, and every run."""
    assert plot.x is not None
    means, singles, counts = [], [], []
    for series, group in groups:
        at: dict[Any, list[float]] = {}
        for record in group.records:
            x, y = record.value(plot.x), record.value(plot.y)
            if record.shown_status != "finished" or x is None or not _number(y):
                continue
            if plot.kind == "bars":
                x = str(x)
            elif not _number(x):
                continue
            at.setdefault(x, []).append(float(y))  # type: ignore[arg-type]
            singles.append(_row(series, run=record.name, x=x, y=y))
        for x, ys in at.items() if not _is_measured(plot.x) else ():
            mean, spread = float(np.mean(ys)), float(np.std(ys, ddof=1)) if len(ys) > 1 else 0.0
            counts.append(len(ys))
            means.append(_row(series, x=x, y=mean, low=mean - spread, high=mean + spread, n=len(ys)))
    means.sort(key=lambda row: row["x"]) if plot.kind == "points" else None
    what = "Bar" if plot.kind == "bars" else "Line"
    says = (
        [f"{what}: mean over {_count(counts)}{'; whiskers: one standard deviation' if max(counts) > 1 else ''}."]
        if counts
        else []
    )
    return Drawn(means, singles, says)


_bars = _points


def _is_measured(name: str) -> bool:
    """Whether every run has a value of its own, so that there is none to average at."""
    return name in MEASURED or "/" in name


def _published(plot: Plot, comparison: Comparison) -> tuple[list[Series], list[Row]]:
    """The paper's points of the same x and y."""
    entries = [
        entry
        for entry in (comparison.claim or {}).get("published") or ()
        if (entry["x"], entry["y"]) == (plot.x, plot.y)
    ]
    series = [
        Series(str(entry["label"]), ("#555555", "#8a8a8a")[i % 2], SHAPES[i % len(SHAPES)], PAPER_DASH, hollow=True)
        for i, entry in enumerate(entries)
    ]
    rows = [
        {"series": s.name, "x": str(x) if plot.kind == "bars" else x, "y": y}
        for s, entry in zip(series, entries)
        for x, y in entry["points"]
    ]
    return series, rows


def _row(series: Series, **values: Any) -> Row:
    """A row of a data set, its numbers short: seven digits are more than a screen can show."""
    return {"series": series.name} | {
        k: float(f"{v:.7g}") if isinstance(v, float | np.floating) else v for k, v in values.items()
    }


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(counts: Sequence[int]) -> str:
    """3 seeds, or 1 to 3 seeds."""
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{high} run{'s' * (high != 1)}" if low == high else f"{low} to {high} runs"


# ---- how it is drawn ----


def is_share(name: str) -> bool:
    """Whether its axis is in percent."""
    return name.rpartition("/")[2] in ("error", "accuracy")


def _wide(values: Iterable[float]) -> bool:
    """Whether the values are positive and span more decades than a linear axis can show."""
    found = [value for value in values if math.isfinite(value)]
    return bool(found) and min(found) > 0 and max(found) > min(found) * 10**DECADES


def _axis(name: str, values: Sequence[float], *, along: bool, log: bool, ticks: bool = False) -> dict[str, Any]:
    """The scale and axis of a number: in percent for shares, with its own ticks for the few values of a config key."""
    share = is_share(name)
    axis: dict[str, Any] = {"title": title(name), "grid": not along, "tickCount": 5}
    axis["format"] = "~%" if share else "~s" if max((abs(v) for v in values), default=0) >= 10_000 else "~g"
    scale: dict[str, Any] = {"zero": False, "nice": not along}
    if log:
        top = max(values)
        low = max(min(v for v in values if v > 0), top * 10.0**-DEPTH)
        scale |= {"type": "log", "domain": _round_decades(low, top) if not along else [low, top]}
        if math.log10(top / low) > 4:
            axis["format"] = ".0e"
    if ticks and len(different := sorted(set(values))) <= 8:
        axis |= {"values": different}
    if along:
        scale["padding"] = 12 if ticks else 0
    return {"type": "quantitative", "scale": scale, "axis": axis}


def _round_decades(low: float, top: float) -> list[float]:
    """A little more than the values: to the next of 1, 2, 5, 10."""
    steps = [
        m * 10.0**e for e in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(top)) + 2) for m in (1, 2, 5)
    ]
    return [max(s for s in steps if s <= low), min(s for s in steps if s >= top)]


def _line_layers(plot: Plot, drawn: Drawn, series: Sequence[Series], published: Sequence[Row]) -> dict[str, Any]:
    rows, points = [*drawn.means, *drawn.singles, *published], plot.kind == "points"
    xs = [row["x"] for row in rows]
    ys = [y for row in rows for y in (row["y"], row.get("low", row["y"]), row.get("high", row["y"]))]
    log_x = points and bool(xs) and min(xs) > 0 and (plot.x in ("parameters", "flops") or _wide(xs))
    x = {"field": "x", **_axis(plot.x or "position", xs, along=True, log=log_x, ticks=points)}
    y = _axis(plot.y, ys, along=False, log=_log_y(plot, ys))
    scales, tips = _scales(series), _tips(plot)
    stroke, dash, filled = scales["stroke"], scales["strokeDash"], {k: scales[k] for k in ("stroke", "fill", "shape")}

    def layer(data: str, mark: str, *, faded: float = 1, style: Row | None = None, **encoding: Any) -> Row:
        """A mark over a data set; a click on the legend hides the other groups."""
        opacity = {"condition": {"param": "chosen", "value": faded}, "value": faded / 10}
        return {
            "data": {"name": data},
            "mark": {"type": mark, "clip": True, **(style or {})},
            "encoding": {"x": x, "y": {"field": "y", **y}, "opacity": opacity, **encoding},
        }

    spread = {"y": {"field": "low", **y}, "y2": {"field": "high"}}
    run = {"field": "run"}
    if points:
        behind = [
            layer("means", "rule", style={"strokeWidth": 1.2}, stroke=stroke, **spread),
            layer("singles", "point", faded=0.45, style={"size": 20}, tooltip=tips["singles"], **filled),
        ]
    else:
        band = {**scales["stroke"], "legend": None}
        behind = [
            layer("means", "area", faded=0.16, fill=band, **spread),
            layer(
                "singles", "line", faded=0.45, style={"strokeWidth": 0.6}, stroke=stroke, strokeDash=dash, detail=run
            ),
        ]
    line = layer("means", "line", style={"strokeWidth": 1.8}, stroke=stroke, strokeDash=dash)
    line["params"] = [
        {"name": "chosen", "select": {"type": "point", "fields": ["series"]}, "bind": "legend"},
        {"name": "zoom", "select": {"type": "interval", "zoom": ZOOM}, "bind": "scales"},
    ]
    mark = layer("means", "point", style={"size": 50}, tooltip=tips["means"], **filled)
    paper = layer("published", "line", style={"strokeWidth": 1.2}, stroke=stroke, strokeDash=dash)
    hollow = layer("published", "point", style={"size": 45}, tooltip=tips["published"], **filled)
    hover = []
    if not points:  # a mark here and there tells lines apart without colour; all others answer the mouse
        mark["transform"] = [{"filter": "datum.marked"}]
        hover = [layer("means", "point", faded=0, style={"size": 120}, tooltip=tips["means"])]
    return {"layer": [*behind, line, paper, mark, hollow, *hover]}


def _bar_layers(plot: Plot, drawn: Drawn, series: Sequence[Series], published: Sequence[Row]) -> dict[str, Any]:
    assert plot.x is not None
    ys = [y for row in drawn.means for y in (0.0, row["high"])] + [row["y"] for row in (*drawn.singles, *published)]
    places = list(dict.fromkeys(row["x"] for row in (*drawn.means, *published)))
    x = {
        "field": "x",
        "type": "nominal",
        "sort": places,
        "axis": {"title": title(plot.x), "labelAngle": 0, "labelLimit": 90},
    }
    y = _axis(plot.y, ys, along=False, log=False)
    y["scale"] = {"zero": True}
    scales, tips = _scales(series), _tips(plot)
    beside = {"xOffset": {"field": "series", "sort": [s.name for s in series]}} if len(series) > 1 else {}
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
    return {"layer": layers}


def _log_y(plot: Plot, ys: Sequence[float]) -> bool:
    return not plot.y.endswith("accuracy") and _wide(y for y in ys if y > 0 or plot.kind != "profile")


def _scales(series: Sequence[Series]) -> dict[str, Row]:
    """One legend for colour, fill, shape, dash and tone: they all go by the series."""
    names = [s.name for s in series]
    longest = max((len(name) for name in names), default=0)
    legend = (
        {"columns": max(1, min(len(names), 62 // (longest + 6))), "labelLimit": WIDTH - 20} if len(names) > 1 else None
    )

    def scale(channel_range: Sequence[Any]) -> Row:
        return {
            "field": "series",
            "type": "nominal",
            "scale": {"domain": names, "range": channel_range},
            "legend": legend,
        }

    return {
        "stroke": scale([s.colour for s in series]),
        "fill": scale(["transparent" if s.hollow else s.colour for s in series]),
        "shape": scale([s.shape for s in series]),
        "strokeDash": scale([s.dash for s in series]),
        "tone": scale([s.tone for s in series]),
    }


def _tips(plot: Plot) -> dict[str, list[Row]]:
    """What the mouse is told: group, place, value, and of a mean its spread and n."""
    form = {"format": ".2%" if is_share(plot.y) else ".4~g"}
    kind = "nominal" if plot.kind == "bars" else "quantitative"
    group = {"field": "series", "type": "nominal", "title": "group"}
    x = {"field": "x", "type": kind, "title": title(plot.x or "position")}
    y = {"field": "y", "type": "quantitative", "title": title(plot.y), **form}
    spread = [{"field": f, "type": "quantitative", **form} for f in ("low", "high")]
    runs = {"field": "n", "type": "quantitative", "title": "runs"}
    return {
        "means": [group, x, {**y, "title": f"mean {title(plot.y)}"}, *spread, runs],
        "singles": [{"field": "run", "type": "nominal"}, x, y],
        "published": [group, x, y],
    }
