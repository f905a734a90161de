"""A sentence about an image."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.data.batching import BatchIndices
from epochal.plots.heatmaps import video_strips
from epochal.plots.images import heat_colors, image_grid
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.seq2seq import Seq2SeqTask, names, padded
from epochal.tasks.sequences import gather

SHOWN = 24  # images in a grid
SHOWN_ATTENTION = 4
SIDE = 160  # pixels of the longer side of an image


class Captioning(Seq2SeqTask):
    """Writes a sentence about an image; see `Writing`. Where an image has several captions, each counts as right."""

    writes: ClassVar = "caption"

    def to_write(self, split: str) -> Tensor:
        """One row for each image, where an image has several captions, and so several rows."""
        image = getattr(self.data.rows(split)[0], "image", None)
        if image is None:
            return super().to_write(split)
        _, first = np.unique(image.numpy(), return_index=True)
        return torch.from_numpy(np.sort(first))

    def references(self, split: str, numbers: Tensor) -> list[list[str]]:
        image = getattr(self.data.rows(split)[0], "image", None)
        if image is None:
            return super().references(split, numbers)
        captions: dict[int, list[str]] = {}
        for number, caption in zip(image.tolist(), self.data.references(split), strict=True):
            captions.setdefault(number, []).append(caption)
        return [captions[number] for number in image[numbers].tolist()]

    def look(
        self,
        artifacts: Artifacts,
        split: str,
        numbers: Tensor,
        written: list[list[int]],
        texts: list[str],
        references: list[list[str]],
    ) -> None:

        few = numbers[:SHOWN]
        rows, _ = self.data.rows(split)
        images = rows[BatchIndices(few, 0)].inputs  # uint8 (N, C, H, W)
        wrong = [text not in those for text, those in zip(texts[:SHOWN], references)]
        captions = [f"{text}\nnot: {those[0]}" if bad else text for text, those, bad in zip(texts, references, wrong)]
        artifacts.pictures["captions"] = image_grid(
            images.numpy(), captions, highlight=wrong, side=SIDE, title="Captions; in red the wrong ones"
        )
        if hasattr(self.model, "attention"):
            picture = self._attention(split, few[:SHOWN_ATTENTION], written)
            artifacts.pictures |= {} if picture is None else {"attention": picture}

    @torch.no_grad()
    def _attention(self, split: str, numbers: Tensor, written: list[list[int]]) -> Any:
        """Each image, and over it where each word of its caption came from: yellow most, black least."""

        batch, sentences = gather(self, split, numbers), written[: len(numbers)]
        weights = self.model.attention(batch.inputs, padded(sentences, self.device))  # (N, T, rows, columns)
        if weights is None:
            return None
        rows, _ = self.data.rows(split)
        images = rows[BatchIndices(numbers, 0)].inputs.expand(-1, 3, -1, -1).numpy()
        films, captions = [], []
        for image, looks, ids in zip(images, weights.float().cpu(), sentences, strict=True):
            heat = F.interpolate(looks[: len(ids)][:, None], image.shape[1:], mode="bilinear")[:, 0]
            heat = heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)
            over = image.mean(0) / 2 + heat_colors(heat.numpy()).transpose(0, 3, 1, 2) / 2  # (T, 3, H, W)
            films.append(np.concatenate((image[None], over.astype(np.uint8))))
            captions.append(["", *names(self.data.target_tokenizer, ids)])
        return video_strips(
            films, captions, side=SIDE, title="Attention: where in the image each token of its caption comes from"
        )
