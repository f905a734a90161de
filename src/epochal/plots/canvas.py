"""What pictures are drawn with: colours, texts, ticks and smooth lines."""

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
BLUES = ((244, 248, 252), (158, 202, 225), (49, 130, 189), (8, 56, 112))  # from none of a row to all of it
REDS = ((255, 255, 255), (253, 212, 158), (239, 101, 72), (153, 0, 13))
HEAT = ((0, 0, 0), (88, 20, 110), (190, 50, 85), (245, 140, 20), (255, 250, 160))  # from nothing to the most
MARGIN, TITLE, TEXT, SMALL = 24, 20, 14, 12  # pixels: the white around every picture, and the sizes of its texts
WIDTH, HEIGHT, FINE = 960, 560, 3  # of curves: drawn FINE times larger, then shrunk, which smooths the lines


def shade(stops: Sequence[RGB], shares: np.ndarray) -> np.ndarray:
    """Colours between the stops, uint8 (..., 3), for shares in [0, 1]."""
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(shares, at, channel) for channel in zip(*stops)], axis=-1).round().astype(np.uint8)


def extent(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    distinct = high - low > 1e-9 * max(abs(low), abs(high))
    return (low, high) if distinct else (low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1))


def ticks(
    low: float, high: float, most: int, *, whole: bool = False, beyond: bool = False
) -> tuple[list[float], list[str]]:
    """Multiples of 1, 2 or 5 times a power of ten in [low, high], or reaching beyond both, and what to write there."""
    power = math.floor(math.log10((high - low) / most))
    factor = next(factor for factor in (1, 2, 5, 10) if high - low <= most * factor * 10.0**power)
    step = max(factor * 10.0**power, 1.0 if whole else 0.0)
    first, last = (math.floor, math.ceil) if beyond else (math.ceil, math.floor)
    slack = -1e-9 if beyond else 1e-9  # for rounding errors
    ticks = [step * index for index in range(first(low / step - slack), last(high / step + slack) + 1)]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    plain = decimals < 5 and max(abs(low), abs(high)) < 1e7
    return ticks, [f"{tick:,.{decimals}f}" if plain else f"{tick:.3g}" for tick in ticks]


def stroke(draw: ImageDraw.ImageDraw, path: Any, color: RGB, width: float, dashed: bool = False) -> None:
    """A line through (T, 2) pixels of the picture before it is enlarged."""
    path = np.asarray(path, dtype=float) * FINE
    pieces = [path] if len(path) > 1 else []
    if dashed and pieces:
        far = np.concatenate([[0], np.hypot(*np.diff(path, axis=0).T).cumsum()])  # of each point, along the line
        ends = [(start, start + 6 * FINE) for start in np.arange(0, far[-1], 10 * FINE)]
        places = [np.concatenate([[a], far[(far > a) & (far < b)], [min(b, far[-1])]]) for a, b in ends]
        pieces = [np.stack([np.interp(at, far, path[:, 0]), np.interp(at, far, path[:, 1])], axis=1) for at in places]
    for piece in pieces:
        joint = "curve" if len(piece) < 1500 else None  # costs time, and nobody sees it in a long line
        draw.line([tuple(point) for point in piece], color, round(width * FINE), joint)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def plain(text: str) -> str:
    """Without accents and the German sharp s, which the built-in font lacks."""
    letters = unicodedata.normalize("NFD", text.replace("ß", "ss"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def width_of(text: str, size: int) -> int:
    return math.ceil(font(size).getlength(plain(text)))


def clipped(text: str, size: int, width: int) -> str:
    """The text, or as much of it as fits into width pixels, and an ellipsis."""
    if width_of(text, size) <= width:
        return text
    return text[: bisect(range(1, len(text)), width, key=lambda end: width_of(text[:end] + "…", size))] + "…"


def wrapped(text: str, size: int, width: int) -> list[str]:
    """Lines of at most width pixels, broken between words; a word that is too wide alone is clipped."""
    lines = []
    for words in map(str.split, text.split("\n")):
        line = ""
        for word in words:
            if line and width_of(f"{line} {word}", size) > width:
                lines.append(line)
                line = ""
            line = f"{line} {word}".strip()
        lines.append(line)
    return [clipped(line, size, width) for line in lines]


def write(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    text: str,
    size: int,
    color: RGB = INK,
    anchor: str = "ls",
    upright: bool = False,
) -> None:
    """Text at (x, y), placed by Pillow's anchor; upright text rises from there."""
    if not upright:
        draw.text((x, y), plain(text), color, font(size), anchor)
        return
    mask = Image.new("L", (width_of(text, size), size + 4))
    ImageDraw.Draw(mask).text((0, mask.height / 2), plain(text), 255, font(size), "lm")
    mask = mask.rotate(90, expand=True)
    draw.bitmap((round(x - mask.width / 2), round(y - mask.height)), mask, color)
