"""A caption for each image."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import Tensor

from epochal.data.batching import BatchIndices
from epochal.plots.images import image_grid
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.seq2seq import Generated, Seq2SeqTask
from epochal.tasks.visuals.attention import SIDE, add_image_attention

IMAGES = 24  # in a grid


class Captioning(Seq2SeqTask):
    """Generates a caption for an image; loss and metrics are those of `Seq2SeqTask`.

    Where an image has several captions, each of them is a reference.
    """

    head: ClassVar = "target_text"
    target: ClassVar = "captions"
    output_name: ClassVar = "caption"

    def rows_to_generate(self, split: str) -> Tensor:
        """The first row of each image: an image with several captions has several rows."""
        rows, image = super().rows_to_generate(split), self._image_of_rows(split)
        if image is None:
            return rows
        _, first = np.unique(image[rows].numpy(), return_index=True)
        return rows[np.sort(first)]

    def references(self, split: str, numbers: Tensor) -> list[list[str]]:
        image = self._image_of_rows(split)
        if image is None:
            return super().references(split, numbers)
        captions: dict[int, list[str]] = {}
        for number, caption in zip(image.tolist(), self.data.references(split), strict=True):
            captions.setdefault(number, []).append(caption)
        return [captions[number] for number in image[numbers].tolist()]

    def _image_of_rows(self, split: str) -> Tensor | None:
        """The number of the image of each row (N,); None if each row has an image of its own."""
        return getattr(self.data.rows(split)[0], "image", None)

    def add_artifacts(self, artifacts: Artifacts, generated: Generated) -> None:
        rows, _ = self.data.rows(generated.split)
        images = rows[BatchIndices(generated.numbers[:IMAGES], 0)].inputs  # uint8 (N, C, H, W)
        pairs = list(zip(generated.texts[:IMAGES], generated.references))
        wrong = [text not in right for text, right in pairs]
        captions = [f"{text}\nnot: {right[0]}" if bad else text for (text, right), bad in zip(pairs, wrong)]
        artifacts.pictures["captions"] = image_grid(
            images.numpy(), captions, highlight=wrong, side=SIDE, title="Captions; wrong ones in red"
        )
        add_image_attention(self, artifacts, generated)
