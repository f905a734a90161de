"""One encoded picture of any kind to plain pixels: upright, on white, 8 bits a channel, grey or RGB."""

from __future__ import annotations

import io
import re
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from epochal.core.errors import ConfigError

DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # Pillow's modes of one channel with more than 8 bits
GREY = (*DEEP, "1", "L", "LA", "La")
BIT_DEPTHS = (8, 10, 12, 14, 16)  # of cameras and scanners; stored in 16 bits, the upper ones are 0
WHITE = "white"
ORIENTATION = 0x0112  # EXIF tag
SIXTEEN = re.compile(r"(RGB[AX]?;16)([LBN])")  # Pillow's names of colours of 16 bits, and the order of their two bytes
PNG = b"\x89PNG\r\n\x1a\n"
PNG_NOTES = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")  # colour profile and texts, which the pixels do not need


def errors() -> tuple[type[Exception], ...]:
    """What Pillow raises on a file that is damaged or larger than its bound."""
    from PIL import Image

    damaged = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error)
    return (*damaged, zlib.error, Image.DecompressionBombError)


def fault(error: BaseException) -> str:
    """What is wrong with the file, for a sentence that begins with its name."""
    from PIL import Image

    if isinstance(error, Image.DecompressionBombError):
        return f"has more than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels that an image may have"
    if isinstance(error, FileNotFoundError | PermissionError):
        return f"cannot be read ({error.strerror})"
    return "cannot be decoded"


def open_picture(content: Any) -> Any:
    """A PIL image, not decoded yet.

    Args:
        content: Path, or the encoded bytes.

    Raises:
        errors(): If it is no picture, damaged, or above Pillow's bound of pixels.
    """
    from PIL import Image

    with warnings.catch_warnings():  # of pictures that are large, but read
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
        except ValueError:  # a colour profile or text that unpacks to more than Pillow's bound
            content = _bytes(content)
            if not content.startswith(PNG):
                raise
            content = _without_notes(content)
            image = Image.open(io.BytesIO(content))
        if image.format == "TIFF" and not isinstance(content, bytes) and image.getexif().get(ORIENTATION, 1) > 4:
            # Pillow scrambles the pixels of one that lies on its side when it maps the file into memory
            image.close()
            content = _bytes(content)
            image = Image.open(io.BytesIO(content))
        if any(SIXTEEN.fullmatch(_raw_mode(tile)) for tile in image.tile):
            lower = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
            lower.tile = [_swapped(tile) for tile in lower.tile]
            image.lower_bytes = lower  # type: ignore[attr-defined]
        return image


def _raw_mode(tile: Any) -> str:
    """How the pixels of a part of a file are stored, as Pillow calls it."""
    return str(tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args)


def _swapped(tile: Any) -> Any:
    """The part of a file, of whose 16-bit colours Pillow, which keeps 8 bits, will keep the lower ones."""
    order = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    mode = SIXTEEN.sub(lambda found: found[1] + order[found[2]], _raw_mode(tile))
    return tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode)


def _bytes(content: Any) -> bytes:
    return content if isinstance(content, bytes) else Path(content).read_bytes()


def _without_notes(png: bytes) -> bytes:
    """The PNG file without its colour profile and texts."""
    parts, start = [PNG], len(PNG)
    while start + 8 <= len(png):
        (length,) = struct.unpack(">I", png[start : start + 4])
        end = start + 12 + length  # length, type, content, checksum
        if png[start + 4 : start + 8] not in PNG_NOTES:
            parts.append(png[start:end])
        start = end
    return b"".join(parts)


def _orientation(image: Any) -> int:
    """EXIF's orientation, 1 to 8. Not of TIFF files, which Pillow turns by itself."""
    if image.format == "TIFF" or not {"exif", "xmp", "XML:com.adobe.xmp"} & set(image.info):
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except errors():  # damaged notes do not make the pixels wrong
        return 1


def upright_size(image: Any) -> tuple[int, int]:
    """(width, height) as the picture is shown."""
    width, height = image.size
    return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def is_deep(image: Any) -> bool:
    """Whether it has more than 8 bits a channel."""
    return image.mode in DEEP or hasattr(image, "lower_bytes")


def _values(image: Any) -> np.ndarray:
    """Of a deep picture: (H, W), or (H, W, 3 or 4) of colours."""
    values = np.asarray(image)
    return values.astype(np.uint16) << 8 | np.asarray(image.lower_bytes) if hasattr(image, "lower_bytes") else values


def extremes(image: Any) -> tuple[float, float]:
    """Least and greatest value of a deep picture, not counting alpha.

    Raises:
        ValueError: If it has values that are no numbers.
    """
    values = _values(image)
    values = values[..., :3] if values.ndim == 3 else values
    if not np.isfinite(values).all():
        raise ValueError("pixels that are no numbers")
    return float(values.min()), float(values.max())


def value_range(low: float, high: float, floats: bool) -> tuple[float, float]:
    """The values of black and white in a set of pictures whose values go from low to high.

    Integers: the least usual depth that holds them; floats: [0, 1] or [0, 255]; low and high where that does not fit.
    """
    usual = (1.0, 255.0) if floats else tuple(2.0**bits - 1 for bits in BIT_DEPTHS)
    white = next((white for white in usual if high <= white), None) if low >= 0 else None
    return (low, high) if white is None else (0.0, white)


def _to_8_bits(image: Any, span: tuple[float, float]) -> Any:
    """A deep picture in mode "L", "RGB" or "RGBA"; span is black and white."""
    from PIL import Image

    values = _values(image)
    alpha = values[..., 3:] >> 8 if values.ndim == 3 else None
    values = values if alpha is None else values[..., :3]
    low, high = span
    if low == 0 and (int(high) + 1).bit_length() - 1 in BIT_DEPTHS and image.mode != "F":
        shift = (int(high) + 1).bit_length() - 9  # the upper 8 bits
        scaled = values.astype(np.int64).clip(0, int(high)) >> shift
    else:
        scaled = ((values.astype(np.float64) - low) * (255 / max(high - low, 1e-12))).round().clip(0, 255)
    scaled = scaled.astype(np.uint8)
    return Image.fromarray(scaled if alpha is None else np.concatenate([scaled, alpha.astype(np.uint8)], axis=2))


def check_color(option: str, color: Any) -> None:
    """Raises ConfigError unless it is a colour by its name or number in CSS."""
    from PIL import ImageColor

    try:
        known = isinstance(color, str) and len(ImageColor.getrgb(color)) == 3
    except ValueError:
        known = False
    if not known:
        raise ConfigError(f"{option}={color} is no colour; give a name, or red, green and blue as in '#ff8000'.")


def plain(image: Any, mode: str, span: tuple[float, float] | None = None, background: str = WHITE) -> Any:
    """The picture upright, on a background where it is transparent, in mode "L" or "RGB".

    Args:
        span: The values of black and white in pictures with more than 8 bits, see `value_range`; None: as they are
            in this picture alone.
        background: A colour by its name in CSS, or "#rrggbb".

    Raises:
        errors(): If it is damaged.
    """
    from PIL import Image, ImageOps

    turned = _orientation(image) != 1
    if is_deep(image):
        low, high = extremes(image)
        exif = image.info.get("exif")
        image = _to_8_bits(image, span or value_range(low, high, image.mode == "F"))
        if turned and exif:
            image.info["exif"] = exif
    if turned:
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert(mode)
