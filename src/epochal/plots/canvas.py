"""Primitives of every picture: colours, text, axis ticks and smooth lines."""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from epochal.plots import fonts

RGB = tuple[int, int, int]
WHITE, INK, GREY, FAINT, RED = (255, 255, 255), (34, 34, 34), (105, 105, 105), (226, 226, 226), (200, 30, 30)
LINES = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), INK)  # Okabe-Ito
# colour maps: the stops between which `interpolate_colors` interpolates, from 0 to 1
BLUES = ((244, 248, 252), (158, 202, 225), (49, 130, 189), (8, 56, 112))
REDS = ((255, 255, 255), (253, 212, 158), (239, 101, 72), (153, 0, 13))
HEAT = ((0, 0, 0), (88, 20, 110), (190, 50, 85), (245, 140, 20), (255, 250, 160))
MARGIN, TITLE, TEXT, SMALL = 24, 20, 14, 12  # pixels: the white margin of every picture, and font sizes
WIDTH, HEIGHT = 960, 560  # pixels of a line chart
UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff]|[^\u3040-\u30ff\u3400-\u9fff]+")  # a letter of these, or a word
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


def text_width(text: str, size: int) -> int:
    """Pixels."""
    return math.ceil(sum(_run_width(run, size) for run in fonts.runs(text)))


def _run_width(run: fonts.Run, size: int) -> float:
    found, factor = (font(size), 1.0) if run.face is None else run.face.at(size)
    return factor * found.getlength(run.text)


def truncate(text: str, size: int, width: int) -> str:
    """The text, or as much of it as fits into width pixels, and an ellipsis."""
    if text_width(text, size) <= width:
        return text
    parts = fonts.clusters(text)  # a letter keeps its marks
    end = bisect(range(1, len(parts)), width, key=lambda end: text_width("".join(parts[:end]) + "…", size))
    return "".join(parts[:end]) + "…"


def wrap(text: str, size: int, width: int) -> list[str]:
    """Lines of at most width pixels, broken between words, and between the letters of Chinese and Japanese; a word that
    is too wide by itself is truncated."""
    lines = []
    for words in map(_words, text.split("\n")):
        line = ""
        for space, word in words:
            if line and text_width(f"{line}{space}{word}", size) > width:
                lines.append(line)
                line = ""
            line = f"{line}{space if line else ''}{word}"
        lines.append(line)
    return [truncate(line, size, width) for line in lines]


def _words(text: str) -> list[tuple[str, str]]:
    """The parts between which a line may be broken, each with the space before it, or "" where there is none."""
    parts: list[tuple[str, str]] = []
    for word in text.split():
        pieces = UNSPACED.findall(word)
        parts += zip((" ", *[""] * len(pieces)), pieces)
    return parts


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
        _write(draw, x, y, text, size, color, anchor)
        return
    mask = Image.new("L", (text_width(text, size), size + 8))
    _write(ImageDraw.Draw(mask), 0, mask.height / 2, text, size, 255, "lm")
    mask = mask.rotate(90, expand=True)
    draw.bitmap((round(x - mask.width / 2), round(y - mask.height)), mask, color)


def _write(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, size: int, color: Any, anchor: str) -> None:
    """Writes horizontally, each run in its font."""
    runs = fonts.runs(text)
    if all(run.face is None for run in runs):
        draw.text((x, y), "".join(run.text for run in runs), color, font(size), anchor)
        return
    widths = [_run_width(run, size) for run in runs]
    x -= sum(widths) * {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]]
    plain: Any = font(size)
    ascent, descent = plain.getmetrics()  # the baseline is where ASCII has it
    capital = -plain.getbbox("X", anchor="ls")[1]
    y += {"s": 0, "m": (ascent - descent) / 2, "t": capital, "a": ascent}[anchor[1]]
    for run, width in zip(runs, widths):
        found, factor = (font(size), 1.0) if run.face is None else run.face.at(size)
        if factor == 1:
            draw.text((x, y), run.text, color, found, "ls", embedded_color=draw.mode == "RGB")
        else:
            _paste_bitmaps(draw, x, y, run, size)
        x += width


def _paste_bitmaps(draw: ImageDraw.ImageDraw, x: float, y: float, run: fonts.Run, size: int) -> None:
    """Emoji of a font that has them in one size only, reduced; on a mask dark where they are."""
    assert run.face is not None
    found, factor = run.face.at(size)
    left, top, right, bottom = found.getbbox(run.text, anchor="ls")
    if right <= left or bottom <= top:
        return
    tile = Image.new("RGBA", (math.ceil(right - left), math.ceil(bottom - top)))
    ImageDraw.Draw(tile).text((-left, -top), run.text, font=found, anchor="ls", embedded_color=True)
    tile = tile.resize((max(1, round(tile.width * factor)), max(1, round(tile.height * factor))))
    ink = tile if draw.mode == "RGB" else ImageOps.invert(tile.convert("L"))
    draw._image.paste(ink, (round(x + left * factor), round(y + top * factor)), tile)
