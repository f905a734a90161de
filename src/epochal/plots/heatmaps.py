"""Attention heat maps, confusion matrices, and videos frame by frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

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
    draw_text,
    interpolate_colors,
    text_width,
    truncate,
)
from epochal.plots.images import CAPTION, enlarge, join_images, text_image, titled_sheet, to_picture

CELL = 26  # pixels of the side of a weight's cell
LABEL = 120  # pixels of the longest label
GAP = 6  # pixels between frames
RAMP = np.linspace(0, 1, 120)[None]  # (1, 120) of a colour scale
ATTENTION = (WHITE, *BLUES[1:])  # colour map of attention weights


def attention_heatmap(
    weights: Sequence[np.ndarray],
    rows: Sequence[Sequence[str]],
    columns: Sequence[Sequence[str]],
    title: str,
) -> Image.Image:
    """Heat maps, two side by side, with the tokens on the axes; from white at 0 to dark blue at 1.

    Args:
        weights: N maps, floats (T, S) in [0, 1], each of its own size.
        rows: T labels for each map: the tokens of the queries.
        columns: S labels for each map: the tokens of the keys.
        title: Above the maps.

    Raises:
        ValueError: If the shape of a map is not that of its labels.
    """
    maps = [heatmap(*each) for each in zip(weights, rows, columns, strict=True)]
    pairs = [join_images(maps[at : at + 2], vertical=False, gap=2 * MARGIN) for at in range(0, len(maps), 2)]
    return titled_sheet(join_images([*pairs, _attention_scale()], vertical=True, gap=2 * MARGIN), title)


def heatmap(weights: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """One map of `attention_heatmap`, without a margin; the labels of columns are written vertically.

    Raises:
        ValueError: If the weights have not the shape (rows, columns).
    """
    weights = np.asarray(weights)
    if weights.shape != (len(rows), len(columns)):
        raise ValueError(f"weights must have shape ({len(rows)}, {len(columns)}) for its labels, not {weights.shape}.")
    rows, columns = ([truncate(label, CAPTION, LABEL) for label in labels] for labels in (rows, columns))
    left, top = (max(text_width(label, CAPTION) for label in labels) + 8 for labels in (rows, columns))
    width, height = CELL * len(columns), CELL * len(rows)
    canvas = Image.new("RGB", (left + width + 1, top + height + 1), WHITE)
    draw = ImageDraw.Draw(canvas)
    _paste_colors(canvas, interpolate_colors(ATTENTION, weights), (left, top), (width, height))
    for row, label in enumerate(rows):
        draw.line((left, top + CELL * row, left + width, top + CELL * row), FAINT)
        draw_text(draw, left - 8, top + CELL * (row + 0.5), label, CAPTION, INK, "rm")
    for column, label in enumerate(columns):
        draw.line((left + CELL * column, top, left + CELL * column, top + height), FAINT)
        draw_text(draw, left + CELL * (column + 0.5), top - 6, label, CAPTION, INK, vertical=True)
    draw.rectangle((left, top, left + width, top + height), outline=GREY)
    return canvas


def _attention_scale() -> Image.Image:
    """The colours from 0 to 1."""
    canvas = Image.new("RGB", (230, 16), WHITE)
    draw = ImageDraw.Draw(canvas)
    draw_text(draw, 0, 8, "weight   0", SMALL, GREY, "lm")
    canvas.paste(Image.fromarray(interpolate_colors(ATTENTION, RAMP)).resize((120, 12)), (70, 2))
    draw.rectangle((69, 1, 190, 14), outline=FAINT)
    draw_text(draw, 198, 8, "1", SMALL, GREY, "lm")
    return canvas


def _paste_colors(canvas: Image.Image, colors: np.ndarray, position: tuple[int, int], size: tuple[int, int]) -> None:
    """Pastes colours, uint8 (rows, columns, 3), as sharp cells into a rectangle of the canvas."""
    canvas.paste(Image.fromarray(colors).resize(size, Image.Resampling.NEAREST), position)


def video_strips(
    videos: Sequence[np.ndarray],
    captions: Sequence[Sequence[str]],
    wrong: Sequence[Sequence[bool]] | None = None,
    *,
    side: int = 64,
    title: str,
) -> Image.Image:
    """One video a row, its frames side by side with a caption below each.

    Args:
        videos: uint8 (T, C, H, W), C 1 or 3; T may differ between videos.
        captions: T texts for each video.
        wrong: T flags for each video; True turns the caption red and frames the picture in red.
        side: The most pixels of a frame's longer side.
        title: Above the videos.
    """
    strips = []
    for number, (video, texts) in enumerate(zip(videos, captions, strict=True)):
        flags = [False] * len(video) if wrong is None else wrong[number]
        frames = [_frame(*each, side) for each in zip(video, texts, flags, strict=True)]
        strips.append(join_images(frames, vertical=False, gap=GAP))
    return titled_sheet(join_images(strips, vertical=True, gap=14), title)


def _frame(pixels: np.ndarray, caption: str, wrong: bool, side: int) -> Image.Image:
    """A frame, uint8 (C, H, W), above its caption."""
    picture = ImageOps.expand(enlarge(np.asarray(to_picture(pixels)), side), 2, RED if wrong else FAINT)
    below = text_image(caption, picture.width, CAPTION, RED if wrong else INK, centered=True)
    return join_images([picture, below], vertical=True, gap=4, centered=True)


class _MatrixLayout(NamedTuple):
    """Sizes in a picture of a confusion matrix, in pixels."""

    font: int  # size of the names of the classes
    cell: int  # side of a cell
    left: int  # of the first column
    top: int  # of the first row
    side: int  # of the matrix
    above: int  # height of the names of the columns
    vertical: bool  # whether these are written vertically


def confusion_matrix(counts: np.ndarray, names: Sequence[str], title: str | None = None) -> Image.Image:
    """Which class is taken for which: a row for each true class, a column for each predicted one.

    Colours are fractions of a row: blue on the diagonal; red for the mistakes, on a scale of their own, so that rare
    ones are visible beside it. Up to 30 classes the counts are written in the cells.

    Args:
        counts: Examples, int (K, K), counts[truth, prediction].
        names: The K classes.
        title: Above the matrix.

    Raises:
        ValueError: If counts has not the shape (K, K), or K is 0.
    """
    counts, size = np.asarray(counts), len(names)
    if not size or counts.shape != (size, size):
        raise ValueError(f"counts must have shape ({size}, {size}) for {size} names, not {counts.shape}.")
    diagonal, fractions = np.eye(size, dtype=bool), counts / counts.sum(axis=1, keepdims=True).clip(1)
    worst = max(float(fractions[~diagonal].max(initial=0)), 0.05)  # a floor, or a single mistake would be dark red
    wrong_colors = interpolate_colors(REDS, np.sqrt(fractions / worst))
    colors = np.where(diagonal[..., None], interpolate_colors(BLUES, fractions), wrong_colors)

    names, layout = _matrix_layout(names, titled=bool(title))
    left, top, side, cell = layout.left, layout.top, layout.side, layout.cell
    right = max(left + side, MARGIN + 320, MARGIN + text_width(title or "", TITLE))
    canvas = Image.new("RGB", (right + MARGIN, top + side + 60 + MARGIN), WHITE)
    _paste_colors(canvas, colors, (left, top), (side, side))
    draw = ImageDraw.Draw(canvas)
    for edge in range(cell, side, cell) if cell > 5 else ():
        draw.line((left + edge, top, left + edge, top + side - 1), FAINT)
        draw.line((left, top + edge, left + side - 1, top + edge), FAINT)
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=GREY)
    draw_text(draw, MARGIN, MARGIN, title or "", TITLE, anchor="lt")
    _draw_class_names(draw, layout, names)
    if size <= 30:
        _draw_counts(draw, layout, counts, colors)
    _draw_scales(canvas, y=top + side + 28, worst=worst)
    return canvas


def _matrix_layout(names: Sequence[str], titled: bool) -> tuple[list[str], _MatrixLayout]:
    """The names, truncated where too long, and the sizes of their matrix."""
    size = len(names)
    font = TEXT if size <= 16 else SMALL if size <= 60 else SMALL - 2
    names = [truncate(name, font, 130) for name in names]
    longest = max(text_width(name, font) for name in names)
    cell = min(max(longest + 14, min(96, 480 // size)), 840 // size) if size <= 30 else max(1200 // size, 2)
    vertical = longest + 6 > cell
    above = longest if vertical else font
    return names, _MatrixLayout(
        font=font,
        cell=cell,
        left=MARGIN + max(longest, text_width("true class", TEXT)) + 10,
        top=MARGIN + (36 if titled else 0) + TEXT + above + 20,
        side=cell * size,
        above=above,
        vertical=vertical,
    )


def _draw_class_names(draw: ImageDraw.ImageDraw, layout: _MatrixLayout, names: Sequence[str]) -> None:
    """The labels of both axes, and as many names as there is room for."""
    left, top = layout.left, layout.top
    draw_text(draw, left + layout.side / 2, top - layout.above - 20, "predicted class", TEXT, GREY, "ms")
    draw_text(draw, left - 10, top - 10, "true class", TEXT, GREY, "rs")
    for index in range(0, len(names), math.ceil((layout.font + 1) / layout.cell)):
        middle = (index + 0.5) * layout.cell
        draw_text(draw, left - 10, top + middle, names[index], layout.font, anchor="rm")
        draw_text(draw, left + middle, top - 10, names[index], layout.font, anchor="ms", vertical=layout.vertical)


def _draw_counts(draw: ImageDraw.ImageDraw, layout: _MatrixLayout, counts: np.ndarray, colors: np.ndarray) -> None:
    """The counts that are not 0, in white on dark cells, as large as fits."""
    room = layout.cell - 2
    for row, column in np.argwhere(counts):
        number, ink = counts[row, column], WHITE if colors[row, column] @ (0.299, 0.587, 0.114) < 125 else INK
        text = f"{number:,}" if text_width(f"{number:,}", 10) < room else f"{number / 1000:.3g}k"
        size = next((size for size in range(TEXT, 8, -1) if text_width(text, size) < room), 8)
        x, y = layout.left + (column + 0.5) * layout.cell, layout.top + (row + 0.5) * layout.cell
        draw_text(draw, x, y, text, size, ink, "mm")


def _draw_scales(canvas: Image.Image, y: int, worst: float) -> None:
    """The colours of right predictions, up to a whole row, and of wrong ones, up to the fraction worst of a row."""
    draw = ImageDraw.Draw(canvas)
    right_colors, wrong_colors = interpolate_colors(BLUES, RAMP), interpolate_colors(REDS, np.sqrt(RAMP))
    for name, bar, most in (("right", right_colors, 1.0), ("wrong", wrong_colors, worst)):
        draw_text(draw, MARGIN, y, f"{name}   0 %", SMALL, GREY, "lm")
        canvas.paste(Image.fromarray(bar).resize((120, 12)), (MARGIN + 76, y - 6))
        draw.rectangle((MARGIN + 75, y - 7, MARGIN + 196, y + 6), outline=FAINT)
        draw_text(draw, MARGIN + 206, y, f"{100 * most:.3g} % of a row", SMALL, GREY, "lm")
        y += 24
