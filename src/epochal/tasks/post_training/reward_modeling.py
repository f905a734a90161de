"""A score for each answer, from pairs of which one is preferred."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from epochal.data.batching import Batch
from epochal.plots.charts import line_chart
from epochal.tasks.artifacts import Artifacts, Profile
from epochal.tasks.base import Metrics, Task, at_least_single
from epochal.tasks.post_training.losses import bradley_terry

BINS = 10  # of the calibration, each with as many pairs


class RewardModeling(Task):
    """The Bradley-Terry model: the probability that an answer is preferred is the sigmoid of the difference of two scores
    (Ouyang et al. 2022, arXiv 2203.02155, section 3.5).

    Logs loss, accuracy (pairs whose preferred answer has the higher score) and margin (the mean difference of scores). The
    test shows the calibration: of pairs whose preferred answer gets a probability of p, or 1 - p, the fraction in which the
    higher score is right, against the probability that the model gives to the higher one.
    """

    head: ClassVar = "scalar"
    target: ClassVar = "preferences"
    reports: ClassVar = ("val/accuracy", "max")
    progress_metric: ClassVar = "accuracy"

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self._margins: list[Tensor] = []  # of the pairs of a test

    def _start_pass(self) -> None:
        super()._start_pass()
        self._margins = []

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        assert batch.lengths is not None
        scores = self.predict_step(batch, 0)
        losses = bradley_terry(scores[:, 0], scores[:, 1])
        margins = (scores[:, 0] - scores[:, 1]).detach()
        if not self.training:
            self._margins.append(margins)
        metrics = {"loss": losses.mean().detach(), "accuracy": (margins > 0).float().mean(), "margin": margins.mean()}
        return losses.mean(), {**metrics, "tokens": batch.lengths.sum(1)}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The scores of both answers of each pair (B, 2)."""
        assert batch.lengths is not None
        scores = self.model(batch.inputs.flatten(0, 1), batch.lengths.flatten())
        return at_least_single(scores).view(-1, 2)

    def test_artifacts(self) -> Artifacts:
        if self.trainer.world_size > 1:  # this process has only its part of the margins
            return Artifacts()
        probabilities, right = calibration(torch.cat(self._margins).float().cpu())
        title = "probability of the higher score"
        profile = Profile(title, "test accuracy", right, probabilities)
        chart = line_chart(
            {"reward model": (probabilities, right), "calibrated": ((0.5, 1.0), (0.5, 1.0))},
            title="Calibration of the reward model",
            x_label=title,
            y_label="fraction preferred",
        )
        return Artifacts(pictures={"calibration": chart}, profiles={"calibration": profile})


def calibration(margins: Tensor) -> tuple[list[float], list[float]]:
    """Pairs in up to BINS groups by how sure the model is: the mean probability that it gives to the answer with the higher
    score, and the fraction in which that is the preferred one.

    Args:
        margins: Score of the preferred answer minus that of the other (N,).
    """
    order = margins.abs().argsort()
    groups = [order[part] for part in torch.arange(len(order)).tensor_split(min(BINS, len(order)))]
    sure = [float(margins[group].abs().sigmoid().mean()) for group in groups]
    return sure, [float(((margins[group] > 0).float() + 0.5 * (margins[group] == 0)).mean()) for group in groups]
