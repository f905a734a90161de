"""Drawing the next token."""

from __future__ import annotations

import torch
from torch import Tensor

from epochal.models.common.layers import check_sizes


def check_generation(
    prompt: Tensor, *, length: int, temperature: float, top_k: int | None, top_p: float | None = None
) -> None:
    """Raise ValueError for arguments of generate() that no language model can follow."""
    if prompt.dim() != 2 or prompt.shape[1] < 1:
        raise ValueError(f"prompt must be of shape (B, T) with at least one token, not {tuple(prompt.shape)}.")
    if length < 0:
        raise ValueError(f"length={length} must be at least 0.")
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must be at least 0; 0 always takes the likeliest token.")
    if top_k is not None:
        check_sizes(top_k=top_k)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1; 1 draws from all tokens.")


def next_token(
    logits: Tensor,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None = None,
    generator: torch.Generator | None,
) -> Tensor:  # (B, V) -> (B, 1)
    """Draw one token a row; temperature 0 takes the likeliest, top_k leaves only the k likeliest to draw from.

    top_p leaves the nucleus, the fewest likeliest tokens that together have at least this probability (Holtzman et al.
    2019, arXiv 1904.09751). It is counted after the other two, whatever top_k has left making 1.

    The draw happens on the generator's device, so one seed gives one text whatever the model runs on.
    """
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        values, places = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, float("-inf")).scatter(-1, places, values)
    if top_p is not None and top_p < 1:
        values, places = logits.sort(dim=-1, descending=True)
        shares = values.softmax(dim=-1)
        outside = shares.cumsum(dim=-1) - shares >= top_p  # the likelier ones are enough; the first is never outside
        logits = torch.scatter(logits, -1, places, values.masked_fill(outside, float("-inf")))
    device = logits.device if generator is None else generator.device
    return torch.multinomial(logits.softmax(dim=-1).to(device), 1, generator=generator).to(logits.device)
