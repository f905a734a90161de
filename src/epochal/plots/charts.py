"""Line charts, drawn with Pillow and numpy alone: matplotlib would slow down every start."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from epochal.plots.canvas import (
    FAINT,
    FINE,
    GREY,
    HEIGHT,
    LINES,
    MARGIN,
    TEXT,
    TITLE,
    WHITE,
    WIDTH,
    clipped,
    extent,
    stroke,
    ticks,
    width_of,
    write,
)

if TYPE_CHECKING:
    pass


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    x_label: str,
    y_label: str,
    dots: Collection[str] = (),
) -> Image.Image:
    """Lines in one pair of axes, 960 x 560 pixels, in colours that the colour-blind can tell apart.

    Args:
        series: The name of each line, and its x and y values; points that are NaN or infinite are left out.
        title: A line above all.
        x_label: What x is, and its unit.
        y_label: What y is, and its unit.
        dots: Names of those that are no lines, but small points in no order.
    """
    lines, legend, x, y = [], [], MARGIN, MARGIN + 42  # the legend takes as many rows as it needs
    for name, values in series.items():
        line = np.array(values, dtype=float).T
        line = line[np.isfinite(line).all(axis=1)]  # (T, 2)
        name = clipped(name if len(line) else f"{name} (no finite values)", TEXT, 400)
        if x > MARGIN and x + 34 + width_of(name, TEXT) > WIDTH - MARGIN:
            x, y = MARGIN, y + 24
        lines.append(line)
        legend.append((x, y, name))
        x += 34 + width_of(name, TEXT) + 28

    points = np.concatenate([np.empty((0, 2)), *lines])
    (x_low, x_high), (y_low, y_high) = extent(points[:, 0]), extent(points[:, 1])
    x_ticks, x_texts = ticks(x_low, x_high, 8, whole=bool((points[:, 0] % 1 == 0).all()))
    y_ticks, y_texts = ticks(0 if 0 < y_low < y_high / 3 else y_low, y_high, 6, beyond=True)
    low, high = np.array([x_low, y_ticks[0]]), np.array([x_high, y_ticks[-1]])
    left, right = MARGIN + max(width_of(text, TEXT) for text in y_texts) + 12, WIDTH - MARGIN - 16
    top, bottom = y + 66, HEIGHT - MARGIN - 50

    def place(points: Any) -> Any:  # (T, 2) values -> (T, 2) pixels
        return (np.asarray(points) - low) / (high - low) * (right - left, top - bottom) + (left, bottom)

    across, up = place([(tick, low[1]) for tick in x_ticks])[:, 0], place([(low[0], tick) for tick in y_ticks])[:, 1]
    canvas = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), WHITE)
    draw = ImageDraw.Draw(canvas)
    for y in up:
        stroke(draw, [(left, y), (right, y)], FAINT, 1)
    for x in across:
        stroke(draw, [(x, bottom), (x, bottom + 5)], GREY, 1)
    stroke(draw, [(left, bottom), (right, bottom)], GREY, 1)
    for index, (name, line, (x, y, _)) in enumerate(zip(series, lines, legend)):
        color, dashed, line = LINES[index % len(LINES)], index // len(LINES) % 2 == 1, place(line)
        if name in dots:
            for center in np.concatenate((line, [[x + 13, y]])) * FINE:
                draw.ellipse((*(center - 2.2 * FINE), *(center + 2.2 * FINE)), color)
            continue
        stroke(draw, [(x, y), (x + 26, y)], color, 2.2, dashed)
        stroke(draw, line, color, 2.2 if len(line) < 1500 else 1.4, dashed)
        for center in line * FINE if len(line) <= 30 else ():
            draw.ellipse((*(center - 3.6 * FINE), *(center + 3.6 * FINE)), color)

    canvas = canvas.reduce(FINE)
    draw = ImageDraw.Draw(canvas)
    write(draw, MARGIN, MARGIN, clipped(title, TITLE, WIDTH - 2 * MARGIN), TITLE, anchor="lt")
    write(draw, MARGIN, top - 20, y_label, TEXT, GREY)
    write(draw, (left + right) / 2, HEIGHT - MARGIN, x_label, TEXT, GREY, "ms")
    for x, y, name in legend:
        write(draw, x + 34, y, name, TEXT, anchor="lm")
    for x, text in zip(across, x_texts):
        write(draw, x, bottom + 22, text, TEXT, GREY, "ms")
    for y, text in zip(up, y_texts):
        write(draw, left - 10, y, text, TEXT, GREY, "rm")
    return canvas
