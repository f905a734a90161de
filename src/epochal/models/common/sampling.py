"""Text from a language model: the next token drawn again and again."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from epochal.core.checks import check_positive, check_sizes
from epochal.models.common.layers import evaluating


class AutoregressiveModel(nn.Module):
    """Base class of language models: continues a prompt, and reads each token of it only once where it can."""

    @abstractmethod
    def initial_state(self, steps: int) -> Any:
        """The state before the first token, for a text of at most `steps` tokens."""

    @abstractmethod
    def next_logits(self, text: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The whole text so far (B, T) and the state after the last call -> logits (B, V), and the new state."""

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        *,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # (B, T) -> (B, T + length)
        """Continue each prompt by length tokens.

        Args:
            prompt: Token ids, at least one in each row.
            length: Number of tokens to add.
            temperature: Divides the logits (softmax temperature); 0 is greedy, always the most likely token.
            top_k: Draw only from the k most likely tokens.
            top_p: Draw only from the smallest set of most likely tokens whose probabilities add up to at least this.
            generator: Random number generator, on any device.

        Raises:
            ValueError: If the prompt is empty or an argument is out of range.
        """
        check_generation(prompt, length=length, temperature=temperature, top_k=top_k, top_p=top_p)
        start, stop = prompt.shape[1], prompt.shape[1] + length
        text = torch.cat((prompt, prompt.new_empty(prompt.shape[0], length)), dim=1)
        with evaluating(self):
            state = self.initial_state(stop)
            for end in range(start, stop):
                logits, state = self.next_logits(text[:, :end], state)
                text[:, end : end + 1] = next_token(
                    logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
                )
        return text


def check_generation(
    prompt: Tensor, *, length: int, temperature: float, top_k: int | None, top_p: float | None = None
) -> None:
    """Raise ValueError unless the arguments of `AutoregressiveModel.generate` are possible."""
    if prompt.dim() != 2 or prompt.shape[1] < 1:
        raise ValueError(f"prompt must be of shape (B, T) with at least one token, not {tuple(prompt.shape)}.")
    if length < 0:
        raise ValueError(f"length={length} must be at least 0.")
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must be at least 0; 0 always takes the most likely token.")
    if top_k is not None:
        check_sizes(top_k=top_k)
    if top_p is not None:
        check_positive("top_p", top_p, most=1)


def next_token(
    logits: Tensor,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None = None,
    generator: torch.Generator | None,
) -> Tensor:  # (B, V) -> (B, 1)
    """Draw the next token of each row.

    temperature divides the logits, 0 is greedy. top_k keeps the k most likely tokens; top_p keeps the nucleus, the
    smallest set of most likely tokens whose probabilities add up to at least top_p (Holtzman et al. 2019, arXiv
    1904.09751), of the distribution that the temperature and top_k have left.

    The draw happens on the generator's device, so one seed gives one text whatever the model's device.
    """
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        values, ids = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, float("-inf")).scatter(-1, ids, values)
    if top_p is not None and top_p < 1:
        values, ids = logits.sort(dim=-1, descending=True)
        probabilities = values.softmax(dim=-1)
        outside = probabilities.cumsum(dim=-1) - probabilities >= top_p  # never of the first
        logits = torch.scatter(logits, -1, ids, values.masked_fill(outside, float("-inf")))
    device = logits.device if generator is None else generator.device
    return torch.multinomial(logits.softmax(dim=-1).to(device), 1, generator=generator).to(logits.device)
