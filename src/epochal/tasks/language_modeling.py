"""The next token from the ones before it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.checks import check_number, check_whole
from epochal.core.seeds import mix
from epochal.data.batching import Batch
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task
from epochal.tasks.sequences import prompt_ids, show_state_gradients, tokens_of

LOOKED_AT = 8  # windows whose gradients are averaged: step by step, a long one takes its time


class LanguageModeling(Task):
    """Cross-entropy, in nats, of the logits (B, T, vocabulary) against the next tokens (B, T).

    Logs loss, perplexity, bits per character and tokens per second, and writes samples; of a recurrent network also
    how many powers of ten the gradient of the last step's loss loses on its way to the first state.

    Args:
        sample_length: Tokens in a sample.
        samples: How many are written at each validation.
        temperature: How bold they are: 0 always takes the likeliest token, 1 draws as the network gives the chances.
        top_k, top_p: Draw only from so many of the likeliest tokens, or from the fewest of them that together have
            this probability (Holtzman et al. 2020, arXiv 1904.09751); None from all.

    Raises:
        ValueError: If one of these is out of range.
    """

    reports: ClassVar = ("val/loss", "min")

    def __init__(
        self,
        *,
        sample_length: int = 300,
        samples: int = 2,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        check_number("temperature", temperature, 0)
        if top_k is not None:
            check_whole("top_k", top_k, 1)
        if top_p is not None:
            check_number("top_p", top_p, 0, most=1)
            if top_p == 0:
                raise ValueError("top_p=0 would leave no token to draw from; top_k=1 always takes the likeliest.")
        self.sample_length, self.samples = sample_length, samples
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        logits = self.model(batch.inputs)  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        return loss, {"loss": loss.detach(), **tokens_of(batch)}

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        loss = means["loss"]
        bits = loss / math.log(2) / self.data.characters_per_token[split]
        return {**means, "perplexity": math.exp(min(loss, 700)), "bits_per_character": bits}

    def show(self) -> Artifacts:
        artifacts = self.test_artifacts()
        show_state_gradients(self, artifacts, last_step_loss, examples=LOOKED_AT)
        return artifacts

    def test_artifacts(self) -> Artifacts:
        return Artifacts(texts={"samples": "\n\n----\n\n".join(self.sample())})

    def sample(self, prompt: str | None = None) -> list[str]:
        """Texts that begin with the prompt, the same ones for the same weights and seed.

        Args:
            prompt: None is the data's own.

        Raises:
            ValueError: If it is empty, longer than the network reads, or has characters that the vocabulary lacks.
        """
        if prompt is None:
            ids = self.data.tokenizer.encode(self.data.prompt).tolist()
        else:
            ids = prompt_ids(self.data.tokenizer, prompt, longest=getattr(self.model, "context_length", None))
        random = torch.Generator(self.device).manual_seed(mix(self.data.seed, 7))
        tokens = self.model.generate(
            torch.tensor(ids, device=self.device).expand(self.samples, -1),
            length=self.sample_length,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            generator=random,
        )
        return [self.data.tokenizer.decode(row).strip("\n") for row in tokens.tolist()]


def last_step_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the last token of each window, a sum over windows."""
    return F.cross_entropy(logits[:, -1], targets[:, -1], reduction="sum")
