"""Numbers to be met."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.data.batching import Batch
from epochal.plots.charts import line_chart
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task
from epochal.tasks.sequences import gather, reads, show_state_gradients

SOLVED = 0.04  # the error below which the adding problem counts as solved: Hochreiter, Schmidhuber 1997, section 5.4
SHOWN = 500  # predictions in a picture


class Regression(Task):
    """Mean squared error of the outputs (B, count) against the targets (B, count).

    Logs loss; mae, the mean absolute error; and solved, the share of outputs that are less than 0.04 off. Of a
    recurrent network also how many powers of ten the gradient loses from its last state to its first.
    """

    reports: ClassVar = ("val/loss", "min")
    example_metric: ClassVar = "mae"

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        outputs = self.model(*reads(batch))  # (B, count)
        loss = F.mse_loss(outputs, batch.targets)
        off = (outputs.detach() - batch.targets).abs()
        return loss, {"loss": loss.detach(), "mae": off.mean(), "solved": (off < SOLVED).float().mean()}

    def show(self) -> Artifacts:
        artifacts = self._look("val")
        show_state_gradients(self, artifacts, lambda out, targets: F.mse_loss(out, targets, reduction="sum"))
        return artifacts

    def test_artifacts(self) -> Artifacts:
        return self._look("test")

    @torch.no_grad()
    def _look(self, split: str) -> Artifacts:

        batch = gather(self, split, torch.arange(min(SHOWN, self.data.rows(split)[1])))
        outputs = self.model(*reads(batch)).flatten().tolist()
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
