"""Answers of conversations, token by token."""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from epochal.core.specs import IGNORED
from epochal.data.batching import Batch
from epochal.tasks.base import Metrics, at_least_single
from epochal.tasks.post_training.policy import Policy
from epochal.tasks.sequences import token_counts


class SupervisedFinetuning(Policy):
    """Cross-entropy, in nats, of the assistant's tokens, the END of each answer included; prompts are read but not learned
    (Ouyang et al. 2022, arXiv 2203.02155, section 3.5).

    Logs loss, accuracy and perplexity of the answers' tokens, and tokens per second; each validation answers a few prompts.
    """

    reports: ClassVar = ("val/loss", "min")

    def weight(self, batch: Batch) -> int | Tensor:
        return (batch.targets != IGNORED).sum()

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        logits = at_least_single(self.model(batch.inputs))  # (B, T, V)
        asked = batch.targets != IGNORED
        count = asked.sum().clamp(min=1)  # a batch without an answer has a loss of 0
        losses = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum")
        loss = losses / count
        right = ((logits.argmax(-1) == batch.targets) & asked).sum() / count
        return loss, {"loss": loss.detach(), "accuracy": right, **token_counts(batch)}

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        return super().derive({**means, "perplexity": math.exp(min(means["loss"], 700))}, split)
