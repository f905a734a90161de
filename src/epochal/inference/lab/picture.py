"""Pictures that the page sends and shows: files, drawings and a run's test pictures as pixels that its network reads."""

from __future__ import annotations

import base64
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from epochal.core.errors import ConfigError
from epochal.core.specs import Images
from epochal.data import pictures
from epochal.data.image_decoding import to_pixels
from epochal.inference.lab.server import text, whole
from epochal.inference.notebook import LoadedRun
from epochal.training.factories import new_data

MOST_PIXELS = 40_000_000  # of a file; its header is asked before it is decoded
MOST_NUMBER = 10**9  # of a test picture
MOST_SIDE = 512  # of a drawing
MOST_CHARACTERS = 8_000_000  # of a picture in a request, in base64
THUMBNAIL, SHELF = 64, 30  # pixels of the shorter side, and how many test pictures are shown at once
CENTRED = 64  # pixels of the side up to which grey data are taken for digits and the like
DIGIT = 20 / 28  # of the picture's side that MNIST's makers gave to a digit's longer side
SMALL = 16  # pixels of the side up to which a digit fills the picture, as in dataset=digits

_prepared: weakref.WeakKeyDictionary[LoadedRun, Any] = weakref.WeakKeyDictionary()  # data with their rows


def with_rows(loaded: LoadedRun) -> Any:
    """The run's data with their rows, read as in an evaluation.

    Raises:
        ConfigError: If they are no longer there.
    """
    if loaded not in _prepared:
        data = new_data(loaded.config, loaded.data_state)
        data.prepare()
        _prepared[loaded] = data
    return _prepared[loaded]


def thumbnails(images: Tensor) -> dict[str, Any]:
    """Small versions of pictures (N, C, H, W) for a page: their shape and bytes."""
    images = images.float()
    height, width = images.shape[2:]
    if (shorter := min(height, width)) > THUMBNAIL:
        size = height * THUMBNAIL // shorter, width * THUMBNAIL // shorter
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return {"shape": list(images.shape[1:]), "pixels": packed(images)}


def picture_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The picture of a request.

    Raises:
        ConfigError: If it is no object; what is in it is checked where it is read.
    """
    picture = data.get("picture")
    if not isinstance(picture, dict):
        raise ConfigError("picture must be an object with test, pixels, or drawn and width.")
    return picture


def sent(picture: Mapping[str, Any], spec: Images, *, centre: bool, bright: bool) -> Tensor:
    """A picture of a request that is no test picture, uint8 (C, H, W).

    Args:
        picture: In base64 {"drawn": grey pixels, row by row, white ink on black, "width": of a row}, or {"pixels": (C, H, W)
            from an earlier answer}.
        spec: Of the network's inputs.
        centre, bright: Of a drawing, see `drawn`.

    Raises:
        ConfigError: If it is neither.
    """
    if "pixels" in picture:
        return torch.from_numpy(unpacked(picture, "pixels", (spec.channels, spec.height, spec.width)))
    ink = unpacked(picture, "drawn", (-1, whole(picture, "width", 1, MOST_SIDE)))
    if len(ink) > MOST_SIDE:
        raise ConfigError(f"drawn has {len(ink):,} rows of pixels; at most {MOST_SIDE} are read.")
    return drawn(spec, ink, centre=centre, bright=bright)


def unpacked(data: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Bytes of a request in base64 as uint8 of a shape, of which one side may be -1; raises ConfigError if they are none."""
    try:
        content = base64.b64decode(text(data, key, MOST_CHARACTERS), validate=True)
        return np.frombuffer(content, np.uint8).reshape(shape).copy()
    except ValueError as error:
        raise ConfigError(f"{key} must be the bytes of a picture in base64, of {shape} pixels.") from error


def packed(values: Tensor) -> str:
    """Values in [0, 255] as bytes in base64."""
    return base64.b64encode(values.round().clamp(0, 255).byte().contiguous().numpy().tobytes()).decode()


def opened(data: Any, spec: Images, content: bytes) -> Tensor:
    """An encoded picture as pixels of the size that the network reads, uint8 (C, H, W).

    Args:
        data: Of the run; its `span` and `background`, if it has them, say how files become pixels.
        spec: Of the network's inputs.
        content: Of the file.

    Raises:
        ConfigError: If it is no picture that can be read, or has too many pixels.
    """
    try:
        image = pictures.open_picture(content)  # reads the header alone
    except pictures.errors() as error:
        raise ConfigError(f"This file is no picture that can be read: it {pictures.fault(error)}.") from error
    if image.width * image.height > MOST_PIXELS:
        raise ConfigError(
            f"This picture has {image.width:,} x {image.height:,} pixels; at most {MOST_PIXELS:,} are read."
        )
    try:
        image.load()
    except pictures.errors() as error:
        raise ConfigError(f"This file is no picture that can be read: it {pictures.fault(error)}.") from error
    span, background = getattr(data, "span", None), getattr(data, "background", pictures.WHITE)
    return torch.from_numpy(to_pixels(image, spec, span, background).copy())


def is_bright(data: Any) -> bool:
    """Whether a run's pictures are dark on bright."""
    return hasattr(data, "mean") and float(data.mean.mean()) > 0.5


def drawn(spec: Images, ink: np.ndarray, *, centre: bool, bright: bool) -> Tensor:
    """A drawing as a picture of the data, uint8 (C, H, W).

    Args:
        spec: Of the network's inputs.
        ink: uint8 (h, w), 255 where there is ink.
        centre: Make grey pictures of few pixels as MNIST's were: the ink is scaled into a box that leaves a margin, keeping
            its shape, and moved so that its centre of mass is the centre of the picture (LeCun et al., The MNIST Database).
        bright: The data are dark on bright, so the picture is, too.
    """
    small = centre and spec.channels == 1 and max(spec.height, spec.width) <= CENTRED
    fitted = centred(ink, spec.height, spec.width) if small else resized(ink, spec.height, spec.width)
    return torch.from_numpy(255 - fitted if bright else fitted)[None].expand(spec.channels, -1, -1).contiguous()


def resized(ink: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(Image.fromarray(ink).resize((width, height), Image.Resampling.BILINEAR))


def centred(ink: np.ndarray, height: int, width: int) -> np.ndarray:
    """The ink (h, w) in a picture (height, width) by its centre of mass, see `drawn`; black if there is none."""
    picture = np.zeros((height, width), np.uint8)
    rows, columns = (np.flatnonzero((ink > 32).any(axis)) for axis in (1, 0))
    if not len(rows):
        return picture
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    longest = min(height, width) * (1.0 if min(height, width) <= SMALL else DIGIT)
    scale = longest / max(cut.shape)
    small = resized(cut, max(1, round(cut.shape[0] * scale)), max(1, round(cut.shape[1] * scale)))
    mass = small.astype(float) / max(small.sum(), 1)
    centre = [float((mass.sum(1 - axis) * (np.arange(small.shape[axis]) + 0.5)).sum()) for axis in (0, 1)]
    top, left = (
        min(max(round(side / 2 - middle), 0), side - part)  # the box stays inside
        for side, middle, part in zip(picture.shape, centre, small.shape)
    )
    picture[top : top + small.shape[0], left : left + small.shape[1]] = small
    return picture
