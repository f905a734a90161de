"""Images in the terminal, as coloured half-block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from epochal.core.format import verbatim
from epochal.plots.images import check_images, to_picture

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text


def image_in_terminal(image: np.ndarray) -> Text:
    """An image with two pixels in each character, an upper half block: W columns, H / 2 lines (rounded up).

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
    """Images in rows, to be printed by rich; each at most 16 characters wide, fewer in a row in a narrow terminal.

    Args:
        images: Pixels, uint8 (N, C, H, W), C 1 or 3.
        captions: N texts to write below.
        columns: The most images in a row.
        highlight: N flags; True, for a mistake, writes the caption in red, False in green.

    Raises:
        ValueError: If the images have another shape or type, or captions or highlights are not N.
    """
    from rich.columns import Columns
    from rich.console import Group
    from rich.constrain import Constrain

    check_images(images, captions, highlight)
    shrink = math.ceil(max(images.shape[2:]) / 16)
    width = max(math.ceil(images.shape[3] / shrink), 8)
    cells = []
    for index, image in enumerate(images):
        style = "" if highlight is None else "red" if highlight[index] else "green"
        caption = [] if captions is None else [verbatim((captions[index], style))]
        cells.append(Group(image_in_terminal(np.asarray(to_picture(image).reduce(shrink))), *caption, ""))
    return Constrain(Columns(cells, padding=(0, 2), width=width), columns * (width + 2))
