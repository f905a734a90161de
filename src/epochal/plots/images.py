"""Pictures of data, predictions and curves, drawn with Pillow and numpy alone: matplotlib would slow every start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from epochal.plots.canvas import (
    BLUES,
    FAINT,
    GREY,
    HEAT,
    INK,
    MARGIN,
    RED,
    REDS,
    RGB,
    SMALL,
    TEXT,
    TITLE,
    WHITE,
    shade,
    width_of,
    wrapped,
    write,
)

if TYPE_CHECKING:
    pass


def to_uint8(images: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """Pixels to draw, of the same shape: low becomes 0, high 255, what lies beyond is clipped, and NaN is black.

    Args:
        images: Floats of any shape.
        low: The value of black: -1 for the images of a GAN, 0 for those in [0, 1].
        high: The value of white.
    """
    if not low < high:
        raise ValueError(f"low must be less than high, but low={low} and high={high}.")
    shares = np.nan_to_num((np.asarray(images, dtype=np.float64) - low) / (high - low))
    return np.asarray(np.rint(shares.clip(0, 1) * 255), dtype=np.uint8)


def image_grid(
    images: np.ndarray,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    title: str | None = None,
    highlight: Sequence[bool] | None = None,
    side: int = 96,
) -> Image.Image:
    """Images in rows, each about two thirds of `side` to `side` pixels large; with neither captions nor highlights they stand close together.

    Args:
        images: Pixels, uint8 (N, C, H, W), C 1 or 3.
        captions: N texts to stand below; they break at line feeds and, where too wide, at blanks.
        columns: Images in a row; None chooses a number that fills the last row.
        title: A line above all.
        highlight: N flags; True, for a mistake, turns the caption red and frames the image.
        side: The most pixels of an image's longer side.
    """
    check_images(images, captions, highlight)
    pictures = [_resized(to_picture(image), side) for image in images]
    count, root, (width, height) = len(pictures), math.isqrt(len(pictures) - 1) + 1, pictures[0].size
    columns = min(columns or min(range(root, 2 * root + 1), key=lambda number: -count % number), count)
    gap = 2 if captions is None and highlight is None else 20
    lines = [[""] if captions is None else wrapped(captions[i], SMALL + 1, width + gap - 6) for i in range(count)]
    below = gap if captions is None else 17 * max(map(len, lines)) + 4 + gap
    top, right = (
        MARGIN + (36 if title else 0),
        MARGIN + max(columns * (width + gap) - gap, width_of(title or "", TITLE)),
    )
    bottom = top + math.ceil(count / columns) * (height + below) - gap
    canvas = Image.new("RGB", (right + MARGIN, bottom + MARGIN), WHITE)
    draw = ImageDraw.Draw(canvas)
    write(draw, MARGIN, MARGIN, title or "", TITLE, anchor="lt")
    for index, picture in enumerate(pictures):
        x, y = MARGIN + index % columns * (width + gap), top + index // columns * (height + below)
        wrong = highlight is not None and highlight[index]
        if wrong:
            draw.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), outline=RED, width=2)
        elif gap > 2:
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=FAINT)
        canvas.paste(picture, (x, y))
        for row, line in enumerate(lines[index]):
            write(draw, x + width / 2, y + height + 18 + 17 * row, line, SMALL + 1, RED if wrong else INK, "ms")
    return canvas


def heat_colors(values: np.ndarray, *, signed: bool = False) -> np.ndarray:
    """Colours, uint8 (..., 3): from black at 0 to yellow at 1; signed, white at 0, red up to 1, blue down to -1."""
    if signed:
        return shade((*reversed(BLUES[1:]), WHITE, *REDS[1:]), (np.asarray(values) + 1) / 2)
    return shade(HEAT, np.asarray(values))


def enlarge(pixels: np.ndarray, side: int) -> Image.Image:
    """An image of about side pixels: grown by a whole factor, each pixel sharp, or shrunk where it is larger.

    Args:
        pixels: uint8 (H, W, 3).
        side: Of the square that it fits into.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    longer = max(picture.size)
    if longer > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture
    factor = side // longer
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def text_image(content: str, width: int, size: int = SMALL + 1, color: RGB = INK, middle: bool = False) -> Image.Image:
    """Words on white, as high as they need and width pixels wide; they break at line feeds and, where too wide, at blanks."""
    lines = wrapped(content, size, width)
    canvas = Image.new("RGB", (width, (size + 4) * len(lines)), WHITE)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        x, anchor = (width / 2, "ma") if middle else (0, "la")
        write(draw, x, (size + 4) * number, line, size, color, anchor)
    return canvas


def join_images(parts: Sequence[Image.Image], *, upright: bool, gap: int, middle: bool = False) -> Image.Image:
    """Pictures on white, one beside the other or, upright, one below the other.

    Args:
        parts: At least one.
        gap: Pixels between them.
        middle: Whether their middles are in line; else their upper or left edges.
    """
    widths, heights = [part.width for part in parts], [part.height for part in parts]
    along, across = (heights, widths) if upright else (widths, heights)
    length, breadth = sum(along) + gap * (len(parts) - 1), max(across)
    canvas = Image.new("RGB", (breadth, length) if upright else (length, breadth), WHITE)
    at = 0
    for part, step, own in zip(parts, along, across):
        off = (breadth - own) // 2 if middle else 0
        canvas.paste(part, (off, at) if upright else (at, off))
        at += step + gap
    return canvas


def titled_sheet(body: Image.Image, title: str, note: str) -> Image.Image:
    """A title, below it in grey how to read what follows, and the body, with a margin around all."""
    width = max(body.width, width_of(title, TITLE))
    head = [text_image(title, width, TITLE), text_image(note, width, TEXT, GREY)]
    whole = join_images([join_images(head, upright=True, gap=4), body], upright=True, gap=16)
    return ImageOps.expand(whole, MARGIN, WHITE)


def check_images(images: np.ndarray, captions: Sequence[str] | None, highlight: Sequence[bool] | None) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size or images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 (N, 1 or 3, H, W), not {images.dtype} {images.shape}; see to_uint8.")
    for name, given in (("captions", captions), ("highlight", highlight)):
        if given is not None and len(given) != len(images):
            raise ValueError(f"{name} has {len(given)} entries for {len(images)} images.")


def to_picture(image: np.ndarray) -> Image.Image:  # uint8 (C, H, W), C 1 or 3
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)))


def _resized(picture: Image.Image, side: int) -> Image.Image:
    """Small images grow by a whole factor and keep sharp pixels; larger ones shrink; side is the most."""
    width, height = picture.size
    factor, method = side / max(picture.size), Image.Resampling.LANCZOS
    if factor >= 1:
        factor, method = int(factor), Image.Resampling.NEAREST
    return picture.resize((math.ceil(width * factor), math.ceil(height * factor)), method)
