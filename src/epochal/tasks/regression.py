"""Numbers, predicted from a sequence."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.data.batching import Batch
from epochal.plots.charts import line_chart
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task, at_least_single
from epochal.tasks.sequences import gather, model_inputs
from epochal.tasks.visuals.sequences import add_state_gradients

SOLVED = 0.04  # the error below which the adding problem counts as solved: Hochreiter, Schmidhuber 1997, section 5.4
ROWS = 500  # whose predictions are drawn


class Regression(Task):
    """Mean squared error of the outputs (B, count) against the targets (B, count).

    Logs loss; mae, the mean absolute error; and solved, the fraction of outputs with an absolute error below 0.04; for
    a recurrent network also by how many powers of ten the gradient shrinks from the last state to the first.
    """

    reports: ClassVar = ("val/loss", "min")
    progress_metric: ClassVar = "mae"
    accepts_metrics: ClassVar = True

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        outputs, targets = map(at_least_single, (self.model(*model_inputs(batch)), batch.targets))  # (B, count) each
        loss = F.mse_loss(outputs, targets)
        self.update_metrics(outputs, targets)
        error = (outputs.detach() - targets).abs()
        return loss, {"loss": loss.detach(), "mae": error.mean(), "solved": (error < SOLVED).float().mean()}

    def validation_artifacts(self) -> Artifacts:
        artifacts = self._predictions("val")
        add_state_gradients(self, artifacts, lambda out, targets: F.mse_loss(out, targets, reduction="sum"))
        return artifacts

    def test_artifacts(self) -> Artifacts:
        return self._predictions("test")

    @torch.no_grad()
    def _predictions(self, split: str) -> Artifacts:
        """A picture of the first predictions against their targets."""
        batch = gather(self, split, torch.arange(min(ROWS, self.data.rows(split)[1])))
        outputs = self.model(*model_inputs(batch)).flatten().tolist()
        targets = batch.targets.flatten().tolist()
        ends = [min(targets), max(targets)]
        picture = line_chart(
            {"predictions": (targets, outputs), "the truth": (ends, ends)},
            title="Predictions against the truth",
            x_label="truth",
            y_label="prediction",
            dots=("predictions",),
        )
        return Artifacts(pictures={"predictions": picture})
