"""A label for each step of a sequence."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.specs import IGNORED
from epochal.data.batching import Batch
from epochal.plots.heatmaps import video_strips
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task
from epochal.tasks.seq2seq import names, records
from epochal.tasks.sequences import gather, reads, show_state_gradients, tokens_of

FILMS = 6
TEXTS = 10


class SequenceLabeling(Task):
    """Cross-entropy of the logits (B, T, classes) against the labels (B, T), over the steps that have one.

    Logs loss and accuracy, both means over those steps; whole, the share of sequences without a mistake; and of a
    recurrent network how many powers of ten the gradient of the last step's loss loses on its way to the first state.
    """

    reports: ClassVar = ("val/accuracy", "max")
    example_metric: ClassVar = "accuracy"

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        logits = self.model(*reads(batch))  # (B, T, classes)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)
        asked = batch.targets != IGNORED
        right, count = logits.detach().argmax(2) == batch.targets, asked.sum()
        metrics = {"loss": loss.detach(), "accuracy": right.sum() / count, **tokens_of(batch)}
        if not self.training:  # means over sequences, as shares of the steps that all means are of; see `derive`
            metrics |= {"whole": (right | ~asked).all(1).sum() / count, "sequences": len(right) / count}
        return loss, metrics

    def weight(self, batch: Batch) -> int:
        return int((batch.targets != IGNORED).sum())

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        sequences = means["sequences"]  # for each step that is asked
        return {name: value for name, value in means.items() if name != "sequences"} | {
            "whole": means["whole"] / sequences
        }

    def show(self) -> Artifacts:
        artifacts = self._look("val")
        show_state_gradients(self, artifacts, last_step_loss)
        return artifacts

    def test_artifacts(self) -> Artifacts:
        return self._look("test")

    @torch.no_grad()
    def _look(self, split: str) -> Artifacts:
        films = hasattr(self.data, "frames")
        numbers = torch.arange(min(FILMS if films else TEXTS, self.data.rows(split)[1]))
        batch = gather(self, split, numbers)
        prediction, targets = self.model(*reads(batch)).argmax(2).cpu(), batch.targets.cpu()  # (N, T)
        kinds = self.data.specs(self.data.task)[1].names
        if films:
            frames = self.data.frames(split, numbers)  # uint8 (N, T, C, H, W)
            picture = video_strips(
                [film[:length].numpy() for film, length in zip(frames, _lengths(batch), strict=True)],
                [_captions(*row, kinds) for row in zip(prediction.tolist(), targets.tolist(), strict=True)],
                [(wrong & (truth != IGNORED)).tolist() for wrong, truth in zip(prediction != targets, targets)],
                title="Films, frame by frame, with the predicted labels; in red the wrong ones",
            )
            return Artifacts(pictures={"films": picture})
        columns: dict[str, list[str]] = {"sequence": [], "truth": [], "prediction": []}
        for ids, guess, truth in zip(batch.inputs.tolist(), prediction, targets, strict=True):
            asked = truth != IGNORED
            columns["sequence"].append(" ".join(names(self.data.source_tokenizer, ids)))
            columns["truth"].append(" ".join(kinds[label] for label in truth[asked].tolist()))
            columns["prediction"].append(" ".join(kinds[label] for label in guess[asked].tolist()))
        return Artifacts(texts={"predictions": records(columns)})


def last_step_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy at the last step that has a label, a sum over examples."""
    steps = torch.arange(targets.shape[1], device=targets.device)
    last = steps.masked_fill(targets == IGNORED, -1).amax(1)  # (B,)
    rows = torch.arange(len(targets), device=targets.device)
    return F.cross_entropy(logits[rows, last], targets[rows, last], reduction="sum")


def _captions(guesses: list[int], truths: list[int], kinds: tuple[str, ...]) -> list[str]:
    return [
        kinds[guess] if truth in (guess, IGNORED) else f"{kinds[guess]}, not {kinds[truth]}"
        for guess, truth in zip(guesses, truths, strict=True)
    ]


def _lengths(batch: Batch) -> list[int]:
    return [batch.targets.shape[1]] * len(batch.targets) if batch.lengths is None else batch.lengths.tolist()
