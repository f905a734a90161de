"""The keys and values of the steps read so far."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """The keys and values of all steps read so far, of one attention layer (the KV cache)."""

    def __init__(self, steps: int) -> None:
        self.steps, self.used = steps, 0

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add new steps (B, heads, T, D) and return all."""
        if self.used == 0:
            batch, heads, _, size = key.shape
            self.key = key.new_empty(batch, heads, self.steps, size)
            self.value = torch.empty_like(self.key)
        start, self.used = self.used, self.used + key.shape[2]
        self.key[:, :, start : self.used] = key
        self.value[:, :, start : self.used] = value
        return self.key[:, :, : self.used], self.value[:, :, : self.used]
