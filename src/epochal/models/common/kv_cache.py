"""The keys and values that attention has computed, kept while a text is generated."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Keys and values of one attention layer; memory is allocated at the first `extend`.

    Args:
        steps: For how many steps there is room at first; it is doubled as often as needed.
    """

    def __init__(self, steps: int = 32) -> None:
        self.steps, self.used = max(steps, 1), 0

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append new steps, (B, heads, T, D) each -> all steps so far, (B, heads, used, D) each."""
        start, self.used = self.used, self.used + key.shape[2]
        while self.steps < self.used:
            self.steps *= 2
        if start == 0:
            self.key, self.value = self._room(key), self._room(value)
        elif self.key.shape[2] < self.steps:
            before = self.key[:, :, :start], self.value[:, :, :start]
            self.key, self.value = self._room(key), self._room(value)
            self.key[:, :, :start], self.value[:, :, :start] = before
        self.key[:, :, start : self.used] = key
        self.value[:, :, start : self.used] = value
        return self.key[:, :, : self.used], self.value[:, :, : self.used]

    def select(self, rows: Tensor) -> KVCache:
        """A cache of its own with these rows of the batch, in this order and as often as they are named."""
        chosen = KVCache(self.steps)
        if self.used:
            chosen.extend(
                *(kept[:, :, : self.used].index_select(0, rows) for kept in (self.key, self.value)),
            )
        return chosen

    def _room(self, like: Tensor) -> Tensor:  # (B, heads, T, D) -> (B, heads, steps, D)
        batch, heads, _, size = like.shape
        return torch.empty(batch, heads, self.steps, size, dtype=like.dtype, device=like.device)
