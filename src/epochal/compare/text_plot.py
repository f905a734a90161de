"""The main plot of a comparison in text, for the terminal."""

from __future__ import annotations

import numpy as np
from rich.text import Text

from epochal.compare.comparison import Comparison, Plot
from epochal.compare.figure_data import best_groups
from epochal.compare.groups import Group, grouped, together
from epochal.compare.labels import key_text, label
from epochal.core.format import number_text, tick_text
from epochal.plots.braille import COLOURS, MAX_BARS, Bar, Line, bar_plot, line_plot


def text_plot(comparison: Comparison, plot: Plot, width: int) -> Text | None:
    """The plot, `width` characters wide, with the best groups if there are many; None if nothing was logged for it."""
    records = plot.chosen(comparison.drawn)
    if plot.kind == "bars":
        within = plot.x and plot.group != (plot.x,)  # several bars for each group
        return _bars(plot, grouped(records, (*plot.group, plot.x) if within else plot.group), width)
    lines = {group: line for group in grouped(records, plot.group) if (line := _line(plot, group)) is not None}
    if not lines:
        return None
    shown = [lines[group] for group in best_groups(list(lines), plot.y, len(COLOURS))]
    xs, ys = (np.concatenate(values) for values in zip(*((line.x, line.y) for line in shown)))
    text = line_plot(
        shown,
        width,
        title=key_text(plot.y),
        x_title=key_text(plot.x) if plot.x else "position",
        x_ends=(tick_text(plot.x, xs.min()), tick_text(plot.x, xs.max())),
        y_ends=(number_text(plot.y, ys.min()), number_text(plot.y, ys.max())),
        marks=plot.kind == "points",
    )
    if len(lines) > len(shown):
        text.append(f"  the best {len(shown)} of {len(lines)} lines are drawn\n", "dim")
    return text


def _line(plot: Plot, group: Group) -> Line | None:
    """The group's mean curve, mean profile, or means by x; None if it has no values."""
    name = label(group.values)
    if plot.kind == "curves":
        curve = group.mean_curve(plot.y, plot.x)
        return None if curve is None else Line(name, curve.x, curve.mean)
    if plot.kind == "profile":
        profiles = [profile for record in group.counted if (profile := record.profile(plot.y)) is not None]
        shared = together([(profile.x, profile.y) for profile in profiles])
        return None if shared is None else Line(name, shared[0], shared[1].mean(axis=0))
    points = []
    for point in grouped(group.records, (plot.x,)):
        x, y = point.spread(plot.x), point.spread(plot.y)
        if x is not None and y is not None:
            points.append((x.mean, y.mean))
    return Line(name, *np.array(sorted(points)).T) if points else None


def _bars(plot: Plot, groups: list[Group], width: int) -> Text | None:
    spreads = {group: spread for group in groups if (spread := group.spread(plot.y)) is not None}
    best = best_groups(list(spreads), plot.y, MAX_BARS)
    bars = [Bar(label(g.values), spreads[g].mean, number_text(plot.y, spreads[g].mean)) for g in best]
    if not bars:
        return None
    text = bar_plot(bars, width, title=key_text(plot.y))
    if len(bars) < len(spreads):
        text.append(f"  the best {len(bars)} of {len(spreads)} bars are drawn\n", "dim")
    return text
