"""A plot drawn in text, in dots of Braille: 2 x 4 of them a letter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from rich.text import Text

from epochal.compare.comparison import Comparison, Plot
from epochal.compare.groups import Group, grouped, together
from epochal.compare.labels import key_text, label
from epochal.core.format import number_text, short

COLOURS = ("dodger_blue1", "dark_orange", "green3", "orchid", "turquoise2", "gold3")
MARKS = "●▲■◆▼○"
HEIGHT = 9  # lines
NAMES = 30  # letters of the names at the lines' ends, at most
WIDE = 30  # a ratio of the largest to the smallest x from which on points stand on a logarithmic axis
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a letter, by row and column


class Line(NamedTuple):
    """A line through its points, two (n,) arrays."""

    name: str
    x: np.ndarray
    y: np.ndarray


def sketch(comparison: Comparison, plot: Plot, width: int) -> Text | None:
    """The plot in `width` letters, with the best groups if there are many; None if nothing was logged for it."""
    groups = grouped(plot.chosen(comparison.drawn), plot.group)
    if plot.kind == "bars":
        return _bars(
            plot,
            groups
            if plot.group == (plot.x,) or not plot.x
            else grouped(plot.chosen(comparison.drawn), (*plot.group, plot.x)),
            width,
        )
    lines = [line for group in groups if (line := _line(plot, group)) is not None]
    if not lines:
        return None
    shown = lines[: len(COLOURS)]
    names = min(NAMES, max(len(line.name) for line in shown))
    text = _axes(plot, shown, width - names - 3, marks=plot.kind == "points", names=names)
    if len(lines) > len(shown):
        text.append(f"  {len(shown)} of {len(lines)} lines are drawn\n", "dim")
    return text


def _line(plot: Plot, group: Group) -> Line | None:
    name = label(group.values)
    if plot.kind == "curves":
        curve = group.mean_curve(plot.y, plot.x)
        return None if curve is None else Line(name, curve.x, curve.mean)
    if plot.kind == "profile":
        profiles = [profile for record in group.counted if (profile := record.profile(plot.y)) is not None]
        shared = together([(profile.x, profile.y) for profile in profiles])
        return None if shared is None else Line(name, shared[0], shared[1].mean(axis=0))
    found = []
    for point in grouped(group.records, (plot.x,)):
        x, y = point.spread(plot.x), point.spread(plot.y)
        if x is not None and y is not None:
            found.append((x.mean, y.mean))
    return Line(name, *np.array(sorted(found)).T) if found else None


def _axes(plot: Plot, lines: Sequence[Line], width: int, *, marks: bool, names: int) -> Text:
    xs, ys = np.concatenate([line.x for line in lines]), np.concatenate([line.y for line in lines])
    (left, right), (bottom, top) = (xs.min(), xs.max()), (ys.min(), ys.max())
    ticks = (
        {0: number_text(plot.y, top), HEIGHT - 1: number_text(plot.y, bottom)}
        if top > bottom
        else {HEIGHT // 2: number_text(plot.y, top)}
    )
    margin = max(len(tick) for tick in ticks.values())
    columns = max(10, width - margin - 3)
    scale = np.log if marks and left > 0 and right > WIDE * left else np.asarray
    dots = np.zeros((HEIGHT, columns), dtype=int)
    owner = np.full((HEIGHT, columns), -1)
    marked: dict[tuple[int, int], str] = {}
    ends: dict[int, int] = {}
    for number, line in reversed(list(enumerate(lines))):  # the first is drawn last, over the others
        across = (scale(line.x) - scale(left)) / (scale(right) - scale(left) or 1) * (2 * columns - 1)
        down = (
            (top - line.y) / (top - bottom) * (4 * HEIGHT - 1) if top > bottom else np.full(len(line.y), 2.0 * HEIGHT)
        )
        for (x0, x1), (y0, y1) in zip(_pairs(across), _pairs(down)):
            count = int(max(abs(x1 - x0), abs(y1 - y0))) + 2
            for x, y in zip(
                np.linspace(x0, x1, count).round().astype(int), np.linspace(y0, y1, count).round().astype(int)
            ):
                dots[y // 4, x // 2] |= DOTS[y % 4][x % 2]
                owner[y // 4, x // 2] = number
        for x, y in zip(across.round().astype(int), down.round().astype(int)) if marks else ():
            marked[y // 4, x // 2] = MARKS[number]
            owner[y // 4, x // 2] = number
    for number in sorted(range(len(lines)), key=lambda n: -lines[n].y[-1]):
        wanted = int((top - lines[number].y[-1]) / (top - bottom or 1) * (4 * HEIGHT - 1)) // 4
        free = [row for row in range(HEIGHT) if row not in ends]
        ends[min(free, key=lambda row: (abs(row - wanted), row))] = number
    text = Text(f"{key_text(plot.y)}\n", "bold")
    for row in range(HEIGHT):
        text.append(f"{ticks.get(row, ''):>{margin}} ", "dim")
        text.append("┤" if row in ticks else "│", "dim")
        for column in range(columns):
            letter = marked.get((row, column)) or (chr(0x2800 + dots[row, column]) if dots[row, column] else " ")
            text.append(letter, COLOURS[owner[row, column]] if owner[row, column] >= 0 else "")
        if row in ends:
            number = ends[row]
            mark = f"{MARKS[number]} " if marks else ""
            text.append(f" {mark}{_cut(lines[number].name, names)}", COLOURS[number])
        text.append("\n")
    low, high = (short(end) if abs(end) >= 10_000 else f"{end:g}" for end in (left, right))
    middle = key_text(plot.x) if plot.x else "position"
    text.append(f"{'':{margin}} └{'─' * columns}\n", "dim")
    text.append(f"{'':{margin + 2}}{low}{middle:^{max(len(middle), columns - len(low) - len(high))}}{high}\n", "dim")
    return text


def _bars(plot: Plot, groups: Sequence[Group], width: int) -> Text | None:
    found = [(label(group.values), spread.mean) for group in groups if (spread := group.spread(plot.y)) is not None]
    if not found:
        return None
    found = found[:12]
    names, largest = min(NAMES, max(len(name) for name, _ in found)), max(value for _, value in found)
    texts = [number_text(plot.y, value) for _, value in found]
    room = max(10, width - names - max(map(len, texts)) - 4)
    text = Text(f"{key_text(plot.y)}\n", "bold")
    for (name, value), shown in zip(found, texts):
        length = 8 * room * max(value, 0.0) / largest if largest > 0 else 0.0
        whole, rest = divmod(round(length), 8)
        text.append(f"{_cut(name, names):>{names}} ")
        text.append("█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), COLOURS[0])
        text.append(f" {shown}\n")
    return text


def _pairs(values: np.ndarray) -> list[tuple[float, float]]:
    """Neighbours; a single value with itself."""
    return list(pairwise(values)) if len(values) > 1 else [(values[0], values[0])]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
