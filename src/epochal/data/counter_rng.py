"""Counter-based random numbers for synthetic rows: each number depends on (seed, row, position) alone.

So a row does not depend on the batch that it is in, nor on the number of ranks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio, SplitMix64's increment


def uniform(seed: int, rows: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1), for each row from a SplitMix64 stream of its own.

    Args:
        seed: In [0, 2**64).
        rows: (B,) row numbers.
        count: Numbers for each row.

    Returns:
        (B, count) float64.
    """
    positions = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    state = _scramble(rows.numpy().astype(np.uint64)[:, None] * GOLDEN + np.uint64(seed)) + positions
    return torch.from_numpy((_scramble(state) >> np.uint64(11)).astype(np.float64)).mul_(2.0**-53)


def integers(seed: int, rows: Tensor, count: int, end: int) -> Tensor:
    """(B, count) int64 in [0, end); see `uniform`."""
    return uniform(seed, rows, count).mul_(end).long()


def normal(seed: int, rows: Tensor, count: int) -> Tensor:
    """(B, count) float64 from N(0, 1); see `uniform`."""
    return torch.special.ndtri(uniform(seed, rows, count).clamp_(min=2.0**-54))


def _scramble(state: np.ndarray) -> np.ndarray:
    """SplitMix64's output function."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
