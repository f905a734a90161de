"""The next token from the ones before it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.data.base import Batch, mix
from epochal.tasks.base import Metrics, Shown, Task


class LanguageModeling(Task):
    """Cross-entropy, in nats, of the logits (B, T, vocabulary) against the next tokens (B, T).

    Logs loss, perplexity and bits per character, and writes samples.

    Args:
        sample_length: Tokens in a sample.
        samples: How many are written at each validation.
        temperature, top_k: How bold they are; top_k None takes any token.
    """

    reports: ClassVar = ("val/loss", "min")

    def __init__(
        self,
        *,
        sample_length: int = 300,
        samples: int = 2,
        temperature: float = 0.8,
        top_k: int | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.sample_length, self.samples = sample_length, samples
        self.temperature, self.top_k = temperature, top_k

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        logits = self.model(batch.inputs)  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        return loss, {"loss": loss.detach()}

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        loss = means["loss"]
        bits = loss / math.log(2) / self.data.characters_per_token[split]
        return {**means, "perplexity": math.exp(min(loss, 700)), "bits_per_character": bits}

    def show(self) -> Shown:
        return Shown(texts={"samples": "\n\n----\n\n".join(self.sample())})

    def show_test(self) -> Shown:
        return self.show()

    def sample(self, prompt: str | None = None) -> list[str]:
        """Texts that begin with the prompt, the same ones for the same weights and seed."""
        prompt = self.data.prompt if prompt is None else prompt
        ids = self.data.tokenizer.encode(prompt)
        random = torch.Generator(self.device).manual_seed(mix(self.data.seed, 7))
        tokens = self.model.generate(
            torch.tensor(ids.astype("int64"), device=self.device).expand(self.samples, -1),
            length=self.sample_length,
            temperature=self.temperature,
            top_k=self.top_k,
            generator=random,
        )
        return [self.data.tokenizer.decode(row).strip("\n") for row in tokens.tolist()]
