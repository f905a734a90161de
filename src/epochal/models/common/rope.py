"""Rotary position embeddings: a position turns pairs of a query's and a key's elements, and nothing is added or learned.

Su et al.: RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021 (arXiv 2104.09864). The product of a query
at i with a key at j depends on i - j alone. Pair k of a head with D elements turns by position * base^(-2k/D), so that the
wavelengths go from 2 pi to 2 pi * base steps.

The pairs are (0, D/2), (1, D/2 + 1) ..., the half-split form of GPT-NeoX and of the checkpoints on the Hugging Face Hub; the
paper and Meta's own Llama files pair neighbours, which is the same network with the rows of the query's and key's matrices
in another order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Rotation = tuple[Tensor, Tensor]  # cosines and sines of some positions, (T, 1, D / 2) each


class RotaryPositions(nn.Module):
    """Cosines and sines of every position; buffers that no checkpoint holds, so the context can grow.

    Args:
        head_dim: Elements D of a head, an even number.
        context_length: Number of positions.
        base: Of the wavelengths.

    Raises:
        ValueError: If head_dim is odd.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, *, head_dim: int, context_length: int, base: float = 10_000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"Rotary positions turn pairs, but a head has {head_dim} elements; take an even number.")
        self.base = base
        rates = 1.0 / base ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        angles = torch.arange(context_length, dtype=torch.float32)[:, None] * rates
        self.register_buffer("cos", angles.cos()[:, None], persistent=False)
        self.register_buffer("sin", angles.sin()[:, None], persistent=False)

    def forward(self, start: int, stop: int) -> Rotation:
        """Those of the positions from start to before stop."""
        return self.cos[start:stop], self.sin[start:stop]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:  # (B, T, heads, D) -> (B, T, heads, D)
    """Each head turned as its position says."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
