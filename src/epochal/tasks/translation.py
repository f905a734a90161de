"""A sentence in one language (or alphabet) for each sentence in another."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from epochal.core.specs import END, PAD
from epochal.data.batching import Batch
from epochal.tasks.artifacts import Artifacts, Profile
from epochal.tasks.seq2seq import Generated, Seq2SeqTask
from epochal.tasks.sequences import length_bins, prompt_ids
from epochal.tasks.text_metrics import bleu
from epochal.tasks.visuals.attention import add_token_attention


class Translation(Seq2SeqTask):
    """Generates a sentence for a sentence; loss and metrics are those of `Seq2SeqTask`.

    The test also logs bleu_short, the BLEU of sources of up to the median length in words; bleu_long, that of longer
    ones; and bleu_kept, bleu_long / bleu_short; and it writes BLEU by length, the figure of Bahdanau et al. 2015
    (arXiv 1409.0473).
    """

    head: ClassVar = "target_text"
    target: ClassVar = "target_text"
    output_name: ClassVar = "translation"
    response_name: ClassVar = "translation"

    def source_tokens(self, batch: Batch) -> Tensor:
        return (batch.inputs != PAD).sum() if batch.lengths is None else batch.lengths.sum()

    def sources(self, split: str, numbers: Tensor) -> dict[str, list[str]]:
        sources = self.data.sources(split)
        return {"source": [sources[number] for number in numbers.tolist()]}

    def add_artifacts(self, artifacts: Artifacts, generated: Generated) -> None:
        add_token_attention(self, artifacts, generated)
        if generated.split == "test":
            self._add_scores_by_length(artifacts, generated)

    def _add_scores_by_length(self, artifacts: Artifacts, generated: Generated) -> None:
        """Adds BLEU of short and of long sources, and a profile of BLEU by length."""
        sources = self.sources("test", generated.numbers)["source"]
        lengths = np.array([len(source.split()) for source in sources])  # in words

        def score(places: np.ndarray) -> float:
            return bleu([generated.texts[place] for place in places], [generated.references[place] for place in places])

        short = lengths <= np.median(lengths)
        artifacts.metrics["bleu_short"] = score(np.flatnonzero(short))
        if not short.all():
            artifacts.metrics["bleu_long"] = score(np.flatnonzero(~short))
            if artifacts.metrics["bleu_short"] > 0:
                artifacts.metrics["bleu_kept"] = artifacts.metrics["bleu_long"] / artifacts.metrics["bleu_short"]
        groups = length_bins(lengths)
        artifacts.profiles["bleu_by_length"] = Profile(
            "words in the source",
            "BLEU",
            [score(places) for places in groups],
            [float(lengths[places].mean()) for places in groups],
        )

    @torch.no_grad()
    def respond(self, prompt: str) -> list[str]:
        """The translation of a text, generated as at the test.

        Raises:
            ValueError: If it is empty, longer than the texts of the data, or has characters that the vocabulary lacks.
        """
        ids = prompt_ids(self.data.source_tokenizer, prompt, longest=self.data.specs(self.target)[0].length - 1)
        tokens = torch.tensor([[*ids, END]], device=self.device)
        found = self.model.generate(
            tokens, max_length=self.max_target_length, beam_size=self.beam_size, length_penalty=self.length_penalty
        )
        return [self.data.target_tokenizer.decode(found[0].tolist())]
