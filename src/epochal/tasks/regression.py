"""Numbers, predicted from a sequence."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.data.batching import Batch
from epochal.plots.charts import line_chart
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task, at_least_single, model_inputs
from epochal.tasks.sequences import gather
from epochal.tasks.visuals.sequences import add_state_gradients

SOLVED = 0.04  # of the span of the targets: Hochreiter, Schmidhuber 1997, section 5.4, where targets span [0, 1]
ROWS = 500  # whose predictions are drawn


class Regression(Task):
    """Mean squared error of the outputs (B, count) against the targets (B, count).

    Logs loss; mae, the mean absolute error; and solved, the fraction of outputs with an absolute error below 4 % of the
    targets' span; for a recurrent network also by how many powers of ten the gradient shrinks from the last state to
    the first.

    An error below 0.04 is Hochreiter and Schmidhuber's criterion for the adding problem (Long Short-Term Memory, 1997,
    section 5.4), whose targets are 0.5 + (X1 + X2) / 4 with X1 and X2 in [-1, 1], so they span [0, 1]. The sums of
    `dataset=adding` span [0, 2], as in later papers, so there it is an error below 0.08. Other data says by
    `DataModule.target_span` how wide its targets' interval is.
    """

    head: ClassVar = "numbers"
    target: ClassVar = "numbers"
    reports: ClassVar = ("val/loss", "min")
    progress_metric: ClassVar = "mae"
    accepts_metrics: ClassVar = True

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        outputs, targets = map(
            at_least_single, (self.model(*model_inputs(batch, self.model)), batch.targets)
        )  # (B, count) each
        loss = F.mse_loss(outputs, targets)
        self.update_metrics(outputs, targets)
        error = (outputs.detach() - targets).abs()
        data = getattr(self._trainer, "datamodule", None)  # with plain loaders there is none
        solved = error < SOLVED * getattr(data, "target_span", 1.0)
        return loss, {"loss": loss.detach(), "mae": error.mean(), "solved": solved.float().mean()}

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
        outputs = self.model(*model_inputs(batch, self.model)).flatten().tolist()
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
