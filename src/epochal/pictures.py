"""Pictures of data, predictions and curves, drawn with Pillow and numpy alone: matplotlib would slow every start."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

RGB = tuple[int, int, int]
WHITE, INK, GREY, FAINT, RED = (255, 255, 255), (34, 34, 34), (105, 105, 105), (226, 226, 226), (200, 30, 30)
LINES = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), INK)  # Okabe-Ito
BLUES = ((244, 248, 252), (158, 202, 225), (49, 130, 189), (8, 56, 112))  # from none of a row to all of it
REDS = ((255, 255, 255), (253, 212, 158), (239, 101, 72), (153, 0, 13))
HEAT = ((0, 0, 0), (88, 20, 110), (190, 50, 85), (245, 140, 20), (255, 250, 160))  # from nothing to the most
MARGIN, TITLE, TEXT, SMALL = 24, 20, 14, 12  # pixels: the white around every picture, and the sizes of its texts
WIDTH, HEIGHT, FINE = 960, 560, 3  # of curves: drawn FINE times larger, then shrunk, which smooths the lines


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
) -> Image.Image:
    """Images in rows, each about 64 to 96 pixels large; with neither captions nor highlights they stand close together.

    Args:
        images: Pixels, uint8 (N, C, H, W), C 1 or 3.
        captions: N texts to stand below; they break at line feeds and, where too wide, at blanks.
        columns: Images in a row; None chooses a number that fills the last row.
        title: A line above all.
        highlight: N flags; True, for a mistake, turns the caption red and frames the image.
    """
    _check(images, captions, highlight)
    pictures = [_resized(_picture(image)) for image in images]
    count, root, (width, height) = len(pictures), math.isqrt(len(pictures) - 1) + 1, pictures[0].size
    columns = min(columns or min(range(root, 2 * root + 1), key=lambda number: -count % number), count)
    gap = 2 if captions is None and highlight is None else 20
    lines = [[""] if captions is None else _wrapped(captions[i], SMALL + 1, width + gap - 6) for i in range(count)]
    below = gap if captions is None else 17 * max(map(len, lines)) + 4 + gap
    top, right = MARGIN + (36 if title else 0), MARGIN + max(columns * (width + gap) - gap, _width(title or "", TITLE))
    bottom = top + math.ceil(count / columns) * (height + below) - gap
    canvas = Image.new("RGB", (right + MARGIN, bottom + MARGIN), WHITE)
    draw = ImageDraw.Draw(canvas)
    _write(draw, MARGIN, MARGIN, title or "", TITLE, anchor="lt")
    for index, picture in enumerate(pictures):
        x, y = MARGIN + index % columns * (width + gap), top + index // columns * (height + below)
        wrong = highlight is not None and highlight[index]
        if wrong:
            draw.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), outline=RED, width=2)
        elif gap > 2:
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=FAINT)
        canvas.paste(picture, (x, y))
        for row, line in enumerate(lines[index]):
            _write(draw, x + width / 2, y + height + 18 + 17 * row, line, SMALL + 1, RED if wrong else INK, "ms")
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
    colors = np.where(diagonal[..., None], _shade(BLUES, shares), _shade(REDS, np.sqrt(shares / worst)))

    letters = TEXT if size <= 16 else SMALL if size <= 60 else SMALL - 2
    names = [_clipped(name, letters, 130) for name in names]
    corner, longest = _width("true class", TEXT), max(_width(name, letters) for name in names)
    cell = min(max(longest + 14, min(96, 480 // size)), 840 // size) if size <= 30 else max(1200 // size, 2)
    upright = longest + 6 > cell
    left, side, above = MARGIN + max(longest, corner) + 10, cell * size, longest if upright else letters
    top = MARGIN + (36 if title else 0) + TEXT + above + 20
    right = max(left + side, MARGIN + 320, MARGIN + _width(title or "", TITLE))
    canvas = Image.new("RGB", (right + MARGIN, top + side + 60 + MARGIN), WHITE)
    canvas.paste(Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST), (left, top))
    draw = ImageDraw.Draw(canvas)
    for edge in range(cell, side, cell) if cell > 5 else ():
        draw.line((left + edge, top, left + edge, top + side - 1), FAINT)
        draw.line((left, top + edge, left + side - 1, top + edge), FAINT)
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=GREY)

    _write(draw, MARGIN, MARGIN, title or "", TITLE, anchor="lt")
    _write(draw, left + side / 2, top - above - 20, "predicted class", TEXT, GREY, "ms")
    _write(draw, left - 10, top - 10, "true class", TEXT, GREY, "rs")
    for index in range(0, size, math.ceil((letters + 1) / cell)):  # names every class, if there is room
        middle = (index + 0.5) * cell
        _write(draw, left - 10, top + middle, names[index], letters, anchor="rm")
        _write(draw, left + middle, top - 10, names[index], letters, anchor="ms", upright=upright)
    for row, column in np.argwhere(counts) if size <= 30 else ():
        number, ink = counts[row, column], WHITE if colors[row, column] @ (0.299, 0.587, 0.114) < 125 else INK
        text = f"{number:,}" if _width(f"{number:,}", 10) < cell - 2 else f"{number / 1000:.3g}k"
        fitting = next((points for points in range(TEXT, 8, -1) if _width(text, points) < cell - 2), 8)
        _write(draw, left + (column + 0.5) * cell, top + (row + 0.5) * cell, text, fitting, ink, "mm")

    ramp, y = np.linspace(0, 1, 120)[None], top + side + 28
    for name, bar, most in ("right", _shade(BLUES, ramp), 1.0), ("wrong", _shade(REDS, np.sqrt(ramp)), worst):
        _write(draw, MARGIN, y, f"{name}   0 %", SMALL, GREY, "lm")
        canvas.paste(Image.fromarray(bar).resize((120, 12)), (MARGIN + 76, y - 6))
        draw.rectangle((MARGIN + 75, y - 7, MARGIN + 196, y + 6), outline=FAINT)
        _write(draw, MARGIN + 206, y, f"{100 * most:.3g} % of a row", SMALL, GREY, "lm")
        y += 24
    return canvas


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, x_label: str, y_label: str
) -> Image.Image:
    """Lines in one pair of axes, 960 x 560 pixels, in colours that the colour-blind can tell apart.

    Args:
        series: The name of each line, and its x and y values; points that are NaN or infinite are left out.
        title: A line above all.
        x_label: What x is, and its unit.
        y_label: What y is, and its unit.
    """
    lines, legend, x, y = [], [], MARGIN, MARGIN + 42  # the legend takes as many rows as it needs
    for name, values in series.items():
        line = np.array(values, dtype=float).T
        line = line[np.isfinite(line).all(axis=1)]  # (T, 2)
        name = _clipped(name if len(line) else f"{name} (no finite values)", TEXT, 400)
        if x > MARGIN and x + 34 + _width(name, TEXT) > WIDTH - MARGIN:
            x, y = MARGIN, y + 24
        lines.append(line)
        legend.append((x, y, name))
        x += 34 + _width(name, TEXT) + 28

    points = np.concatenate([np.empty((0, 2)), *lines])
    (x_low, x_high), (y_low, y_high) = _range(points[:, 0]), _range(points[:, 1])
    x_ticks, x_texts = _ticks(x_low, x_high, 8, whole=bool((points[:, 0] % 1 == 0).all()))
    y_ticks, y_texts = _ticks(0 if 0 < y_low < y_high / 3 else y_low, y_high, 6, beyond=True)
    low, high = np.array([x_low, y_ticks[0]]), np.array([x_high, y_ticks[-1]])
    left, right = MARGIN + max(_width(text, TEXT) for text in y_texts) + 12, WIDTH - MARGIN - 16
    top, bottom = y + 66, HEIGHT - MARGIN - 50

    def place(points: Any) -> Any:  # (T, 2) values -> (T, 2) pixels
        return (np.asarray(points) - low) / (high - low) * (right - left, top - bottom) + (left, bottom)

    across, up = place([(tick, low[1]) for tick in x_ticks])[:, 0], place([(low[0], tick) for tick in y_ticks])[:, 1]
    canvas = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), WHITE)
    draw = ImageDraw.Draw(canvas)
    for y in up:
        _line(draw, [(left, y), (right, y)], FAINT, 1)
    for x in across:
        _line(draw, [(x, bottom), (x, bottom + 5)], GREY, 1)
    _line(draw, [(left, bottom), (right, bottom)], GREY, 1)
    for index, (line, (x, y, _)) in enumerate(zip(lines, legend)):
        color, dashed, line = LINES[index % len(LINES)], index // len(LINES) % 2 == 1, place(line)
        _line(draw, [(x, y), (x + 26, y)], color, 2.2, dashed)
        _line(draw, line, color, 2.2 if len(line) < 1500 else 1.4, dashed)
        for center in line * FINE if len(line) <= 30 else ():
            draw.ellipse((*(center - 3.6 * FINE), *(center + 3.6 * FINE)), color)

    canvas = canvas.reduce(FINE)
    draw = ImageDraw.Draw(canvas)
    _write(draw, MARGIN, MARGIN, _clipped(title, TITLE, WIDTH - 2 * MARGIN), TITLE, anchor="lt")
    _write(draw, MARGIN, top - 20, y_label, TEXT, GREY)
    _write(draw, (left + right) / 2, HEIGHT - MARGIN, x_label, TEXT, GREY, "ms")
    for x, y, name in legend:
        _write(draw, x + 34, y, name, TEXT, anchor="lm")
    for x, text in zip(across, x_texts):
        _write(draw, x, bottom + 22, text, TEXT, GREY, "ms")
    for y, text in zip(up, y_texts):
        _write(draw, left - 10, y, text, TEXT, GREY, "rm")
    return canvas


def heat(values: np.ndarray, *, signed: bool = False) -> np.ndarray:
    """Colours, uint8 (..., 3): from black at 0 to yellow at 1; signed, white at 0, red up to 1, blue down to -1."""
    if signed:
        return _shade((*reversed(BLUES[1:]), WHITE, *REDS[1:]), (np.asarray(values) + 1) / 2)
    return _shade(HEAT, np.asarray(values))


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
    lines = _wrapped(content, size, width)
    canvas = Image.new("RGB", (width, (size + 4) * len(lines)), WHITE)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        x, anchor = (width / 2, "ma") if middle else (0, "la")
        _write(draw, x, (size + 4) * number, line, size, color, anchor)
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
    width = max(body.width, _width(title, TITLE))
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


def _resized(picture: Image.Image) -> Image.Image:
    """Small images grow by a whole factor and keep sharp pixels; larger ones shrink; 96 pixels is the most."""
    width, height = picture.size
    factor, method = 96 / max(picture.size), Image.Resampling.LANCZOS
    if factor >= 1:
        factor, method = int(factor), Image.Resampling.NEAREST
    return picture.resize((math.ceil(width * factor), math.ceil(height * factor)), method)


def _shade(stops: Sequence[RGB], shares: np.ndarray) -> np.ndarray:
    """Colours between the stops, uint8 (..., 3), for shares in [0, 1]."""
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(shares, at, channel) for channel in zip(*stops)], axis=-1).round().astype(np.uint8)


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    distinct = high - low > 1e-9 * max(abs(low), abs(high))
    return (low, high) if distinct else (low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1))


def _ticks(
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


def _line(draw: ImageDraw.ImageDraw, path: Any, color: RGB, width: float, dashed: bool = False) -> None:
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
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _plain(text: str) -> str:
    """Without accents, which the built-in font lacks."""
    return "".join(letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter))


def _width(text: str, size: int) -> int:
    return math.ceil(_font(size).getlength(_plain(text)))


def _clipped(text: str, size: int, width: int) -> str:
    """The text, or as much of it as fits into width pixels, and an ellipsis."""
    if _width(text, size) <= width:
        return text
    return text[: bisect(range(1, len(text)), width, key=lambda end: _width(text[:end] + "…", size))] + "…"


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """Lines of at most width pixels, broken between words; a word that is too wide alone is clipped."""
    lines = []
    for words in map(str.split, text.split("\n")):
        line = ""
        for word in words:
            if line and _width(f"{line} {word}", size) > width:
                lines.append(line)
                line = ""
            line = f"{line} {word}".strip()
        lines.append(line)
    return [_clipped(line, size, width) for line in lines]


def _write(
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
        draw.text((x, y), _plain(text), color, _font(size), anchor)
        return
    mask = Image.new("L", (_width(text, size), size + 4))
    ImageDraw.Draw(mask).text((0, mask.height / 2), _plain(text), 255, _font(size), "lm")
    mask = mask.rotate(90, expand=True)
    draw.bitmap((round(x - mask.width / 2), round(y - mask.height)), mask, color)
