"""Pictures of data, predictions and curves, drawn with Pillow and numpy alone: matplotlib would slow every start."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from epochal.drawing import (
    BLUES,
    FAINT,
    FINE,
    GREY,
    HEAT,
    HEIGHT,
    INK,
    LINES,
    MARGIN,
    RED,
    REDS,
    RGB,
    SMALL,
    TEXT,
    TITLE,
    WHITE,
    WIDTH,
    clipped,
    extent,
    shade,
    stroke,
    ticks,
    width_of,
    wrapped,
    write,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text


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


def grid(
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
    _check(images, captions, highlight)
    pictures = [_resized(_picture(image), side) for image in images]
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


def curves(
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


def heat(values: np.ndarray, *, signed: bool = False) -> np.ndarray:
    """Colours, uint8 (..., 3): from black at 0 to yellow at 1; signed, white at 0, red up to 1, blue down to -1."""
    if signed:
        return shade((*reversed(BLUES[1:]), WHITE, *REDS[1:]), (np.asarray(values) + 1) / 2)
    return shade(HEAT, np.asarray(values))


def enlarged(pixels: np.ndarray, side: int) -> Image.Image:
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


def text(content: str, width: int, size: int = SMALL + 1, color: RGB = INK, middle: bool = False) -> Image.Image:
    """Words on white, as high as they need and width pixels wide; they break at line feeds and, where too wide, at blanks."""
    lines = wrapped(content, size, width)
    canvas = Image.new("RGB", (width, (size + 4) * len(lines)), WHITE)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        x, anchor = (width / 2, "ma") if middle else (0, "la")
        write(draw, x, (size + 4) * number, line, size, color, anchor)
    return canvas


def joined(parts: Sequence[Image.Image], *, upright: bool, gap: int, middle: bool = False) -> Image.Image:
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


def sheet(body: Image.Image, title: str, note: str) -> Image.Image:
    """A title, below it in grey how to read what follows, and the body, with a margin around all."""
    width = max(body.width, width_of(title, TITLE))
    head = [text(title, width, TITLE), text(note, width, TEXT, GREY)]
    whole = joined([joined(head, upright=True, gap=4), body], upright=True, gap=16)
    return ImageOps.expand(whole, MARGIN, WHITE)


def in_terminal(image: np.ndarray) -> Text:
    """An image as coloured half blocks, two pixels in each character: W columns, H / 2 lines (rounded up).

    Args:
        image: Pixels, uint8 (H, W) grey or (H, W, 3) colour.
    """
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    pixels = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    text = Text(no_wrap=True)
    for y in range(0, len(pixels), 2):
        text.append("\n" if y else "")
        for upper, *lower in zip(*pixels[y : y + 2].tolist()):
            background = Color.from_rgb(*lower[0]) if lower else None  # an odd height ends with half a line
            text.append("▀", Style(color=Color.from_rgb(*upper), bgcolor=background))
    return text


def grid_in_terminal(
    images: np.ndarray,
    captions: Sequence[str] | None = None,
    columns: int = 8,
    highlight: Sequence[bool] | None = None,
) -> RenderableType:
    """Images in rows for rich to print, at most 16 characters wide each; fewer in a row where the terminal is narrow.

    Args:
        images: Pixels, uint8 (N, C, H, W), C 1 or 3.
        captions: N texts to stand below.
        columns: The most images in a row.
        highlight: N flags; True, for a mistake, writes the caption in red, False in green.
    """
    from rich.columns import Columns
    from rich.console import Group
    from rich.constrain import Constrain
    from rich.text import Text

    _check(images, captions, highlight)
    shrink = math.ceil(max(images.shape[2:]) / 16)
    width = max(math.ceil(images.shape[3] / shrink), 8)
    cells = []
    for index, image in enumerate(images):
        style = "" if highlight is None else "red" if highlight[index] else "green"
        caption = [] if captions is None else [Text(captions[index], style)]
        cells.append(Group(in_terminal(np.asarray(_picture(image).reduce(shrink))), *caption, ""))
    return Constrain(Columns(cells, padding=(0, 2), width=width), columns * (width + 2))


def _check(images: np.ndarray, captions: Sequence[str] | None, highlight: Sequence[bool] | None) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size or images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 (N, 1 or 3, H, W), not {images.dtype} {images.shape}; see to_uint8.")
    for name, given in (("captions", captions), ("highlight", highlight)):
        if given is not None and len(given) != len(images):
            raise ValueError(f"{name} has {len(given)} entries for {len(images)} images.")


def _picture(image: np.ndarray) -> Image.Image:  # uint8 (C, H, W), C 1 or 3
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)))


def _resized(picture: Image.Image, side: int) -> Image.Image:
    """Small images grow by a whole factor and keep sharp pixels; larger ones shrink; side is the most."""
    width, height = picture.size
    factor, method = side / max(picture.size), Image.Resampling.LANCZOS
    if factor >= 1:
        factor, method = int(factor), Image.Resampling.NEAREST
    return picture.resize((math.ceil(width * factor), math.ceil(height * factor)), method)
