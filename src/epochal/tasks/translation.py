"""A sentence from another."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from epochal.core.specs import END, PAD
from epochal.data.batching import Batch
from epochal.plots.heatmaps import attention_heatmap
from epochal.tasks.artifacts import Artifacts, Profile
from epochal.tasks.seq2seq import Seq2SeqTask, names, padded
from epochal.tasks.sequences import bins, gather, prompt_ids
from epochal.tasks.text_metrics import bleu

SHOWN = 4  # sentences whose attention is drawn
DRAWN = 18  # tokens of the longest source of them


class Translation(Seq2SeqTask):
    """Writes a sentence about a sentence; see `Writing`.

    The test also logs the BLEU of sources of up to the median length in words, bleu_short, and of longer ones,
    bleu_long, and the share of it that these keep, bleu_kept; and writes BLEU by length, the figure of Bahdanau et al.
    2015 (arXiv 1409.0473).
    """

    writes: ClassVar = "translation"

    def read(self, batch: Batch) -> Tensor:
        return (batch.inputs != PAD).sum() if batch.lengths is None else batch.lengths.sum()

    def sources(self, split: str, numbers: Tensor) -> dict[str, list[str]]:
        sources = self.data.sources(split)
        return {"source": [sources[number] for number in numbers.tolist()]}

    def look(
        self,
        artifacts: Artifacts,
        split: str,
        numbers: Tensor,
        written: list[list[int]],
        texts: list[str],
        references: list[list[str]],
    ) -> None:
        if hasattr(self.model, "attention"):
            picture = self._attention(split, numbers, written)
            artifacts.pictures |= {} if picture is None else {"attention": picture}
        if split == "test":
            self._score_by_length(artifacts, texts, references)

    def _score_by_length(self, artifacts: Artifacts, texts: list[str], references: list[list[str]]) -> None:
        lengths = np.array([len(source.split()) for source in self.data.sources("test")])

        def score(places: np.ndarray) -> float:
            return bleu([texts[place] for place in places], [references[place] for place in places])

        short = lengths <= np.median(lengths)
        artifacts.metrics["bleu_short"] = score(np.flatnonzero(short))
        if not short.all():
            artifacts.metrics["bleu_long"] = score(np.flatnonzero(~short))
            if artifacts.metrics["bleu_short"] > 0:
                artifacts.metrics["bleu_kept"] = artifacts.metrics["bleu_long"] / artifacts.metrics["bleu_short"]
        groups = bins(lengths)
        artifacts.profiles["bleu_by_length"] = Profile(
            "words in the source",
            "BLEU",
            [score(places) for places in groups],
            [float(lengths[places].mean()) for places in groups],
        )

    @torch.no_grad()
    def _attention(self, split: str, numbers: Tensor, written: list[list[int]]) -> Any:
        """Where each written token came from, for the longest of the first sources that are not too long."""

        batch = gather(self, split, numbers[: 10 * SHOWN])
        lengths = (batch.inputs != PAD).sum(1) if batch.lengths is None else batch.lengths
        chosen = lengths.masked_fill(lengths > DRAWN, 0).argsort(descending=True, stable=True)[:SHOWN]
        chosen = chosen[lengths[chosen] <= DRAWN]
        rows = [written[place][: 2 * DRAWN] for place in chosen.tolist()]
        if not any(rows):
            return None
        weights = self.model.attention(batch.inputs[chosen], padded(rows, self.device), lengths[chosen])
        if weights is None:  # all that it knows of the source is in one vector, or it does not see it
            return None
        sources = [
            ids[:length] for ids, length in zip(batch.inputs[chosen].tolist(), lengths[chosen].tolist(), strict=True)
        ]
        return attention_heatmap(
            [
                weight[: len(row), : len(source)].float().cpu().numpy()
                for weight, row, source in zip(weights, rows, sources, strict=True)
            ],
            [names(self.data.target_tokenizer, row) for row in rows],
            [names(self.data.source_tokenizer, source) for source in sources],
            title="Attention: which tokens of the source (columns) each written token (rows) comes from",
        )

    @torch.no_grad()
    def translate(self, source: str) -> str:
        """The translation of a text, written as those of the test are.

        Raises:
            ValueError: If it is empty, longer than the texts of the data, or has characters that the vocabulary lacks.
        """
        ids = prompt_ids(self.data.source_tokenizer, source, longest=self.data.specs(self.data.task)[0].length - 1)
        tokens = torch.tensor([[*ids, END]], device=self.device)
        found = self.model.generate(
            tokens, max_length=self.longest, beam_size=self.beam_size, length_penalty=self.length_penalty
        )
        return self.data.target_tokenizer.decode(found[0].tolist())
