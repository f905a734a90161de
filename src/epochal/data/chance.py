"""Random numbers for rows that are made and not read: each is a function of (seed, row, place) and nothing else.

So a row does not depend on the batch it is in, and several ranks make what one would.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from epochal.core.errors import ConfigError

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, rows: Tensor, count: int) -> Tensor:
    """Numbers from 0 up to, not including, 1: for each row a SplitMix64 stream of its own.

    Args:
        seed: Below 2**64.
        rows: (B,) row numbers.
        count: Numbers for each row.

    Returns:
        (B, count) float64.
    """
    places = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    state = _scramble(rows.numpy().astype(np.uint64)[:, None] * GOLDEN + np.uint64(seed)) + places
    return torch.from_numpy((_scramble(state) >> np.uint64(11)).astype(np.float64)).mul_(2.0**-53)


def whole(seed: int, rows: Tensor, count: int, end: int) -> Tensor:
    """(B, count) int64 from 0 up to, not including, end; see `uniform`."""
    return uniform(seed, rows, count).mul_(end).long()


def _scramble(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def check_count(option: str, value: Any, least: int = 1) -> None:
    """Raises ConfigError unless it is a whole number of at least so many."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"dataset.{option}={value} must be a whole number, {least:,} or more.")
