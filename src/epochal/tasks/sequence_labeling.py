"""A label for each step of a sequence."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.specs import IGNORED, Frames
from epochal.data.batching import Batch
from epochal.plots.heatmaps import video_strips
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task, at_least_single, model_inputs
from epochal.tasks.sequences import gather, token_counts
from epochal.tasks.visuals.sequences import add_state_gradients, labelled_blocks, token_labels

VIDEOS = 6  # in a picture
TEXTS = 10  # listed


class SequenceLabeling(Task):
    """Cross-entropy of the logits (B, T, classes) against the labels (B, T), over the steps that have one.

    Logs loss and accuracy, both means over those steps; whole, the fraction of sequences without a mistake; for a
    recurrent network also by how many powers of ten the gradient of the last step's loss shrinks from the last state
    to the first.
    """

    head: ClassVar = "step_classes"
    target: ClassVar = "step_classes"
    reports: ClassVar = ("val/accuracy", "max")
    progress_metric: ClassVar = "accuracy"
    accepts_metrics: ClassVar = True

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        logits = at_least_single(self.model(*model_inputs(batch, self.model)))  # (B, T, classes)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)
        labelled = batch.targets != IGNORED  # (B, T)
        right, count = logits.detach().argmax(2) == batch.targets, labelled.sum().float()
        metrics = {"loss": loss.detach(), "accuracy": right.sum() / count, **token_counts(batch)}
        if not self.training:  # sums over sequences, divided by the steps that all means are of; see `derive`
            self.update_metrics(logits[labelled], batch.targets[labelled])
            metrics |= {"whole": (right | ~labelled).all(1).sum() / count, "sequences": len(right) / count}
        return loss, metrics

    def weight(self, batch: Batch) -> int | Tensor:
        return (batch.targets != IGNORED).sum()

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        sequences = means["sequences"]  # for each labelled step
        return {name: value for name, value in means.items() if name != "sequences"} | {
            "whole": means["whole"] / sequences
        }

    def validation_artifacts(self) -> Artifacts:
        artifacts = self._predictions("val")
        add_state_gradients(self, artifacts, last_step_loss)
        return artifacts

    def test_artifacts(self) -> Artifacts:
        return self._predictions("test")

    @torch.no_grad()
    def _predictions(self, split: str) -> Artifacts:
        """The first videos or sequences with their predicted labels."""
        videos = self.data.yields is Frames
        numbers = torch.arange(min(VIDEOS if videos else TEXTS, self.data.rows(split)[1]))
        batch = gather(self, split, numbers)
        prediction, targets = (
            self.model(*model_inputs(batch, self.model)).argmax(2).cpu(),
            batch.targets.cpu(),
        )  # (N, T)
        names = self.data.specs(self.target)[1].names
        if videos:
            frames = self.data.frames(split, numbers)  # uint8 (N, T, C, H, W)
            picture = video_strips(
                [video[:length].numpy() for video, length in zip(frames, _lengths(batch), strict=True)],
                [_captions(*row, names) for row in zip(prediction.tolist(), targets.tolist(), strict=True)],
                [(wrong & (truth != IGNORED)).tolist() for wrong, truth in zip(prediction != targets, targets)],
                title="Videos, frame by frame, with the predicted labels; wrong ones in red",
            )
            return Artifacts(pictures={"films": picture})  # the file's name in runs of every version
        columns: dict[str, list[str]] = {"sequence": [], "truth": [], "prediction": []}
        for ids, predicted, truth in zip(batch.inputs.tolist(), prediction, targets, strict=True):
            labelled = truth != IGNORED
            columns["sequence"].append(" ".join(token_labels(self.data.source_tokenizer, ids)))
            columns["truth"].append(" ".join(names[label] for label in truth[labelled].tolist()))
            columns["prediction"].append(" ".join(names[label] for label in predicted[labelled].tolist()))
        return Artifacts(texts={"predictions": labelled_blocks(columns)})


def last_step_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy at the last labelled step of each sequence, summed over sequences."""
    steps = torch.arange(targets.shape[1], device=targets.device)
    last = steps.masked_fill(targets == IGNORED, -1).amax(1)  # (B,)
    rows = torch.arange(len(targets), device=targets.device)
    return F.cross_entropy(logits[rows, last], targets[rows, last], reduction="sum")


def _captions(predictions: list[int], truths: list[int], names: tuple[str, ...]) -> list[str]:
    """A predicted label for each step, with the true one where it differs."""
    return [
        names[predicted] if truth in (predicted, IGNORED) else f"{names[predicted]}, not {names[truth]}"
        for predicted, truth in zip(predictions, truths, strict=True)
    ]


def _lengths(batch: Batch) -> list[int]:
    return [batch.targets.shape[1]] * len(batch.targets) if batch.lengths is None else batch.lengths.tolist()
