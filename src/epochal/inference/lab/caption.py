"""What the room of text computes of a captioner: the words for a picture, and where in it each of them comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.errors import ConfigError
from epochal.core.protocols import SourceAttention
from epochal.core.specs import END, Images, Tokens
from epochal.data.batching import BatchIndices
from epochal.inference.lab.picture import SHELF, is_bright, opened, packed, sent, thumbnails, with_rows
from epochal.inference.lab.server import whole
from epochal.inference.notebook import LoadedRun
from epochal.models.common.encoder_decoder import EncoderDecoder
from epochal.tasks.visuals.attention import decoder_inputs
from epochal.tasks.visuals.sequences import token_labels


def captions_images(loaded: LoadedRun) -> bool:
    """Whether a run's network writes captions of images."""
    reads, writes = loaded.specs
    return isinstance(reads, Images) and isinstance(writes, Tokens) and isinstance(loaded.model, EncoderDecoder)


def spec_of(loaded: LoadedRun) -> Images:
    """Of the network's inputs.

    Raises:
        ConfigError: If it does not write captions of images.
    """
    if not captions_images(loaded):
        raise ConfigError(f"The network of {loaded.folder.name} does not write captions of images.")
    reads = loaded.specs[0]
    assert isinstance(reads, Images)
    return reads


def about(loaded: LoadedRun) -> dict[str, Any]:
    """What the page needs to know before the first picture."""
    spec = spec_of(loaded)
    return {"shape": [spec.channels, spec.height, spec.width], "bright": is_bright(loaded.data)}


def test_rows(loaded: LoadedRun) -> Tensor:
    """The number of one row of each test picture: one with several captions has several rows."""
    rows, count = with_rows(loaded).rows("test")
    image = getattr(rows, "image", None)
    if image is None:
        return torch.arange(count)
    first = torch.full((int(image.max()) + 1,), count).scatter_reduce(0, image.long(), torch.arange(count), "amin")
    return first[first < count].sort().values


def test_pictures(loaded: LoadedRun, numbers: Tensor) -> Tensor:
    """Test pictures by their numbers, uint8 (N, C, H, W)."""
    rows, _ = with_rows(loaded).rows("test")
    return rows[BatchIndices(test_rows(loaded)[numbers], 0)].inputs


def shelf(loaded: LoadedRun, start: int) -> dict[str, Any]:
    """Small versions of the test pictures from a number on."""
    spec_of(loaded)
    count = len(test_rows(loaded))
    numbers = range(min(start, count), min(start + SHELF, count))
    if not numbers:
        return {"count": count, "numbers": [], "shape": [1, 1, 1], "pixels": ""}
    images = test_pictures(loaded, torch.tensor(numbers))
    return {"count": count, "numbers": list(numbers), **thumbnails(images)}


def file_pixels(loaded: LoadedRun, content: bytes) -> dict[str, Any]:
    """The bytes of a picture's file as the pixels that the network reads."""
    return {"pixels": packed(opened(loaded.data, spec_of(loaded), content))}


@torch.no_grad()
def captioned(loaded: LoadedRun, picture: Mapping[str, Any]) -> dict[str, Any]:
    """The caption that a network writes for a picture.

    Args:
        loaded: The run.
        picture: {"test": number of a test picture}, or see `picture.sent`.

    Returns:
        text: The caption.
        tokens: It, token by token, END included.
        truth: The captions of a test picture; None of others.
        seen: The pixels that the network read, (C, H, W).
        attention: For each token a map (H, W) of the weights, its largest is 255; None without attention.

    Raises:
        ConfigError: If the network writes no captions, or the picture is none.
    """
    spec, data, model, config = spec_of(loaded), loaded.data, loaded.model, loaded.config.task
    truth = None
    if "test" in picture:
        number = whole(picture, "test", 0, len(test_rows(loaded)) - 1)
        pixels, truth = test_pictures(loaded, torch.tensor([number]))[0], references(loaded, number)
    else:
        pixels = sent(picture, spec, centre=False, bright=is_bright(data))
    inputs = data.normalise(pixels[None]).to(next(model.parameters()).dtype)
    options = {key: config[key] for key in ("beam_size", "length_penalty") if key in config}
    writes = loaded.specs[1]
    assert isinstance(writes, Tokens)
    ids = model.generate(inputs, max_length=config.get("max_length") or writes.length, **options)[0].tolist()
    ids = ids[: ids.index(END) + 1] if END in ids else ids
    weights = (
        model.attention(inputs, decoder_inputs([ids], inputs.device)) if isinstance(model, SourceAttention) else None
    )
    return {
        "text": data.target_tokenizer.decode(ids),
        "tokens": token_labels(data.target_tokenizer, ids),
        "truth": truth,
        "seen": packed(pixels),
        "attention": None if weights is None else heat(weights[0, : len(ids)], (spec.height, spec.width)),
    }


def references(loaded: LoadedRun, number: int) -> list[str]:
    """The captions of a test picture."""
    data, row = with_rows(loaded), int(test_rows(loaded)[number])
    rows, _ = data.rows("test")
    image = getattr(rows, "image", None)
    if image is None:  # made when they are asked for: not all of them for one
        return [data.target_tokenizer.decode(rows[BatchIndices(torch.tensor([row]), 0)].targets[0].tolist())]
    return [text for text, of in zip(data.references("test"), image.tolist()) if of == int(image[row])]


def heat(weights: Tensor, size: tuple[int, int]) -> list[str]:  # (T, rows, columns)
    """A map of the picture's size for each token, in base64."""
    maps = F.interpolate(weights[:, None].float(), size, mode="bilinear")[:, 0]
    return [packed(255 * each / each.max().clamp_min(1e-12)) for each in maps]
