"""Pictures of sequences: where each token comes from, and films frame by frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from epochal.drawing import (
    BLUES,
    FAINT,
    GREY,
    INK,
    MARGIN,
    RED,
    SMALL,
    TITLE,
    WHITE,
    clipped,
    shade,
    width_of,
    write,
)
from epochal.pictures import enlarged, joined, text

CELL = 26  # pixels of a weight
LABEL = 120  # pixels of the longest label
LETTERS = SMALL + 1
GAP = 6  # between frames


def attention(
    weights: Sequence[np.ndarray],
    rows: Sequence[Sequence[str]],
    columns: Sequence[Sequence[str]],
    title: str,
) -> Image.Image:
    """Heat maps, two side by side, with the tokens on the axes; from white at 0 to dark blue at 1.

    Args:
        weights: One map each, floats (T, S) from 0 to 1.
        rows: T labels for each map, the tokens that look.
        columns: S labels for each map, the tokens that are looked at.
        title: A line above all.
    """
    maps = [heat_map(*each) for each in zip(weights, rows, columns, strict=True)]
    pairs = [joined(maps[at : at + 2], upright=False, gap=2 * MARGIN) for at in range(0, len(maps), 2)]
    body = joined([*pairs, _scale()], upright=True, gap=2 * MARGIN)
    return _titled(body, title)


def heat_map(weights: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """One map of `attention`, without a margin; labels of columns stand upright."""
    weights = np.asarray(weights)
    if weights.shape != (len(rows), len(columns)):
        raise ValueError(f"weights must have shape ({len(rows)}, {len(columns)}) for its labels, not {weights.shape}.")
    rows, columns = ([clipped(label, LETTERS, LABEL) for label in labels] for labels in (rows, columns))
    left, top = (max(width_of(label, LETTERS) for label in labels) + 8 for labels in (rows, columns))
    width, height = CELL * len(columns), CELL * len(rows)
    canvas = Image.new("RGB", (left + width + 1, top + height + 1), WHITE)
    draw = ImageDraw.Draw(canvas)
    canvas.paste(
        Image.fromarray(shade(BLUES_FROM_WHITE, weights)).resize((width, height), Image.Resampling.NEAREST), (left, top)
    )
    for row, label in enumerate(rows):
        draw.line((left, top + CELL * row, left + width, top + CELL * row), FAINT)
        write(draw, left - 8, top + CELL * (row + 0.5), label, LETTERS, INK, "rm")
    for column, label in enumerate(columns):
        draw.line((left + CELL * column, top, left + CELL * column, top + height), FAINT)
        write(draw, left + CELL * (column + 0.5), top - 6, label, LETTERS, INK, upright=True)
    draw.rectangle((left, top, left + width, top + height), outline=GREY)
    return canvas


BLUES_FROM_WHITE = (WHITE, *BLUES[1:])


def _scale() -> Image.Image:
    canvas = Image.new("RGB", (230, 16), WHITE)
    draw = ImageDraw.Draw(canvas)
    write(draw, 0, 8, "weight   0", SMALL, GREY, "lm")
    canvas.paste(Image.fromarray(shade(BLUES_FROM_WHITE, np.linspace(0, 1, 120)[None])).resize((120, 12)), (70, 2))
    draw.rectangle((69, 1, 190, 14), outline=FAINT)
    write(draw, 198, 8, "1", SMALL, GREY, "lm")
    return canvas


def films(
    frames: Sequence[np.ndarray],
    captions: Sequence[Sequence[str]],
    wrong: Sequence[Sequence[bool]] | None = None,
    *,
    side: int = 64,
    title: str,
) -> Image.Image:
    """One film a row, a caption below each frame.

    Args:
        frames: Films of any length, uint8 (T, C, H, W), C 1 or 3.
        captions: T texts for each film.
        wrong: T flags for each film; True turns the caption red and frames the picture.
        side: The most pixels of a frame's longer side.
        title: A line above all.
    """
    strips = []
    for number, (film, words) in enumerate(zip(frames, captions, strict=True)):
        flags = [False] * len(film) if wrong is None else wrong[number]
        parts = [_frame(*each, side) for each in zip(film, words, flags, strict=True)]
        strips.append(joined(parts, upright=False, gap=GAP))
    return _titled(joined(strips, upright=True, gap=14), title)


def _frame(pixels: np.ndarray, caption: str, wrong: bool, side: int) -> Image.Image:
    color = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
    picture = ImageOps.expand(enlarged(color, side), 2, RED if wrong else FAINT)
    below = text(caption, picture.width, LETTERS, RED if wrong else INK, middle=True)
    return joined([picture, below], upright=True, gap=4, middle=True)


def _titled(body: Image.Image, title: str) -> Image.Image:
    head = text(title, max(body.width, width_of(title, TITLE)), TITLE)
    return ImageOps.expand(joined([head, body], upright=True, gap=16), MARGIN, WHITE)
