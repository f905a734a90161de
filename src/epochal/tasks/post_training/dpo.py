"""Preferences learned without a reward model."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from epochal.core.checks import check_positive
from epochal.core.errors import ConfigError
from epochal.core.specs import IGNORED
from epochal.data.batching import Batch, BatchIndices
from epochal.models.common.layers import evaluating
from epochal.tasks.base import Metrics, at_least_single
from epochal.tasks.post_training.losses import dpo, log_probabilities
from epochal.tasks.post_training.policy import JUDGED, Policy, UsesFrozen, answers_begin


class DPO(UsesFrozen, Policy):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): the preferred answer becomes more probable than
    the other, relative to a frozen reference.

    The loss begins at ln 2, as the policy begins as the reference; dropout is off. Logs loss, accuracy (pairs whose preferred answer has the
    higher implicit reward), margin, and both implicit rewards, beta * log(policy / reference).

    Args:
        beta: Strength of the leash to the reference, above 0; 0.1 in the paper.
        length_normalised: Take the mean of an answer's log-probabilities instead of the sum, so that short answers are not
            preferred; the same beta then is weaker, by about the length of an answer.
        **rest: See `Policy`.

    Raises:
        ValueError: If beta is not above 0.
    """

    target: ClassVar = "preferences"
    reports: ClassVar = ("val/loss", "min")
    progress_metric: ClassVar = "accuracy"
    needs: ClassVar = ("reference",)

    def __init__(self, *, beta: float = 0.1, length_normalised: bool = False, **rest: Any) -> None:
        super().__init__(**rest)
        check_positive("beta", beta)
        self.beta, self.length_normalised = beta, length_normalised

    def known(self, data: Any) -> dict[str, Any]:
        """Also checks the data before a run begins.

        Raises:
            ConfigError: If a prompt of the test leaves no room for the answer that is judged.
        """
        room = getattr(self.model, "context_length", None)
        if self._judge is not None and room is not None:
            rows, count = data.rows("test")
            pairs = rows[BatchIndices(torch.arange(min(JUDGED, count)), 0)]
            longest = int(answers_begin(pairs.targets[:, 0, 1:]).max())
            if longest + self.sample_length > room:
                raise ConfigError(
                    f"A prompt of the test has {longest:,} tokens, and with task.sample_length={self.sample_length} more, for "
                    f"the judge, it fills the context of {room:,}; take a smaller sample_length, or shorter prompts."
                )
        return super().known(data)

    def weight(self, batch: Batch) -> int | Tensor:
        return len(batch.targets)

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        assert batch.lengths is not None
        policy = self._scores(self.model, batch)
        with torch.no_grad():
            reference = self._scores(self.frozen("reference"), batch)
        losses, better, worse = dpo(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1], self.beta)
        margins = better - worse
        loss = losses.mean()
        metrics = {"loss": loss.detach(), "accuracy": (margins > 0).float().mean(), "margin": margins.mean()}
        metrics |= {"chosen_reward": better.mean(), "rejected_reward": worse.mean()}
        return loss, {**metrics, "tokens": batch.lengths.sum(1)}

    def _scores(self, model: nn.Module, batch: Batch) -> Tensor:
        """Log-probabilities of the chosen and rejected answers (B, 2)."""
        inputs, targets = batch.inputs.flatten(0, 1)[:, :-1], batch.targets.flatten(0, 1)[:, 1:]
        with evaluating(model):  # as published: dropout would part the policy from the reference that it began as
            found = log_probabilities(at_least_single(model(inputs)), targets).sum(1)
        if self.length_normalised:
            found = found / (targets != IGNORED).sum(1).clamp(min=1)
        return found.view(-1, 2)

    def prompts_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        first = batch._replace(inputs=batch.inputs[:, 0, :-1], targets=batch.targets[:, 0, 1:])
        return super().prompts_of(first)
