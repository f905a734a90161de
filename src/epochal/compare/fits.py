"""The power laws of a plot: each group's in x, or that of the sizes that are the best for their compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from epochal.compare.comparison import Plot
from epochal.compare.groups import Group, grouped
from epochal.compare.labels import title
from epochal.compare.power_law import LEAST, PowerLaw, best_sizes, power_law
from epochal.compare.records import Record

BEST = "the best for their compute"
POINTS = 20  # of the line of a law, which is bent where an axis is linear


class Fit(NamedTuple):
    """A law, or why there is none.

    Attributes:
        group: Whose means it goes through; None: those of several groups.
        law: None where there are too few points.
        ends: The smallest and the largest x of its points.
        sentence: What is said about it.
        name: In the legend, where it is of no single group.
    """

    group: Group | None
    law: PowerLaw | None
    ends: tuple[float, float]
    sentence: str
    name: str = BEST

    @property
    def line(self) -> list[tuple[float, float]]:
        """Points (x, y) of the law between its ends; none where there is no law."""
        if self.law is None:
            return []
        return [(float(x), self.law(float(x))) for x in np.geomspace(*self.ends, POINTS)]


def fits(plot: Plot, records: Sequence[Record]) -> list[Fit]:
    """The laws of a plot; none if it asks for none.

    Of points each group has one, through its means at each x. Of learning curves there is one, through the sizes that are
    best at some x (Hoffmann et al.: Training Compute-Optimal Large Language Models, 2022, arXiv 2203.15556, approach 1);
    their size is what they are grouped by.
    """
    if not plot.fit:
        return []
    groups = grouped(plot.chosen(records), by=plot.group)
    if plot.kind == "points":
        return [fit for group in groups if (fit := _of_points(plot, group, len(groups) > 1)) is not None]
    return [_of_best(plot, groups)] if plot.kind == "curves" and len(plot.group) == 1 else []


def _of_points(plot: Plot, group: Group, several: bool) -> Fit | None:
    means = [(point.spread(plot.x), point.spread(plot.y)) for point in grouped(group.counted, by=[plot.x])]
    points = [(x.mean, y.mean) for x, y in means if x is not None and y is not None]
    law = power_law([x for x, _ in points], [y for _, y in points])
    if law is None:
        return None
    of = f" of {group.label}" if several else ""
    ends = points[0][0], points[-1][0]
    return Fit(group, law, ends, f"Power law{of}, {title(plot.y)} by {title(plot.x)}: {law}.")


def _of_best(plot: Plot, groups: Sequence[Group]) -> Fit:
    """Through the best sizes, with the law of these sizes in x."""
    (key,) = plot.group
    curves = {}
    for group in groups:
        size, curve = group.values[key], group.mean_curve(plot.y, plot.x)
        if curve is not None and isinstance(size, int | float):
            known = curve.x > 0
            curves[float(size)] = (curve.x[known], curve.mean[known])
    best = best_sizes(curves)
    sizes, at, values = ([point[i] for point in best] for i in range(3))
    law, growth = power_law(at, values), power_law(at, sizes)
    if law is None or growth is None:
        found = f"{len(best)} of {len(curves)} sizes are"
        return Fit(None, None, (0, 0), f"No law of {BEST}: {found} the best for some, and {LEAST} are needed.")
    by = title(plot.x)
    sentence = f"Power law of {BEST}, {title(plot.y)} by {by}: {law}; {title(key)} by {by}: {growth}."
    return Fit(None, law, (min(at), max(at)), sentence)
