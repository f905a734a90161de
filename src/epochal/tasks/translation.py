"""A sentence from another."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from epochal.data.base import Batch
from epochal.facts import PAD
from epochal.tasks.base import Profile, Shown
from epochal.tasks.sequences import bins, gather
from epochal.tasks.writing import Writing, bleu, names, padded

SHOWN = 4  # sentences whose attention is drawn
DRAWN = 24  # tokens of the longest of them


class Translation(Writing):
    """Writes a sentence about a sentence; see `Writing`.

    The test also logs the BLEU of sources of up to the median length in words, bleu_short, and of longer ones,
    bleu_long, and writes BLEU by length, the figure of Bahdanau et al. 2015 (arXiv 1409.0473).
    """

    stem: ClassVar = "translations"

    def read(self, batch: Batch) -> Tensor:
        return (batch.inputs != PAD).sum() if batch.lengths is None else batch.lengths.sum()

    def columns(self, split: str, numbers: Tensor, references: list[str], texts: list[str]) -> dict[str, list[str]]:
        sources = self.data.sources(split)
        rows = [sources[number] for number in numbers.tolist()]
        return {"source": rows, "reference": references, "translation": texts}

    def look(
        self,
        shown: Shown,
        split: str,
        numbers: Tensor,
        written: list[list[int]],
        texts: list[str],
        references: list[str],
    ) -> None:
        if hasattr(self.model, "attention"):
            picture = self._attention(split, numbers, written)
            shown.pictures |= {} if picture is None else {"attention": picture}
        if split == "test":
            self._score_by_length(shown, texts, references)

    def _score_by_length(self, shown: Shown, texts: list[str], references: list[str]) -> None:
        lengths = np.array([len(source.split()) for source in self.data.sources("test")])

        def score(places: np.ndarray) -> float:
            return bleu([texts[place] for place in places], [references[place] for place in places])

        short = lengths <= np.median(lengths)
        shown.metrics["bleu_short"] = score(np.flatnonzero(short))
        if not short.all():
            shown.metrics["bleu_long"] = score(np.flatnonzero(~short))
        groups = bins(lengths)
        shown.profiles["bleu_by_length"] = Profile(
            "words in the source",
            "BLEU",
            [score(places) for places in groups],
            [float(lengths[places].mean()) for places in groups],
        )

    @torch.no_grad()
    def _attention(self, split: str, numbers: Tensor, written: list[list[int]]) -> Any:
        """Where each written token came from, for the first sentences that are not too long."""
        from epochal import heatmaps

        batch = gather(self, split, numbers[: 10 * SHOWN])
        lengths = (batch.inputs != PAD).sum(1) if batch.lengths is None else batch.lengths
        fitting = [
            place
            for place, length in enumerate(lengths.tolist())
            if length <= DRAWN and 1 < len(written[place]) <= DRAWN
        ][:SHOWN]
        if not fitting:
            return None
        rows = [written[place] for place in fitting]
        index = torch.tensor(fitting, device=self.device)
        weights = self.model.attention(batch.inputs[index], padded(rows, self.device), lengths[index])
        if weights is None:  # it has one vector for the whole source
            return None
        return heatmaps.attention(
            [
                weight[: len(row), :length].float().cpu().numpy()
                for weight, row, length in zip(weights, rows, lengths[index].tolist(), strict=True)
            ],
            [names(self.data.target_tokenizer, row) for row in rows],
            [
                names(self.data.source_tokenizer, ids[:length])
                for ids, length in zip(batch.inputs[index].tolist(), lengths[index].tolist(), strict=True)
            ],
            title="Attention: which tokens of the source (columns) each written token (rows) comes from",
        )
