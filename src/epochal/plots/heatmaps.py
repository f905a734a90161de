"""Pictures of sequences: where each token comes from, and films frame by frame."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from epochal.plots.canvas import (
    BLUES,
    FAINT,
    GREY,
    INK,
    MARGIN,
    RED,
    REDS,
    SMALL,
    TEXT,
    TITLE,
    WHITE,
    clipped,
    shade,
    width_of,
    write,
)
from epochal.plots.images import enlarge, join_images, text_image

CELL = 26  # pixels of a weight
LABEL = 120  # pixels of the longest label
LETTERS = SMALL + 1
GAP = 6  # between frames


def attention_heatmap(
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
    maps = [heatmap(*each) for each in zip(weights, rows, columns, strict=True)]
    pairs = [join_images(maps[at : at + 2], upright=False, gap=2 * MARGIN) for at in range(0, len(maps), 2)]
    body = join_images([*pairs, _scale()], upright=True, gap=2 * MARGIN)
    return _titled(body, title)


def heatmap(weights: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """One map of `attention_heatmap`, without a margin; labels of columns stand upright."""
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


def video_strips(
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
        strips.append(join_images(parts, upright=False, gap=GAP))
    return _titled(join_images(strips, upright=True, gap=14), title)


def _frame(pixels: np.ndarray, caption: str, wrong: bool, side: int) -> Image.Image:
    color = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
    picture = ImageOps.expand(enlarge(color, side), 2, RED if wrong else FAINT)
    below = text_image(caption, picture.width, LETTERS, RED if wrong else INK, middle=True)
    return join_images([picture, below], upright=True, gap=4, middle=True)


def _titled(body: Image.Image, title: str) -> Image.Image:
    head = text_image(title, max(body.width, width_of(title, TITLE)), TITLE)
    return ImageOps.expand(join_images([head, body], upright=True, gap=16), MARGIN, WHITE)


def confusion_matrix(counts: np.ndarray, names: Sequence[str], title: str | None = None) -> Image.Image:
    """Which class is taken for which: a row for each true class, a column for each predicted one.

    Colours are shares of a row: blue on the diagonal; red for the mistakes, on a scale of their own, so that rare ones
    are seen beside it. Up to 30 classes the counts stand in the cells.

    Args:
        counts: Examples, int (K, K), counts[truth, prediction].
        names: The K classes.
        title: A line above all.
    """
    counts, size = np.asarray(counts), len(names)
    if not size or counts.shape != (size, size):
        raise ValueError(f"counts must have shape ({size}, {size}) for {size} names, not {counts.shape}.")
    diagonal, shares = np.eye(size, dtype=bool), counts / counts.sum(axis=1, keepdims=True).clip(1)
    worst = max(float(shares[~diagonal].max(initial=0)), 0.05)  # a floor, or a single mistake would glow
    colors = np.where(diagonal[..., None], shade(BLUES, shares), shade(REDS, np.sqrt(shares / worst)))

    letters = TEXT if size <= 16 else SMALL if size <= 60 else SMALL - 2
    names = [clipped(name, letters, 130) for name in names]
    corner, longest = width_of("true class", TEXT), max(width_of(name, letters) for name in names)
    cell = min(max(longest + 14, min(96, 480 // size)), 840 // size) if size <= 30 else max(1200 // size, 2)
    upright = longest + 6 > cell
    left, side, above = MARGIN + max(longest, corner) + 10, cell * size, longest if upright else letters
    top = MARGIN + (36 if title else 0) + TEXT + above + 20
    right = max(left + side, MARGIN + 320, MARGIN + width_of(title or "", TITLE))
    canvas = Image.new("RGB", (right + MARGIN, top + side + 60 + MARGIN), WHITE)
    canvas.paste(Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST), (left, top))
    draw = ImageDraw.Draw(canvas)
    for edge in range(cell, side, cell) if cell > 5 else ():
        draw.line((left + edge, top, left + edge, top + side - 1), FAINT)
        draw.line((left, top + edge, left + side - 1, top + edge), FAINT)
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=GREY)

    write(draw, MARGIN, MARGIN, title or "", TITLE, anchor="lt")
    write(draw, left + side / 2, top - above - 20, "predicted class", TEXT, GREY, "ms")
    write(draw, left - 10, top - 10, "true class", TEXT, GREY, "rs")
    for index in range(0, size, math.ceil((letters + 1) / cell)):  # names every class, if there is room
        middle = (index + 0.5) * cell
        write(draw, left - 10, top + middle, names[index], letters, anchor="rm")
        write(draw, left + middle, top - 10, names[index], letters, anchor="ms", upright=upright)
    for row, column in np.argwhere(counts) if size <= 30 else ():
        number, ink = counts[row, column], WHITE if colors[row, column] @ (0.299, 0.587, 0.114) < 125 else INK
        text = f"{number:,}" if width_of(f"{number:,}", 10) < cell - 2 else f"{number / 1000:.3g}k"
        fitting = next((points for points in range(TEXT, 8, -1) if width_of(text, points) < cell - 2), 8)
        write(draw, left + (column + 0.5) * cell, top + (row + 0.5) * cell, text, fitting, ink, "mm")

    ramp, y = np.linspace(0, 1, 120)[None], top + side + 28
    for name, bar, most in ("right", shade(BLUES, ramp), 1.0), ("wrong", shade(REDS, np.sqrt(ramp)), worst):
        write(draw, MARGIN, y, f"{name}   0 %", SMALL, GREY, "lm")
        canvas.paste(Image.fromarray(bar).resize((120, 12)), (MARGIN + 76, y - 6))
        draw.rectangle((MARGIN + 75, y - 7, MARGIN + 196, y + 6), outline=FAINT)
        write(draw, MARGIN + 206, y, f"{100 * most:.3g} % of a row", SMALL, GREY, "lm")
        y += 24
    return canvas
