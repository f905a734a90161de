"""The keys and values that attention has computed, kept while a text is generated."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Keys and values of one attention layer, of up to `steps` steps; memory is allocated at the first `extend`."""

    def __init__(self, steps: int) -> None:
        self.steps, self.used = steps, 0

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append new steps, (B, heads, T, D) each -> all steps so far, (B, heads, used, D) each."""
        if self.used == 0:
            batch, heads, _, size = key.shape
            self.key = key.new_empty(batch, heads, self.steps, size)
            self.value = torch.empty_like(self.key)
        start, self.used = self.used, self.used + key.shape[2]
        self.key[:, :, start : self.used] = key
        self.value[:, :, start : self.used] = value
        return self.key[:, :, : self.used], self.value[:, :, : self.used]
