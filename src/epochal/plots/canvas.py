"""Primitives of every picture: colours, text, axis ticks and smooth lines."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

RGB = tuple[int, int, int]
WHITE, INK, GREY, FAINT, RED = (255, 255, 255), (34, 34, 34), (105, 105, 105), (226, 226, 226), (200, 30, 30)
LINES = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), INK)  # Okabe-Ito
# colour maps: the stops between which `interpolate_colors` interpolates, from 0 to 1
BLUES = ((244, 248, 252), (158, 202, 225), (49, 130, 189), (8, 56, 112))
REDS = ((255, 255, 255), (253, 212, 158), (239, 101, 72), (153, 0, 13))
HEAT = ((0, 0, 0), (88, 20, 110), (190, 50, 85), (245, 140, 20), (255, 250, 160))
MARGIN, TITLE, TEXT, SMALL = 24, 20, 14, 12  # pixels: the white margin of every picture, and font sizes
WIDTH, HEIGHT = 960, 560  # pixels of a line chart
SUPERSAMPLING = 3  # a chart is drawn this many times larger and then reduced, which antialiases its lines


def interpolate_colors(stops: Sequence[RGB], fractions: np.ndarray) -> np.ndarray:
    """Colours on the scale given by evenly spaced stops.

    Args:
        stops: Colours for 0, ..., 1.
        fractions: Values in [0, 1], of any shape (...); what lies outside is clipped.

    Returns:
        uint8 (..., 3).
    """
    positions = np.linspace(0, 1, len(stops))
    channels = [np.interp(fractions, positions, channel) for channel in zip(*stops)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def value_range(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value, widened where they are equal; 0 and 1 if there are no values."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    distinct = high - low > 1e-9 * max(abs(low), abs(high))
    return (low, high) if distinct else (low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1))


def ticks(
    low: float, high: float, most: int, *, whole: bool = False, beyond: bool = False
) -> tuple[list[float], list[str]]:
    """Positions and labels of an axis's ticks: multiples of 1, 2 or 5 times a power of ten.

    Args:
        low, high: The range of the axis; low < high.
        most: About how many ticks at most.
        whole: Whether only whole numbers may be ticks.
        beyond: Whether the first and last tick lie at or outside the range, and not inside it.
    """
    power = math.floor(math.log10((high - low) / most))
    factor = next(factor for factor in (1, 2, 5, 10) if high - low <= most * factor * 10.0**power)
    step = max(factor * 10.0**power, 1.0 if whole else 0.0)
    first, last = (math.floor, math.ceil) if beyond else (math.ceil, math.floor)
    slack = -1e-9 if beyond else 1e-9  # for rounding errors
    positions = [step * index for index in range(first(low / step - slack), last(high / step + slack) + 1)]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    fixed_point = decimals < 5 and max(abs(low), abs(high)) < 1e7
    return positions, [f"{tick:,.{decimals}f}" if fixed_point else f"{tick:.3g}" for tick in positions]


def draw_line(draw: ImageDraw.ImageDraw, path: Any, color: RGB, width: float, dashed: bool = False) -> None:
    """Draws a line on a canvas that is SUPERSAMPLING times larger than the picture.

    Args:
        draw: Of the canvas.
        path: Points (T, 2), in pixels of the picture.
        color: Of the line.
        width: In pixels of the picture.
        dashed: 6 pixels of line, then 4 of gap.
    """
    path = np.asarray(path, dtype=float) * SUPERSAMPLING
    pieces = [path] if len(path) > 1 else []
    if dashed and pieces:
        distance = np.concatenate([[0], np.hypot(*np.diff(path, axis=0).T).cumsum()])  # (T,) from the start of the line
        dashes = [(start, start + 6 * SUPERSAMPLING) for start in np.arange(0, distance[-1], 10 * SUPERSAMPLING)]
        places = [
            np.concatenate([[start], distance[(distance > start) & (distance < end)], [min(end, distance[-1])]])
            for start, end in dashes
        ]
        pieces = [
            np.stack([np.interp(at, distance, path[:, 0]), np.interp(at, distance, path[:, 1])], axis=1)
            for at in places
        ]
    for piece in pieces:
        joint = "curve" if len(piece) < 1500 else None  # rounded joints cost time and cannot be seen in a long line
        draw.line([tuple(point) for point in piece], color, round(width * SUPERSAMPLING), joint)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def strip_accents(text: str) -> str:
    """Without accents and the German sharp s, which the built-in font lacks."""
    letters = unicodedata.normalize("NFD", text.replace("ß", "ss"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def text_width(text: str, size: int) -> int:
    """Pixels."""
    return math.ceil(font(size).getlength(strip_accents(text)))


def truncate(text: str, size: int, width: int) -> str:
    """The text, or as much of it as fits into width pixels, and an ellipsis."""
    if text_width(text, size) <= width:
        return text
    return text[: bisect(range(1, len(text)), width, key=lambda end: text_width(text[:end] + "…", size))] + "…"


def wrap(text: str, size: int, width: int) -> list[str]:
    """Lines of at most width pixels, broken between words; a word that is too wide by itself is truncated."""
    lines = []
    for words in map(str.split, text.split("\n")):
        line = ""
        for word in words:
            if line and text_width(f"{line} {word}", size) > width:
                lines.append(line)
                line = ""
            line = f"{line} {word}".strip()
        lines.append(line)
    return [truncate(line, size, width) for line in lines]


def draw_text(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    text: str,
    size: int,
    color: RGB = INK,
    anchor: str = "ls",
    vertical: bool = False,
) -> None:
    """Writes text at (x, y), placed by Pillow's anchor; vertical text runs upwards from there, centred on x."""
    if not vertical:
        draw.text((x, y), strip_accents(text), color, font(size), anchor)
        return
    mask = Image.new("L", (text_width(text, size), size + 4))
    ImageDraw.Draw(mask).text((0, mask.height / 2), strip_accents(text), 255, font(size), "lm")
    mask = mask.rotate(90, expand=True)
    draw.bitmap((round(x - mask.width / 2), round(y - mask.height)), mask, color)
