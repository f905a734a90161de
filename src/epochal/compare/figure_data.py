"""The numbers of a figure: means, spreads and single runs, as the rows of Vega-Lite's data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from epochal.compare.groups import Group, grouped, together
from epochal.compare.labels import title, value_text
from epochal.core.format import count_text
from epochal.core.metrics import MEASURED_COSTS, find
from epochal.plots.vega import MAX_DECADES, MAX_SERIES, SHAPES, Row, Series, spans_decades

if TYPE_CHECKING:
    from epochal.compare.comparison import Comparison, Plot
    from epochal.compare.fits import Fit
    from epochal.compare.records import Record

Groups = Sequence[tuple[Series, Group]]

PAPER_COLOURS, PAPER_DASH = ("#6a6a6a", "#9a9a9a"), (3, 3)  # of references
MAX_POINTS = 200  # of a curve: more than a column's width can show
MAX_LINES = 60  # curves of single runs in one plot; with more, only their bands are drawn
MARKS = 6  # on a curve


@dataclass
class FigureData:
    """The numbers of one plot.

    Attributes:
        means: Rows with series, x, y, low, high and n; of lines also whether a mark stands there.
        singles: Rows with series, run, x and y.
        caption: What the marks mean.
        x_title, y_title: Of the axes.
    """

    means: list[Row]
    singles: list[Row]
    caption: str
    x_title: str
    y_title: str


def figure_data(plot: Plot, groups: Groups, keys: Sequence[str]) -> FigureData:
    """The numbers of our own runs.

    Args:
        plot: What against what.
        groups: The runs by series.
        keys: The config keys in which runs differ.
    """
    if plot.kind == "curves":
        return _curves(plot, groups)
    return _profiles(plot, groups) if plot.kind == "profile" else _points(plot, groups, keys)


def best_groups(groups: Sequence[Group], y: str, most: int = MAX_SERIES) -> list[Group]:
    """The best groups by their mean y, at most so many, in their own order."""
    if len(groups) <= most:
        return list(groups)
    sign = -1 if find(y).larger_is_better else 1
    spreads = [group.spread(y) for group in groups]
    ranks = [math.inf if spread is None else sign * spread.mean for spread in spreads]
    best = sorted(range(len(groups)), key=ranks.__getitem__)[:most]
    return [groups[number] for number in sorted(best)]


def reference_data(plot: Plot, comparison: Comparison) -> tuple[list[Series], list[Row]]:
    """The references that are drawn in a plot."""
    entries = [entry for entry in comparison.references if entry.fits(plot)]
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


def fitted_data(fits: Sequence[Fit], groups: Groups) -> tuple[list[Series], list[Row]]:
    """The lines of power laws, each in the colour of its group; one that is of none is a series of its own."""
    series, rows = [], []
    for fit in fits:
        own = next((s for s, group in groups if fit.group is not None and group.values == fit.group.values), None)
        if fit.law is None or (own is None and fit.group is not None):
            continue
        if own is None:
            own = Series(fit.name, "#000000", "stroke", PAPER_DASH, hollow=True)  # in the legend a line
            series.append(own)
        rows += [_row(own, x=x, y=y) for x, y in fit.line]
    return series, rows


def _curves(plot: Plot, groups: Groups) -> FigureData:
    logged = [(series, record, record.curve(plot.y, plot.x)) for series, group in groups for record in group.records]
    curves = [(series, record, *curve) for series, record, curve in logged if curve is not None]
    return FigureData(*_mean_curves(curves), title(plot.x), title(plot.y))


def _profiles(plot: Plot, groups: Groups) -> FigureData:
    """As curves; on a logarithmic axis zeros, such as vanished gradients, are replaced by a value below its lower end."""
    logged = [(series, record, record.profile(plot.y)) for series, group in groups for record in group.records]
    profiles = [(series, record, profile) for series, record, profile in logged if profile is not None]
    labels = profiles[0][2][:2] if profiles else ("position", title(plot.y))
    values = np.concatenate([profile.y for *_, profile in profiles]) if profiles else np.zeros(0)
    least, note = -math.inf, ""
    if (values >= 0).all() and spans_decades(values[values > 0]):
        least = values.max() * 10.0 ** -(MAX_DECADES + 3)
        if values.min() < values.max() * 10.0**-MAX_DECADES:
            note = f" Values below 1e-{MAX_DECADES} of the largest are not shown."
    curves = [(series, record, p.x, np.maximum(p.y, least)) for series, record, p in profiles]
    means, singles, caption = _mean_curves(curves)
    return FigureData(means, singles, caption + note, *labels)


def _mean_curves(
    curves: Sequence[tuple[Series, Record, np.ndarray, np.ndarray]],
) -> tuple[list[Row], list[Row], str]:
    """A mean line and a band for each series, the single runs if they are few, and the caption.

    The mean is over the finished runs, if there are any, and ends with the shortest of them: it never jumps.
    """
    means: list[Row] = []
    singles: list[Row] = []
    counts = []
    for number, series in enumerate(dict.fromkeys(series for series, *_ in curves)):
        own = [(record, x, y) for s, record, x, y in curves if s is series]
        among = Group({}, tuple(record for record, *_ in own)).counted
        counted = [(x, y) for record, x, y in own if record in among]
        counts.append(len(counted))
        if (shared := together(counted)) is None:
            continue
        grid, values = (part[..., _thinned(shared[0])] for part in shared)
        marks = _marked(len(grid), number)
        means += [
            _row(series, x=x, y=ys.mean(), low=ys.min(), high=ys.max(), n=len(ys), marked=i in marks)
            for i, (x, ys) in enumerate(zip(grid, values.T))
        ]
        if len(curves) <= MAX_LINES and len(own) > 1:
            singles += [_row(series, run=record.name, x=x[i], y=y[i]) for record, x, y in own for i in _thinned(x)]
    if max(counts, default=0) < 2:
        return means, singles, "Line: a single run." if counts else ""
    thin = "; thin lines: single runs" if singles else ""
    return means, singles, f"Line: mean over {_run_count(counts)}; band: lowest to highest{thin}."


def _marked(points: int, series: int) -> set[int]:
    """The points of a curve that have a mark: MARKS of them, shifted by one for each series so that they rarely meet."""
    places = np.linspace(0.5, MARKS - 0.5, MARKS) / MARKS * points + series
    return set(places.astype(int) % max(points, 1))


def _thinned(x: np.ndarray) -> np.ndarray:
    """Indices of at most MAX_POINTS of the values, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().astype(int))


def _points(plot: Plot, groups: Groups, keys: Sequence[str]) -> FigureData:
    """The mean at each x, its standard deviation, and every run; of the finished runs, if there are any.

    Where each run has an x of its own, such as its seconds, runs that agree in all varying keys have one mean.
    """
    means: list[Row] = []
    singles: list[Row] = []
    counts = []
    at_one_x = keys if _is_measured(plot.x) else [plot.x] if plot.x else []
    for series, group in groups:
        for point in grouped(group.counted, by=at_one_x):
            runs = [(run, float(y)) for run in point.records if isinstance(y := run.value(plot.y), int | float)]
            xs: list[Any] = [run.value(plot.x) for run, _ in runs]
            if plot.kind == "bars":
                xs = [value_text(x) if plot.x and plot.group != (plot.x,) else series.name for x in xs]
            if not runs or None in xs:
                continue
            singles += [_row(series, run=run.name, x=x, y=y) for x, (run, y) in zip(xs, runs)]
            mean, std = _mean_and_std([y for _, y in runs])
            x = xs[0] if plot.kind == "bars" else float(np.mean(xs))
            means.append(_row(series, x=x, y=mean, low=mean - std, high=mean + std, n=len(runs)))
            counts.append(len(runs))
    mark = "Bar" if plot.kind == "bars" else "Large marks"
    caption = f"{mark}: mean over {_run_count(counts)}" if counts else "No run has these values"
    whiskers = "; whiskers: one standard deviation; small marks: single runs" if max(counts, default=0) > 1 else ""
    return FigureData(means, singles, f"{caption}{whiskers}.", title(plot.x), title(plot.y))


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _is_measured(name: str) -> bool:
    """Whether every run has a value of its own, so that no two share one."""
    return name in MEASURED_COSTS or "/" in name


def _row(series: Series, **values: Any) -> Row:
    """A row of a data set, its numbers short: seven digits are more than a screen can show."""
    return {"series": series.name} | {k: float(f"{v:.7g}") if isinstance(v, float) else v for k, v in values.items()}


def _run_count(counts: Sequence[int]) -> str:
    """3 runs, or 1 to 3 runs."""
    low, high = min(counts, default=0), max(counts, default=0)
    return count_text(high, "run") if low == high else f"{low} to {high} runs"
