"""One label out of several for each image, text or series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.checks import check_number
from epochal.core.specs import Images
from epochal.data.batching import Batch
from epochal.data.points import Points
from epochal.plots.heatmaps import confusion_matrix
from epochal.tasks.artifacts import Artifacts, Profile
from epochal.tasks.base import Metrics, Task, at_least_single, model_inputs
from epochal.tasks.robustness import measure_robustness
from epochal.tasks.sequences import gather, length_bins, tested_rows, token_counts
from epochal.tasks.visuals.boundary import boundary
from epochal.tasks.visuals.classification import (
    IMAGES,
    add_mistakes,
    add_validation_images,
    class_table,
    prediction_grid,
    prediction_texts,
)
from epochal.tasks.visuals.sequences import add_state_gradients

LISTED = 12  # texts


class Classification(Task):
    """Cross-entropy of the logits (B, classes) against the labels (B,).

    Logs loss and accuracy, and top-5 accuracy if there are more than ten classes; for a recurrent network also by how
    many powers of ten the gradient shrinks from the last state to the first. The test of texts also writes the accuracy
    by length.

    Args:
        label_smoothing: Fraction of each target that is spread evenly over all classes, in training only.
        shifts: Whole pixels; the test is repeated with images shifted by each, a quarter in each direction.
        noises: Standard deviations, for pixels in [0, 1]; the test is repeated with Gaussian noise of each.

    Raises:
        ValueError: If label_smoothing is not in [0, 1), or shifts or noises is not a list of positive numbers.
    """

    head: ClassVar = "classes"
    target: ClassVar = "classes"
    reports: ClassVar = ("val/accuracy", "max")
    progress_metric: ClassVar = "accuracy"
    explainable: ClassVar = True
    accepts_metrics: ClassVar = True

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
        _check_positive("shifts", shifts, int, "[1,2,4]")
        _check_positive("noises", noises, (int, float), "[0.1,0.2]")
        self.shifts, self.noises = tuple(shifts), tuple(noises)
        self.examples: Any = None  # of a test: a few images uint8 (N, C, H, W), their predictions and labels as lists
        self._outputs: list[tuple[Tensor, Tensor, Tensor]] = []  # (prediction, its probability, label) of the test

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        outputs = self.model(*model_inputs(batch, self.model))
        logits, *auxiliary = map(at_least_single, outputs if isinstance(outputs, tuple) else (outputs,))
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits, batch.targets, label_smoothing=smoothing)
        for others in auxiliary:  # of heads in the middle of the network, in training only
            loss = loss + self.model.auxiliary_weight * F.cross_entropy(
                others, batch.targets, label_smoothing=smoothing
            )
        self.update_metrics(logits, batch.targets)
        metrics = {"loss": loss.detach(), "accuracy": logits.argmax(1) == batch.targets}
        metrics |= token_counts(batch)
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
    def validation_artifacts(self) -> Artifacts:
        artifacts = Artifacts()
        if self._reads_images:
            add_validation_images(self, artifacts)
        elif isinstance(self.data, Points):
            artifacts.pictures["boundary"] = boundary(self, "val")
        else:
            numbers = torch.arange(min(LISTED, self.data.rows("val")[1]))
            batch = gather(self, "val", numbers)
            confidence, prediction = self.model(*model_inputs(batch, self.model)).softmax(1).max(1)
            artifacts.texts["predictions"] = prediction_texts(
                self, "val", numbers, prediction, confidence, batch.targets
            )
        add_state_gradients(self, artifacts, lambda out, labels: F.cross_entropy(out, labels, reduction="sum"))
        return artifacts

    def test_artifacts(self) -> Artifacts:
        if self.trainer.world_size > 1:  # this process has only its part of the predictions
            return Artifacts()
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        names = self.data.classes.names
        prediction, confidence, labels = (torch.cat(parts) for parts in zip(*self._outputs, strict=True))  # (N,) each
        counts = multiclass_confusion_matrix(prediction, labels, len(names)).numpy()
        artifacts = Artifacts(table=class_table(counts, names, self._unit))
        artifacts.pictures["confusion"] = confusion_matrix(
            counts, names, title="Test set: truth by row, prediction by column"
        )
        wrong = torch.nonzero(prediction != labels).flatten()
        wrong = wrong[confidence[wrong].argsort(descending=True)]
        if self._reads_images:
            self._add_test_images(artifacts, prediction, confidence, labels, wrong)
        elif isinstance(self.data, Points):
            artifacts.pictures["boundary"] = boundary(self, "test")
        else:
            self._add_test_texts(artifacts, prediction, confidence, labels, wrong)
        return artifacts

    @property
    def _unit(self) -> str:
        """What is classified, in the plural."""
        return "points" if isinstance(self.data, Points) else "images" if self._reads_images else "texts"

    @property
    def _reads_images(self) -> bool:
        return self.data.yields is Images

    def _add_test_images(
        self, artifacts: Artifacts, prediction: Tensor, confidence: Tensor, labels: Tensor, wrong: Tensor
    ) -> None:
        """Adds mistakes, the first predictions, and tests on changed images; wrong: numbers, most confident first."""
        add_mistakes(self, artifacts, wrong, prediction, confidence, labels)
        rows, _ = self.data.rows("test")
        first = torch.arange(min(IMAGES, len(labels)))
        images = rows.images[rows.rows[first]]
        artifacts.pictures["predictions"] = prediction_grid(self, images, prediction[first], labels[first])
        self.examples = (images.numpy(), prediction[first].tolist(), labels[first].tolist())
        measure_robustness(self, artifacts, clean_accuracy=(prediction == labels).float().mean().item())

    def _add_test_texts(
        self, artifacts: Artifacts, prediction: Tensor, confidence: Tensor, labels: Tensor, wrong: Tensor
    ) -> None:
        """Adds mistakes and the accuracy by length; wrong: numbers, most confident first."""
        numbers, wrong = tested_rows(self), wrong[:LISTED]
        if len(wrong):
            artifacts.texts["mistakes"] = prediction_texts(
                self, "test", numbers[wrong], prediction[wrong], confidence[wrong], labels[wrong]
            )
        if (lengths := self.data.lengths("test")) is not None:
            lengths, right = lengths[numbers].numpy(), (prediction == labels).float().numpy()
            groups = length_bins(lengths)
            values, positions = ([float(of[group].mean()) for group in groups] for of in (right, lengths))
            artifacts.profiles["accuracy_by_length"] = Profile("tokens", "test accuracy", values, positions)


def _check_positive(name: str, amounts: Any, kind: Any, example: str) -> None:
    """Raises ValueError unless amounts is a list of positive numbers of a kind."""
    is_list = isinstance(amounts, Sequence) and not isinstance(amounts, str)
    if not is_list or not all(isinstance(a, kind) and not isinstance(a, bool) and 0 < a < math.inf for a in amounts):
        raise ValueError(f"{name}={amounts} must be a list of numbers above zero, e.g. {example}.")
