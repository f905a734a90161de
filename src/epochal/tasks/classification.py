"""One label out of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.checks import check_number
from epochal.core.specs import Images
from epochal.data.batching import Batch
from epochal.plots.heatmaps import confusion_matrix
from epochal.tasks import robustness
from epochal.tasks.artifacts import Artifacts, Profile
from epochal.tasks.base import Metrics, Task
from epochal.tasks.sequences import bins, gather, reads, show_state_gradients, tested_order, tokens_of

LISTED = 12  # texts


class Classification(Task):
    """Cross-entropy of the logits (B, classes) against the labels (B).

    Logs loss and accuracy; of a recurrent network how many powers of ten the gradient loses from its last state to its
    first; and top-5 accuracy where there are more than ten classes. Of sentences, which are of unlike length, the test
    also writes accuracy by length.

    Args:
        label_smoothing: Share of each target that is spread evenly over all classes, in training alone.
        shifts: Pixels; the test images are tested again, moved by so many in each of the four directions.
        noises: Standard deviations, pixels from 0 to 1; they are tested again with so much noise on each pixel.

    Raises:
        ValueError: If label_smoothing is not in [0, 1), one of the others no list of numbers above zero, or a shift no
            whole number.
    """

    reports: ClassVar = ("val/accuracy", "max")
    example_metric: ClassVar = "accuracy"

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        shifts: Sequence[int] = (),
        noises: Sequence[float] = (),
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        check_number("label_smoothing", label_smoothing, 0, below=1)
        self.label_smoothing = label_smoothing
        _check_amounts("shifts", shifts, int, "[1,2,4]")
        _check_amounts("noises", noises, (int, float), "[0.1,0.2]")
        self.shifts, self.noises = tuple(shifts), tuple(noises)
        self.examples: Any = None  # a few test images, what they are taken for and what they are
        self._outputs: list[tuple[Tensor, Tensor, Tensor]] = []  # (prediction, its probability, label) of the test

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        outputs = self.model(*reads(batch))
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits, batch.targets, label_smoothing=smoothing)
        for others in auxiliary:  # heads in the middle of the network, in training alone
            loss = loss + self.model.auxiliary_weight * F.cross_entropy(
                others, batch.targets, label_smoothing=smoothing
            )
        metrics = {"loss": loss.detach(), "accuracy": logits.argmax(1) == batch.targets}
        metrics |= tokens_of(batch)
        if logits.shape[1] > 10:
            best = logits.topk(5, dim=1).indices  # (B, 5)
            metrics["top5_accuracy"] = (best == batch.targets[:, None]).any(1)
        if self.trainer.testing:
            confidence, prediction = logits.softmax(1).max(1)
            self._outputs.append((prediction.cpu(), confidence.float().cpu(), batch.targets.cpu()))
        return loss, metrics

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self._outputs = []

    @torch.no_grad()
    def show(self) -> Artifacts:
        artifacts = Artifacts()
        if self._sees_images:
            robustness.show(self, artifacts)
        else:
            numbers = torch.arange(min(LISTED, self.data.rows("val")[1]))
            batch = gather(self, "val", numbers)
            confidence, prediction = self.model(*reads(batch)).softmax(1).max(1)
            self._list(artifacts, "predictions", "val", numbers, prediction, confidence, batch.targets)
        show_state_gradients(self, artifacts, lambda out, labels: F.cross_entropy(out, labels, reduction="sum"))
        return artifacts

    def test_artifacts(self) -> Artifacts:
        if self.trainer.world_size > 1:  # this process saw only its part
            return Artifacts()
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        names = self.data.classes.names
        prediction, confidence, labels = (torch.cat(parts) for parts in zip(*self._outputs, strict=True))
        counts = multiclass_confusion_matrix(prediction, labels, len(names)).numpy()
        artifacts = Artifacts(table=_per_class(counts, names, "images" if self._sees_images else "texts"))
        artifacts.pictures["confusion"] = confusion_matrix(
            counts, names, title="Test set: truth by row, prediction by column"
        )
        wrong = torch.nonzero(prediction != labels).flatten()
        wrong = wrong[confidence[wrong].argsort(descending=True)]
        if self._sees_images:
            robustness.test_artifacts(self, artifacts, prediction, confidence, labels, wrong)
            return artifacts
        numbers, wrong = tested_order(self.data, "test"), wrong[:LISTED]
        if len(wrong):
            found = (prediction[wrong], confidence[wrong], labels[wrong])
            self._list(artifacts, "mistakes", "test", numbers[wrong], *found)
        if (lengths := self.data.lengths("test")) is not None:
            lengths, right = lengths[numbers].numpy(), (prediction == labels).float().numpy()
            groups = bins(lengths)
            values, positions = ([float(of[group].mean()) for group in groups] for of in (right, lengths))
            artifacts.profiles["accuracy_by_length"] = Profile("tokens", "test accuracy", values, positions)
        return artifacts

    @property
    def _sees_images(self) -> bool:
        return self.data.yields is Images

    def _list(
        self,
        artifacts: Artifacts,
        name: str,
        split: str,
        numbers: Tensor,
        prediction: Tensor,
        confidence: Tensor,
        labels: Tensor,
    ) -> None:
        """Adds texts with what they are taken for."""
        names, blocks = self.data.classes.names, []
        found = zip(numbers.tolist(), prediction.tolist(), confidence.tolist(), labels.tolist(), strict=True)
        for number, guess, sure, truth in found:
            verdict = "right" if guess == truth else f"wrong: it is {names[truth]}"
            blocks.append(f"{names[guess]}, {sure:.0%} sure, {verdict}\n    {self.data.text(split, number)}")
        artifacts.texts[name] = "\n\n".join(blocks)


def _check_amounts(name: str, amounts: Any, kind: Any, example: str) -> None:
    right = isinstance(amounts, Sequence) and not isinstance(amounts, str)
    if not right or not all(isinstance(a, kind) and not isinstance(a, bool) and a > 0 for a in amounts):
        raise ValueError(f"{name}={amounts} must be a list of numbers above zero, e.g. {example}.")


def _per_class(counts: np.ndarray, names: tuple[str, ...], examples: str) -> list[tuple[str, ...]]:
    """Precision, recall and what it is taken for, from a confusion matrix (truth by row)."""
    table: list[tuple[str, ...]] = [("class", examples, "precision", "recall", "most often taken for")]
    for number, name in enumerate(names):
        right, truth, guessed = counts[number, number], counts[number].sum(), counts[:, number].sum()
        others = counts[number].copy()
        others[number] = 0
        taken = f"{names[int(others.argmax())]} ({others.max():,})" if others.max() else ""
        precision = f"{right / guessed:.1%}" if guessed else "never"
        table.append((name, f"{truth:,}", precision, f"{right / truth:.1%}" if truth else "none", taken))
    return table
