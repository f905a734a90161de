"""Line charts, drawn with Pillow and numpy alone: matplotlib would slow down every start."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from epochal.plots.canvas import (
    FAINT,
    GREY,
    HEIGHT,
    LINES,
    MARGIN,
    RGB,
    SUPERSAMPLING,
    TEXT,
    TITLE,
    WHITE,
    WIDTH,
    draw_line,
    draw_text,
    text_width,
    ticks,
    truncate,
    value_range,
)

SAMPLE, GAP = 34, 28  # pixels in the legend: from the start of a line's sample to its name, and to the next sample
ROW = 24  # pixels of height of a row of the legend


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    x_label: str,
    y_label: str,
    dots: Collection[str] = (),
) -> Image.Image:
    """Lines in one pair of axes, 960 x 560 pixels, in colours that the colour-blind can tell apart.

    Args:
        series: The name of each line, and its x and y values, of equal length; NaN and infinite points are left out.
        title: Above the chart.
        x_label: What x is, and its unit.
        y_label: What y is, and its unit.
        dots: Names of the series that are drawn as small points, not joined by a line.
    """
    lines = [_finite_points(values) for values in series.values()]
    names = [name if len(line) else f"{name} (no finite values)" for name, line in zip(series, lines)]
    legend, last_row = _legend(names)
    axes = _Axes.fit(np.concatenate([np.empty((0, 2)), *lines]), top=last_row + 66)

    canvas = Image.new("RGB", (WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING), WHITE)
    draw = ImageDraw.Draw(canvas)
    axes.draw_lines(draw)
    for index, (name, line, entry) in enumerate(zip(series, lines, legend)):
        color, dashed = LINES[index % len(LINES)], index // len(LINES) % 2 == 1
        if name in dots:
            _draw_dots(draw, np.concatenate((axes.to_pixels(line), [[entry.x + 13, entry.y]])), color, radius=2.2)
        else:
            draw_line(draw, [(entry.x, entry.y), (entry.x + 26, entry.y)], color, 2.2, dashed)
            _draw_series(draw, axes.to_pixels(line), color, dashed)

    canvas = canvas.reduce(SUPERSAMPLING)
    draw = ImageDraw.Draw(canvas)
    draw_text(draw, MARGIN, MARGIN, truncate(title, TITLE, WIDTH - 2 * MARGIN), TITLE, anchor="lt")
    axes.draw_labels(draw, x_label, y_label)
    for entry in legend:
        draw_text(draw, entry.x + SAMPLE, entry.y, entry.name, TEXT, anchor="lm")
    return canvas


class _Entry(NamedTuple):
    """A name in the legend, and where the sample of its line begins, in pixels."""

    x: int
    y: int
    name: str


@dataclass
class _Axes:
    """The plot area and the ticks of both axes; places are in pixels of the picture, values in units of the data."""

    low: np.ndarray  # (2,) the smallest x and y
    high: np.ndarray  # (2,)
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: tuple[list[float], list[str]]
    y_ticks: tuple[list[float], list[str]]

    @classmethod
    def fit(cls, points: np.ndarray, top: int) -> _Axes:
        """Axes for points (T, 2), below the pixel row top."""
        (x_low, x_high), (y_low, y_high) = value_range(points[:, 0]), value_range(points[:, 1])
        x_ticks = ticks(x_low, x_high, 8, whole=bool((points[:, 0] % 1 == 0).all()))
        y_ticks = ticks(0 if 0 < y_low < y_high / 3 else y_low, y_high, 6, beyond=True)
        return cls(
            low=np.array([x_low, y_ticks[0][0]]),
            high=np.array([x_high, y_ticks[0][-1]]),
            left=MARGIN + max(text_width(text, TEXT) for text in y_ticks[1]) + 12,
            right=WIDTH - MARGIN - 16,
            top=top,
            bottom=HEIGHT - MARGIN - 50,
            x_ticks=x_ticks,
            y_ticks=y_ticks,
        )

    def to_pixels(self, points: Any) -> np.ndarray:
        """Points (T, 2) of the data -> pixels (T, 2)."""
        size = (self.right - self.left, self.top - self.bottom)
        return (np.asarray(points) - self.low) / (self.high - self.low) * size + (self.left, self.bottom)

    def tick_places(self) -> tuple[np.ndarray, np.ndarray]:
        """The x of each tick of the x axis and the y of each tick of the y axis, in pixels."""
        across = self.to_pixels([(tick, self.low[1]) for tick in self.x_ticks[0]])[:, 0]
        up = self.to_pixels([(self.low[0], tick) for tick in self.y_ticks[0]])[:, 1]
        return across, up

    def draw_lines(self, draw: ImageDraw.ImageDraw) -> None:
        """The horizontal grid, the x axis and its ticks."""
        across, up = self.tick_places()
        for y in up:
            draw_line(draw, [(self.left, y), (self.right, y)], FAINT, 1)
        for x in across:
            draw_line(draw, [(x, self.bottom), (x, self.bottom + 5)], GREY, 1)
        draw_line(draw, [(self.left, self.bottom), (self.right, self.bottom)], GREY, 1)

    def draw_labels(self, draw: ImageDraw.ImageDraw, x_label: str, y_label: str) -> None:
        """The labels of both axes and of their ticks."""
        draw_text(draw, MARGIN, self.top - 20, y_label, TEXT, GREY)
        draw_text(draw, (self.left + self.right) / 2, HEIGHT - MARGIN, x_label, TEXT, GREY, "ms")
        across, up = self.tick_places()
        for x, text in zip(across, self.x_ticks[1]):
            draw_text(draw, x, self.bottom + 22, text, TEXT, GREY, "ms")
        for y, text in zip(up, self.y_ticks[1]):
            draw_text(draw, self.left - 10, y, text, TEXT, GREY, "rm")


def _finite_points(values: tuple[Sequence[float], Sequence[float]]) -> np.ndarray:
    """x and y values, T each, as points (T', 2) without those that are NaN or infinite."""
    points = np.array(values, dtype=float).T
    return points[np.isfinite(points).all(axis=1)]


def _legend(names: Sequence[str]) -> tuple[list[_Entry], int]:
    """The names in as many rows as they need, truncated where too long; and the y of the last row."""
    entries: list[_Entry] = []
    x, y = MARGIN, MARGIN + 42
    for name in names:
        name = truncate(name, TEXT, 400)
        if x > MARGIN and x + SAMPLE + text_width(name, TEXT) > WIDTH - MARGIN:
            x, y = MARGIN, y + ROW
        entries.append(_Entry(x, y, name))
        x += SAMPLE + text_width(name, TEXT) + GAP
    return entries, y


def _draw_series(draw: ImageDraw.ImageDraw, points: np.ndarray, color: RGB, dashed: bool) -> None:
    """A line through pixels (T, 2), thinner where it is long, with a dot at each point where they are few."""
    draw_line(draw, points, color, 2.2 if len(points) < 1500 else 1.4, dashed)
    if len(points) <= 30:
        _draw_dots(draw, points, color, radius=3.6)


def _draw_dots(draw: ImageDraw.ImageDraw, centers: np.ndarray, color: RGB, radius: float) -> None:
    """Filled circles at pixels (T, 2); the radius is in pixels."""
    for center in centers * SUPERSAMPLING:
        draw.ellipse((*(center - radius * SUPERSAMPLING), *(center + radius * SUPERSAMPLING)), color)
