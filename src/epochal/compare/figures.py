"""Figures: one Vega-Lite specification for each plot gives its PNG and SVG. The page draws its own, of the runs chosen there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from epochal.compare.figure_data import FigureData, best_groups, figure_data, fitted_data, reference_data
from epochal.compare.fits import fits
from epochal.compare.groups import Group, grouped
from epochal.core.files import slug
from epochal.core.format import cell_width
from epochal.core.metrics import find
from epochal.plots.vega import (
    COLOURS,
    DASHES,
    MAX_SERIES,
    SHAPES,
    Row,
    Series,
    number_axis,
    series_scales,
    spans_decades,
    specification,
)

if TYPE_CHECKING:
    from epochal.compare.comparison import Comparison, Plot

BAR_OPACITIES = (
    0.5,
    0.25,
    0.1,
)  # of neighbours, which tells them apart without colour, and lets whiskers and marks be seen
LOG_KEYS = (
    "parameters",
    "flops",
    "training_flops",
    "optimizer.lr",
    "optimizer.weight_decay",
)  # always on a logarithmic axis
FITTED_DASH = [5, 3]  # of power laws
LONG_NAMES = 45  # characters of all names below bars; with more, they are slanted


def figure(comparison: Comparison, plot: Plot) -> dict[str, Any]:
    """The plot as a Vega-Lite specification with its numbers inside; `description` is its caption.

    Accuracies and errors have their axis in percent. A group's points or lines are means over its runs.

    Args:
        comparison: The runs, the references and the footnote.
        plot: What against what.
    """
    groups = grouped(plot.chosen(comparison.drawn), by=plot.group)
    groups = [group for group in groups if plot.has_values(group.records)]
    shown = best_groups(groups, plot.y)
    note = f"The best {MAX_SERIES} of {len(groups)} groups are drawn." if len(groups) > MAX_SERIES else ""
    ours = styles(shown)
    data = figure_data(plot, list(zip(ours, shown)), comparison.keys)
    paper, references = reference_data(plot, comparison)
    laws = fits(plot, comparison.drawn)
    lines, fitted = fitted_data(laws, list(zip(ours, shown)))
    dashed = "Dashed: " if fitted else ""
    said = [f"{dashed}{law.sentence}" for law in laws]
    caption = " ".join(part for part in (data.caption, *said, note, comparison.footnote) if part)
    build = _bar_layers if plot.kind == "bars" else _line_layers
    datasets = {"means": data.means, "singles": data.singles, "references": references, "fitted": fitted}
    datasets = {name: rows for name, rows in datasets.items() if rows}  # Vega complains of a layer without data
    layers = [
        layer for layer in build(plot, data, [*ours, *lines, *paper], references) if layer["data"]["name"] in datasets
    ]
    return specification(layers, caption, datasets=datasets)


def stem(number: int, plot: Plot) -> str:
    """A figure's file name without its suffix: figure_1_train-error_by_model.depth."""
    return f"figure_{number}_{slug(plot.y)}_by_{slug(plot.x or ('position' if plot.kind == 'profile' else 'group'))}"


def styles(groups: Sequence[Group]) -> list[Series]:
    """Colour follows the first key in which the groups differ, the dash the rest; up to six groups, each has a shape.

    Where that would make two groups look the same, colour, shape and dash count through the groups.
    """
    keys = [key for key in (groups[0].values if groups else ()) if len({str(g.values[key]) for g in groups}) > 1]
    each = list(range(len(groups)))
    first = _numbered(group.values[keys[0]] for group in groups) if len(keys) > 1 else each
    rest = _numbered([group.values[key] for key in keys[1:]] for group in groups) if len(keys) > 1 else each
    if max([*first, *rest], default=0) >= len(DASHES):
        first = rest = each
    shapes = each if len(each) <= len(SHAPES) else rest
    return [
        Series(
            group.label,
            COLOURS[first[i] % len(COLOURS)],
            SHAPES[shapes[i] % len(SHAPES)],
            DASHES[rest[i] % len(DASHES)],
            BAR_OPACITIES[i % len(BAR_OPACITIES)],
        )
        for i, group in enumerate(groups)
    ]


def _numbered(values: Iterable[Any]) -> list[int]:
    """Equal values become equal numbers, counted from 0 as they first appear."""
    seen: dict[str, int] = {}
    return [seen.setdefault(str(value), len(seen)) for value in values]


def _line_layers(plot: Plot, data: FigureData, series: Sequence[Series], references: Sequence[Row]) -> list[Row]:
    """Points with whiskers, or curves with bands, on two numeric axes; references beside them."""
    points, scales = plot.kind == "points", series_scales(series)
    x, y = _axes(plot, data, references)
    bottom = y["scale"].get("domain", [-math.inf])[0]
    below = any(row.get("low", row["y"]) < bottom for row in (*data.means, *data.singles, *references))
    clip = {"clip": True} if below else {}  # only where it is needed: it makes a PNG take three times as long
    stroke, dash, filled = scales["stroke"], scales["strokeDash"], {k: scales[k] for k in ("stroke", "fill", "shape")}

    def layer(source: str, mark: Row, **encoding: Any) -> Row:
        """A mark for each row of a data set; where it is pale, by its stroke or fill, which is drawn faster than the whole."""
        return {
            "data": {"name": source},
            "mark": {**clip, **mark},
            "encoding": {"x": x, "y": {"field": "y", **y}, "opacity": {"value": 1}, **encoding},
        }

    spread = {"y": {"field": "low", **y}, "y2": {"field": "high"}}
    run = {"field": "run"}
    if points:
        behind = [
            layer("means", {"type": "rule", "strokeWidth": 1.2}, stroke=stroke, **spread),
            layer("singles", {"type": "point", "size": 20}, **{**filled, "opacity": {"value": 0.45}}),
        ]
    else:
        behind = [
            layer("means", {"type": "area"}, fill=scales["fill"], fillOpacity={"value": 0.16}, **spread),
            layer(
                "singles",
                {"type": "line", "strokeWidth": 0.6},
                stroke=stroke,
                strokeOpacity={"value": 0.45},
                detail=run,
            ),
        ]
    line = layer("means", {"type": "line", "strokeWidth": 1.8}, stroke=stroke, strokeDash=dash)
    mark = layer("means", {"type": "point", "size": 50}, **filled)
    paper = layer("references", {"type": "line", "strokeWidth": 1.2}, stroke=stroke, strokeDash=dash)
    hollow = layer("references", {"type": "point", "size": 45}, **filled)
    if not points:  # a few marks tell lines apart without colour
        mark["transform"] = [{"filter": "datum.marked"}]
    law = layer(
        "fitted", {"type": "line", "strokeWidth": 1.2 if points else 2, "strokeDash": FITTED_DASH}, stroke=stroke
    )
    if points:
        return [*behind, law, *([] if plot.fit else [line]), paper, mark, hollow]
    return [*behind, line, paper, mark, hollow, law]  # it touches the curves, which would hide it


def _axes(plot: Plot, data: FigureData, references: Sequence[Row]) -> tuple[Row, Row]:
    """The encodings x and, without its field, y."""
    rows, points = [*data.means, *data.singles, *references], plot.kind == "points"
    xs = [row["x"] for row in rows]
    ys = [y for row in rows for y in (row["y"], row.get("low", row["y"]), row.get("high", row["y"]))]
    log_x = bool(xs) and min(xs) > 0 and (plot.x in LOG_KEYS or (points and spans_decades(xs)))
    x_metric, y_metric = find(plot.x), find(plot.y)
    x = number_axis(data.x_title, xs, percent=x_metric.percent, horizontal=True, log=log_x, ticks_at_values=points)
    bounded = y_metric.percent and y_metric.larger_is_better  # what matters are the differences just below 1
    y = number_axis(data.y_title, ys, percent=y_metric.percent, log=not bounded and spans_decades(ys))
    return {"field": "x", **x}, y


def _bar_layers(plot: Plot, data: FigureData, series: Sequence[Series], references: Sequence[Row]) -> list[Row]:
    """Bars from zero on with whiskers, a small mark for each run, and references."""
    ys = [row[key] for row in data.means for key in ("low", "high")]
    ys += [row["y"] for row in (*data.singles, *references)]
    places = list(dict.fromkeys(row["x"] for row in (*data.means, *references)))
    alone = all(row["x"] == row["series"] for row in data.means)  # each group at a place of its own needs no legend
    straight, slanted = {"labelAngle": 0}, {"labelAngle": -35, "labelLimit": 160, "labelOverlap": False}
    labels = slanted if sum(map(cell_width, places)) > LONG_NAMES else straight
    axis = {"title": data.x_title if plot.x else None, **labels}
    x = {"field": "x", "type": "nominal", "sort": places, "axis": axis}
    y = number_axis(data.y_title, ys, percent=find(plot.y).percent)
    y["scale"] = {"zero": True}
    scales = series_scales(series, legend=not alone or bool(references))
    beside = {} if alone else {"xOffset": {"field": "series", "sort": [s.name for s in series]}}

    def layer(source: str, mark: Row, *channels: str, **encoding: Any) -> Row:
        """A mark for each row of a data set, drawn by some of the series' scales."""
        drawn = {channel: scales[channel] for channel in channels}
        places = {"x": x, "y": {"field": "y", **y}, **beside}
        return {"data": {"name": source}, "mark": mark, "encoding": {**places, **drawn, **encoding}}

    single, paper = {"type": "point", "size": 18, "filled": False}, {"type": "point", "size": 45}
    return [
        layer("means", {"type": "bar"}, "stroke", "fill", "fillOpacity"),
        layer("means", {"type": "rule"}, y={"field": "low", **y}, y2={"field": "high"}),
        layer("singles", single, "stroke", "shape"),
        layer("references", paper, "stroke", "fill", "shape"),
    ]
