"""Pictures made of images, drawn with Pillow and numpy alone: matplotlib would slow down every start."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

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
    draw_text,
    interpolate_colors,
    text_width,
    wrap,
)

CAPTION = SMALL + 1  # font size, in pixels
LINE = 17  # pixels of height of a line of a caption


def to_uint8(images: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """Pixels to draw: low becomes 0, high 255, what lies beyond is clipped, and NaN becomes 0.

    Args:
        images: Floats of any shape.
        low: The value of black: -1 for the images of a GAN, 0 for those in [0, 1].
        high: The value of white.

    Returns:
        uint8, of the same shape.

    Raises:
        ValueError: If low is not less than high.
    """
    if not low < high:
        raise ValueError(f"low must be less than high, but low={low} and high={high}.")
    fractions = np.nan_to_num((np.asarray(images, dtype=np.float64) - low) / (high - low))
    return np.asarray(np.rint(fractions.clip(0, 1) * 255), dtype=np.uint8)


def image_grid(
    images: np.ndarray,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    title: str | None = None,
    highlight: Sequence[bool] | None = None,
    side: int = 96,
) -> Image.Image:
    """Images in rows, close together if they have neither captions nor highlights.

    The longer side of each image measures two thirds of `side` to `side` pixels.

    Args:
        images: Pixels, uint8 (N, C, H, W), C 1 or 3.
        captions: N texts to write below; they break at line feeds and, where too wide, between words.
        columns: Images in a row; None chooses a number that fills the last row.
        title: Above the grid.
        highlight: N flags; True, for a mistake, turns the caption red and frames the image.
        side: The most pixels of an image's longer side.

    Raises:
        ValueError: If the images have another shape or type, or captions or highlights are not N.
    """
    check_images(images, captions, highlight)
    pictures = [_resized(to_picture(image), side) for image in images]
    count, (width, height) = len(pictures), pictures[0].size
    columns = min(columns or _filling_columns(count), count)
    gap = 2 if captions is None and highlight is None else 20
    lines = [[""]] * count if captions is None else [wrap(text, CAPTION, width + gap - 6) for text in captions]
    below = gap if captions is None else LINE * max(map(len, lines)) + 4 + gap  # pixels to the next row of images
    top = MARGIN + (36 if title else 0)
    bottom = top + math.ceil(count / columns) * (height + below) - gap
    right = MARGIN + max(columns * (width + gap) - gap, text_width(title or "", TITLE))

    canvas = Image.new("RGB", (right + MARGIN, bottom + MARGIN), WHITE)
    draw = ImageDraw.Draw(canvas)
    draw_text(draw, MARGIN, MARGIN, title or "", TITLE, anchor="lt")
    for index, picture in enumerate(pictures):
        x, y = MARGIN + index % columns * (width + gap), top + index // columns * (height + below)
        wrong = highlight is not None and highlight[index]
        if wrong:
            draw.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), outline=RED, width=2)
        elif gap > 2:
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=FAINT)
        canvas.paste(picture, (x, y))
        for row, line in enumerate(lines[index]):
            draw_text(draw, x + width / 2, y + height + 18 + LINE * row, line, CAPTION, RED if wrong else INK, "ms")
    return canvas


def heat_colors(values: np.ndarray, *, signed: bool = False) -> np.ndarray:
    """Colours of a heat map.

    Args:
        values: Of any shape (...); in [0, 1], from black to yellow, or
        signed: in [-1, 1], from blue over white at 0 to red.

    Returns:
        uint8 (..., 3).
    """
    if signed:
        return interpolate_colors((*reversed(BLUES[1:]), WHITE, *REDS[1:]), (np.asarray(values) + 1) / 2)
    return interpolate_colors(HEAT, np.asarray(values))


def enlarge(pixels: np.ndarray, side: int) -> Image.Image:
    """Scales an image up by the largest whole factor that fits, with sharp pixels, or down if it is larger.

    Args:
        pixels: uint8 (H, W, 3).
        side: Pixels of the square that the result fits into.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    longer = max(picture.size)
    if longer > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture
    factor = side // longer
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def text_image(content: str, width: int, size: int = CAPTION, color: RGB = INK, centered: bool = False) -> Image.Image:
    """Text on white, width pixels wide; it breaks at line feeds and, where too wide, between words."""
    lines = wrap(content, size, width)
    canvas = Image.new("RGB", (width, (size + 4) * len(lines)), WHITE)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        x, anchor = (width / 2, "ma") if centered else (0, "la")
        draw_text(draw, x, (size + 4) * number, line, size, color, anchor)
    return canvas


def join_images(parts: Sequence[Image.Image], *, vertical: bool, gap: int, centered: bool = False) -> Image.Image:
    """Pictures on white, side by side or one below the other.

    Args:
        parts: At least one.
        vertical: Whether they stand one below the other.
        gap: Pixels between them.
        centered: Whether their centres are aligned, instead of their upper (or left) edges.
    """
    widths, heights = [part.width for part in parts], [part.height for part in parts]
    along, across = (heights, widths) if vertical else (widths, heights)
    length, breadth = sum(along) + gap * (len(parts) - 1), max(across)
    canvas = Image.new("RGB", (breadth, length) if vertical else (length, breadth), WHITE)
    position = 0
    for part, part_length, part_breadth in zip(parts, along, across):
        offset = (breadth - part_breadth) // 2 if centered else 0
        canvas.paste(part, (offset, position) if vertical else (position, offset))
        position += part_length + gap
    return canvas


def titled_sheet(body: Image.Image, title: str, note: str | None = None) -> Image.Image:
    """A picture with a margin, a title and, in grey below it, a note on how to read the picture."""
    width = max(body.width, text_width(title, TITLE))
    head = text_image(title, width, TITLE)
    if note is not None:
        head = join_images([head, text_image(note, width, TEXT, GREY)], vertical=True, gap=4)
    return ImageOps.expand(join_images([head, body], vertical=True, gap=16), MARGIN, WHITE)


def animation(frames: Sequence[tuple[str, Image.Image]]) -> bytes:
    """Captions and pictures of one size, one after the other, as a GIF that repeats itself.

    Args:
        frames: In order; the last is shown for two seconds, the others for a third of one.
    """
    canvases = []
    for caption, picture in frames:
        canvas = Image.new("RGB", (picture.width, picture.height + LINE), WHITE)
        canvas.paste(picture, (0, 0))
        draw_text(ImageDraw.Draw(canvas), MARGIN, picture.height + LINE / 2, caption, CAPTION, anchor="lm")
        canvases.append(canvas)
    durations = [333] * (len(canvases) - 1) + [2000]  # milliseconds
    stream = io.BytesIO()
    canvases[0].save(
        stream, "GIF", save_all=True, append_images=canvases[1:], duration=durations, loop=0, optimize=True
    )
    return stream.getvalue()


def check_images(images: np.ndarray, captions: Sequence[str] | None, highlight: Sequence[bool] | None) -> None:
    """Checks the arguments of a grid.

    Raises:
        ValueError: If images is not uint8 (N, 1 or 3, H, W), or one of the others has not N entries.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size or images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 (N, 1 or 3, H, W), not {images.dtype} {images.shape}; see to_uint8.")
    for name, given in (("captions", captions), ("highlight", highlight)):
        if given is not None and len(given) != len(images):
            raise ValueError(f"{name} has {len(given)} entries for {len(images)} images.")


def to_picture(image: np.ndarray) -> Image.Image:
    """Pixels, uint8 (C, H, W), C 1 or 3, as an RGB image."""
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)))


def _filling_columns(count: int) -> int:
    """How many images to put in a row so that few places of the last one stay empty: sqrt(count) to twice as many."""
    root = math.isqrt(count - 1) + 1
    return min(range(root, 2 * root + 1), key=lambda number: -count % number)


def _resized(picture: Image.Image, side: int) -> Image.Image:
    """Scales up by a whole factor, with sharp pixels, or down; the longer side has at most `side` pixels."""
    width, height = picture.size
    factor, method = side / max(picture.size), Image.Resampling.LANCZOS
    if factor >= 1:
        factor, method = int(factor), Image.Resampling.NEAREST
    return picture.resize((math.ceil(width * factor), math.ceil(height * factor)), method)
