"""Confidence intervals by Student's t."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

LEVEL = 0.05  # the chance that an interval misses the true value


def welch_interval(first: np.ndarray, second: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The interval of the difference of two means, by Welch's t with Satterthwaite's degrees of freedom.

    Args:
        first, second: The values of either side, (n,) and (m,), two at least.
        level: The chance that it misses the true difference, if the values are normal.
    """
    difference = float(first.mean() - second.mean())
    parts = [float(side.var(ddof=1)) / len(side) for side in (first, second)]
    if sum(parts) == 0:
        return difference, difference
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (first, second)))
    half = t_quantile(1 - level / 2, freedom) * math.sqrt(sum(parts))
    return difference - half, difference + half


@lru_cache(maxsize=1024)
def t_quantile(p: float, freedom: float) -> float:
    """The quantile of Student's t distribution. SciPy has it, but where that is installed Lightning imports it at every start.

    Args:
        p: In [0.5, 1).
        freedom: Degrees of freedom, 1 or more.
    """
    nodes, weights = np.polynomial.legendre.leggauss(128)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    low, high = (
        0.0,
        math.pi / 2,
    )  # angles whose tangent is t / sqrt(freedom): there the density is a power of the cosine
    for _ in range(60):
        angle = (low + high) / 2
        powers = np.cos(angle * (nodes + 1) / 2) ** (freedom - 1)
        if 0.5 + scale * angle / 2 * float(weights @ powers) < p:
            low = angle
        else:
            high = angle
    return math.sqrt(freedom) * math.tan(low)
