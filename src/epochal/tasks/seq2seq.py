"""Sequences generated token by token from a source: what translation and captioning share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import OnlyWith, check_number, check_whole
from epochal.core.protocols import EncoderDecoder, ScheduledSampling
from epochal.core.specs import PAD
from epochal.data.batching import Batch
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task, at_least_single
from epochal.tasks.sequences import MOST_BEAMS, gather, tested_rows
from epochal.tasks.text_metrics import scores
from epochal.tasks.visuals.sequences import labelled_blocks

LISTED = 10  # texts at a validation


@dataclass(frozen=True)
class Generated:
    """What was generated for N rows of a split."""

    split: str
    numbers: Tensor  # (N,) of the rows
    ids: list[list[int]]  # tokens, without padding
    texts: list[str]
    references: list[list[str]]  # one or several right texts for each row


class Seq2SeqTask(Task):
    """Cross-entropy, in nats per token, of the logits (B, T, vocabulary) against the next tokens of the target (B, T).

    Logs loss, with label smoothing in training only; accuracy, the fraction of tokens that are predicted right, each
    given the true ones before it; perplexity; tokens per second, of source and target, without padding; and for freely
    generated texts BLEU and chrF by sacrebleu, whose signatures are written above the texts, and exact, the fraction of
    texts that equal a reference.

    Args:
        label_smoothing: Fraction of each target that is spread evenly over all tokens, in training only.
        teacher_forcing: Fraction of steps that are fed the true token instead of the predicted one at the end of the
            training; it decreases linearly from 1 (scheduled sampling: Bengio et al. 2015, arXiv 1506.03099).
        generated: Rows for which a text is generated at a validation, greedily, for its BLEU; 0 for none.
        beam_size: Hypotheses kept by the beam search of the test; 1 is greedy.
        length_penalty: 0 favours short texts; see `epochal.models.common.beam_search.generate`.
        max_length: Most tokens to generate; None is the longest target of the data.

    Raises:
        ValueError: If a number is out of range, or the model cannot be trained with teacher forcing below 1.
    """

    reports: ClassVar = ("val/loss", "min")
    progress_metric: ClassVar = "accuracy"
    only_with: ClassVar = {"length_penalty": (OnlyWith("beam_size", but=(1,)),)}
    output_name: ClassVar[str]  # what is generated, such as "caption"

    def __init__(
        self,
        *,
        model: nn.Module,
        label_smoothing: float = 0.0,
        teacher_forcing: float = 1.0,
        generated: int = 200,
        beam_size: int = 5,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(model=model, **rest)
        check_number("label_smoothing", label_smoothing, 0, below=1)
        check_number("teacher_forcing", teacher_forcing, 0, most=1)
        check_whole("generated", generated, 0)
        check_whole("beam_size", beam_size, 1, MOST_BEAMS)
        check_number("length_penalty", length_penalty, 0)
        if max_length is not None:
            check_whole("max_length", max_length, 1)
        if teacher_forcing < 1 and isinstance(model, EncoderDecoder) and not isinstance(model, ScheduledSampling):
            raise ValueError(
                f"teacher_forcing={teacher_forcing} needs a model that can be trained on its own predictions: seq2seq."
            )
        self.label_smoothing, self.teacher_forcing, self.generated = label_smoothing, teacher_forcing, generated
        self.beam_size, self.length_penalty, self.max_length = beam_size, length_penalty, max_length

    # -- what a subclass defines ------------------------------------------------------------------------------------

    def source_tokens(self, batch: Batch) -> int | Tensor:
        """The number of tokens in the sources of a batch, without padding; 0 if they are images."""
        return 0

    def rows_to_generate(self, split: str) -> Tensor:
        """Numbers (N,) of the rows for which a text is generated."""
        return tested_rows(self).sort().values if split == "test" else torch.arange(self.data.rows(split)[1])

    def sources(self, split: str, numbers: Tensor) -> dict[str, list[str]]:
        """The sources of these rows as text, under the name of their column; none if they are images."""
        return {}

    def references(self, split: str, numbers: Tensor) -> list[list[str]]:
        """The right texts of each of these rows, one or several."""
        references = self.data.references(split)
        return [[references[number]] for number in numbers.tolist()]

    def add_artifacts(self, artifacts: Artifacts, generated: Generated) -> None:
        """Adds pictures and further metrics of the generated texts."""
        raise NotImplementedError

    # -- loss -------------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        inputs, targets = batch.targets[:, :-1], batch.targets[:, 1:].flatten()
        options = {}
        if self.training and self.teacher_forcing < 1:
            options["teacher_forcing"] = 1 - (1 - self.teacher_forcing) * self.global_step / self.total_steps
        logits = self.model(batch.inputs, inputs, lengths=batch.lengths, **options)
        logits = at_least_single(logits).flatten(0, 1)  # (B * T, V)
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits, targets, ignore_index=PAD, label_smoothing=smoothing)
        detached, count = logits.detach(), self._target_tokens(batch)
        # argmax would take a tenth of the time of the loss
        right = detached.gather(1, targets[:, None])[:, 0] >= detached.amax(1)
        accuracy = (right & (targets != PAD)).sum().float() / count
        return loss, {
            "loss": loss.detach(),
            "accuracy": accuracy,
            "tokens": (count + self.source_tokens(batch)).float() / len(batch.targets),
        }

    def _target_tokens(self, batch: Batch) -> Tensor:
        return (batch.targets[:, 1:] != PAD).sum()

    def weight(self, batch: Batch) -> int | Tensor:
        return self._target_tokens(batch)

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        return {**means, "perplexity": math.exp(min(means["loss"], 700))}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Token ids (B, T) of the texts that are generated, as at the test."""
        return self._generated(batch, self.beam_size, self.length_penalty)

    # -- generation -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(self, split: str, numbers: Tensor, *, beam_size: int, length_penalty: float) -> list[list[int]]:
        """Token ids for these rows (N,), without padding; rows of similar length are batched together."""
        lengths = self.data.lengths(split)
        order = torch.arange(len(numbers)) if lengths is None else lengths[numbers].argsort(stable=True)
        generated: list[list[int]] = [[] for _ in numbers]
        for places in order.split(self.data.eval_batch_size):
            batch = gather(self, split, numbers[places])
            ids = self._generated(batch, beam_size, length_penalty)
            for place, row in zip(places.tolist(), ids.tolist(), strict=True):
                generated[place] = [token for token in row if token != PAD]
        return generated

    def _generated(self, batch: Batch, beam_size: int, length_penalty: float) -> Tensor:
        """Token ids (B, T) for the rows of a batch, each row up to its END and then PAD."""
        ids: Tensor = self.model.generate(
            batch.inputs,
            batch.lengths,
            max_length=self.max_target_length,
            beam_size=beam_size,
            length_penalty=length_penalty,
        )
        return ids

    @property
    def max_target_length(self) -> int:
        """The most tokens that are generated."""
        return self.max_length or self.data.specs(self.target)[1].length

    def validation_artifacts(self) -> Artifacts:
        numbers = self.rows_to_generate("val")[: self.generated]
        if not len(numbers):
            return Artifacts()
        ids = self.generate("val", numbers, beam_size=1, length_penalty=0.0)
        return self._artifacts("val", numbers, ids, listed=LISTED)

    def test_artifacts(self) -> Artifacts:
        numbers = self.rows_to_generate("test")
        ids = self.generate("test", numbers, beam_size=self.beam_size, length_penalty=self.length_penalty)
        artifacts = self._artifacts("test", numbers, ids, listed=len(numbers))
        self.measured |= {f"test/{name}": value for name, value in artifacts.metrics.items()}
        self.record("test", artifacts.metrics)
        return artifacts

    def _artifacts(self, split: str, numbers: Tensor, ids: list[list[int]], listed: int) -> Artifacts:
        """Scores, texts and pictures of the token ids generated for these rows; the first `listed` texts are listed."""
        texts = [self.data.target_tokenizer.decode(row) for row in ids]
        references = self.references(split, numbers)
        metrics, header = scores(texts, references)
        artifacts = Artifacts(metrics=metrics)
        columns = {
            **self.sources(split, numbers),
            "reference": [right[0] for right in references],
            self.output_name: texts,
        }
        blocks = labelled_blocks({name: column[:listed] for name, column in columns.items()})
        artifacts.texts[f"{self.output_name}s"] = f"{header}\n\n{blocks}"
        self.add_artifacts(artifacts, Generated(split, numbers, ids, texts, references))
        return artifacts
