"""Plots in text: lines in Braille characters, 2 x 4 dots each, and horizontal bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from rich.text import Text

from epochal.core.format import cell_width, fitted

COLOURS = ("dodger_blue1", "dark_orange", "green3", "orchid", "turquoise2", "gold3")
MARKS = "●▲■◆▼○"
HEIGHT = 9  # lines of text
NAME_WIDTH = 30  # characters of a name, at most
MAX_BARS = 12
LOG_RATIO = 30  # of the largest to the smallest x, above which points have a logarithmic axis
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bits of a Braille character, by row and column


class Line(NamedTuple):
    """A line through points: x and y are (n,) arrays, n at least 1."""

    name: str
    x: np.ndarray
    y: np.ndarray


class Bar(NamedTuple):
    """A bar, and the text of its value."""

    name: str
    value: float
    value_text: str


@dataclass
class Dots:
    """The drawing area: Braille bits, the line that owns each character, and the marks that stand there instead.

    Attributes:
        bits: (rows, columns), 0 for an empty character.
        owner: (rows, columns), the number of the line drawn there last, -1 for none.
        marks: Characters by row and column.
    """

    bits: np.ndarray
    owner: np.ndarray
    marks: dict[tuple[int, int], str]

    @classmethod
    def empty(cls, columns: int) -> Dots:
        return cls(np.zeros((HEIGHT, columns), dtype=int), np.full((HEIGHT, columns), -1), {})

    def draw(self, number: int, x: np.ndarray, y: np.ndarray, *, marks: bool) -> None:
        """Joins points by straight lines.

        Args:
            number: Of the line.
            x, y: (n,) each, in dots from the left and from the top.
            marks: Whether each point is marked.
        """
        for (x0, x1), (y0, y1) in zip(_neighbours(x), _neighbours(y)):
            count = int(max(abs(x1 - x0), abs(y1 - y0))) + 2
            for column, row in zip(_steps(x0, x1, count), _steps(y0, y1, count)):
                self.bits[row // 4, column // 2] |= DOTS[row % 4][column % 2]
                self.owner[row // 4, column // 2] = number
        for column, row in zip(x.round().astype(int), y.round().astype(int)) if marks else ():
            self.marks[row // 4, column // 2] = MARKS[number]
            self.owner[row // 4, column // 2] = number

    def append_row(self, text: Text, row: int) -> None:
        for column, owner in enumerate(self.owner[row]):
            bits = self.bits[row, column]
            character = self.marks.get((row, column)) or (chr(0x2800 + bits) if bits else " ")
            text.append(character, COLOURS[owner] if owner >= 0 else "")


def line_plot(
    lines: Sequence[Line],
    width: int,
    *,
    title: str,
    x_title: str,
    x_ends: tuple[str, str],
    y_ends: tuple[str, str],
    marks: bool,
) -> Text:
    """Lines between axes, the name of each at its right end.

    Args:
        lines: At least one, and at most as many as there are COLOURS; the first is drawn over the others.
        width: Characters.
        title: Above the plot.
        x_title: Below the plot.
        x_ends, y_ends: The least and the largest x and y, as text.
        marks: Whether points are marked, and x is logarithmic where it spans a large ratio.
    """
    names = min(NAME_WIDTH, max(cell_width(line.name) for line in lines))
    bottom, top = (float(end([end(line.y) for line in lines])) for end in (np.min, np.max))
    ticks = {0: y_ends[1], HEIGHT - 1: y_ends[0]} if top > bottom else {HEIGHT // 2: y_ends[1]}
    margin = max(map(len, ticks.values()))
    columns = max(10, width - names - margin - 6)
    dots = Dots.empty(columns)
    for number, (x, y) in reversed(list(enumerate(_places(lines, columns, log_x=marks)))):
        dots.draw(number, x, y, marks=marks)
    name_rows = _name_rows(lines, bottom, top)
    short = cut([line.name for line in lines], names)
    text = Text(f"{title}\n", "bold")
    for row in range(HEIGHT):
        text.append(f"{ticks.get(row, ''):>{margin}} ", "dim")
        text.append("┤" if row in ticks else "│", "dim")
        dots.append_row(text, row)
        if row in name_rows:
            number = name_rows[row]
            mark = f"{MARKS[number]} " if marks else ""
            text.append(f" {mark}{short[number]}", COLOURS[number])
        text.append("\n")
    low, high = x_ends
    text.append(f"{'':{margin}} └{'─' * columns}\n", "dim")
    room = max(len(x_title), columns - len(low) - len(high))
    text.append(f"{'':{margin + 2}}{low}{x_title:^{room}}{high}\n", "dim")
    return text


def bar_plot(bars: Sequence[Bar], width: int, *, title: str) -> Text:
    """Horizontal bars from zero on; negative values have none.

    Args:
        bars: At least one, and at most MAX_BARS.
        width: Characters.
        title: Above the bars.
    """
    names = min(NAME_WIDTH, max(cell_width(bar.name) for bar in bars))
    largest = max(bar.value for bar in bars)
    room = max(10, width - names - max(len(bar.value_text) for bar in bars) - 4)
    text = Text(f"{title}\n", "bold")
    for bar, name in zip(bars, cut([bar.name for bar in bars], names)):
        eighths = 8 * room * max(bar.value, 0.0) / largest if largest > 0 else 0.0
        whole, rest = divmod(round(eighths), 8)
        text.append(f"{fitted(name, names, right=True)} ")
        text.append("█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), COLOURS[0])
        text.append(f" {bar.value_text}\n")
    return text


def cut(texts: Sequence[str], length: int) -> list[str]:
    """The texts in at most `length` columns each, shortened in the middle, and still all different where they were.

    Texts that begin and end alike show what is about the first place in which they differ, or only their ends, or numbers.
    """
    short = {text: text if cell_width(text) <= length else _joined(text, length, len(text)) for text in texts}
    if length < 5:
        return [short[text] for text in texts]
    for again in (_about_the_difference, _ends):
        for alike in _alike(short):
            short |= again(alike, length)
    short |= _numbered([text for alike in _alike(short) for text in alike], length)
    return [short[text] for text in texts]


def _alike(short: Mapping[str, str]) -> list[list[str]]:
    """The texts that have been shortened to the same, those of one shortened text in a sorted list."""
    found: dict[str, list[str]] = {}
    for text in sorted(short):
        found.setdefault(short[text], []).append(text)
    return [texts for texts in found.values() if len(texts) > 1]


def _about_the_difference(texts: Sequence[str], length: int) -> dict[str, str]:
    """Sorted texts with their beginnings and what is about the first place in which they differ."""
    pairs = enumerate(zip(texts[0], texts[-1]))
    start = next((place for place, (one, other) in pairs if one != other), len(texts[0]))
    return {text: _joined(text, length, start + length // 2) for text in texts}


def _ends(texts: Sequence[str], length: int) -> dict[str, str]:
    """The last characters of the texts."""
    return {text: "…" + next(t for i in range(len(text)) if cell_width(t := text[i:]) < length) for text in texts}


def _numbered(texts: Sequence[str], length: int) -> dict[str, str]:
    """The beginnings of the texts, and a number."""
    ends = {text: f"…{number}" for number, text in enumerate(texts, start=1)}
    return {text: fitted(text, length - len(end) + 1).rstrip(" …") + end for text, end in ends.items()}


def _joined(text: str, length: int, end: int) -> str:
    """The beginning of a text and what is before `end`, in `length` columns in all."""
    end = min(end, len(text))
    for characters in range(length, 2, -1):  # fewer than there are columns, where some take two
        head = (characters - 1) // 2
        joined = f"{text[:head]}…{text[max(head, end - (characters - 1 - head)) : end]}"
        if cell_width(joined) <= length:
            return joined
    return "…"


def _places(lines: Sequence[Line], columns: int, *, log_x: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """The points of each line, in dots from the left and from the top."""
    xs, ys = np.concatenate([line.x for line in lines]), np.concatenate([line.y for line in lines])
    (left, right), (bottom, top) = (xs.min(), xs.max()), (ys.min(), ys.max())
    scale = np.log if log_x and left > 0 and right > LOG_RATIO * left else np.asarray
    places = []
    for line in lines:
        x = (scale(line.x) - scale(left)) / (scale(right) - scale(left) or 1) * (2 * columns - 1)
        y = (top - line.y) / (top - bottom) * (4 * HEIGHT - 1) if top > bottom else np.full(len(line.y), 2.0 * HEIGHT)
        places.append((x, y))
    return places


def _name_rows(lines: Sequence[Line], bottom: float, top: float) -> dict[int, int]:
    """Numbers of lines by the row of their name: the free one that is nearest to the line's end."""
    rows: dict[int, int] = {}
    for number in sorted(range(len(lines)), key=lambda n: -lines[n].y[-1]):
        wanted = int((top - lines[number].y[-1]) / (top - bottom or 1) * (4 * HEIGHT - 1)) // 4
        free = [row for row in range(HEIGHT) if row not in rows]
        rows[min(free, key=lambda row: (abs(row - wanted), row))] = number
    return rows


def _neighbours(values: np.ndarray) -> list[tuple[float, float]]:
    """Pairs of neighbours; a single value with itself."""
    return list(pairwise(values)) if len(values) > 1 else [(values[0], values[0])]


def _steps(start: float, end: float, count: int) -> np.ndarray:
    return np.linspace(start, end, count).round().astype(int)
