"""Power laws, such as that of the loss in the number of parameters, and the sizes that are best for their compute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epochal.compare.intervals import LEVEL, t_quantile

LEAST = 3  # points below which there is no law: a line through two always fits
GRID = 200  # amounts of compute at which curves are compared


@dataclass(frozen=True)
class PowerLaw:
    """y = factor * x ** exponent.

    Attributes:
        factor, exponent: Those of the line of least squares through the logarithms of the points.
        interval: Of the exponent, 95 %, by Student's t from how far the points lie off the line: n - 2 degrees of freedom.
        n: Number of points.
    """

    factor: float
    exponent: float
    interval: tuple[float, float]
    n: int

    def __call__(self, x: float) -> float:
        return float(self.factor * x**self.exponent)

    def __str__(self) -> str:
        low, high = self.interval
        return f"exponent {self.exponent:.3f}, 95 % interval {low:.3f} to {high:.3f} through {self.n} points"


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw | None:
    """The power law through points (n,) and (n,); None if fewer than three x differ, or a value is not above 0."""
    if len({*x}) < LEAST or min([*x, *y]) <= 0:
        return None
    u, v = np.log(np.array([x, y], float))
    across = u - u.mean()
    spread = float(across @ across)
    exponent = float(across @ v) / spread
    level = float(v.mean() - exponent * u.mean())
    freedom = len(u) - 2
    error = math.sqrt(float(((v - level - exponent * u) ** 2).sum()) / freedom / spread)
    half = t_quantile(1 - LEVEL / 2, freedom) * error
    return PowerLaw(math.exp(level), exponent, (exponent - half, exponent + half), len(u))


def best_sizes(curves: Mapping[float, tuple[np.ndarray, np.ndarray]]) -> list[tuple[float, float, float]]:
    """The sizes that are best for some amount of compute, with the middle of these amounts and the loss there.

    Whether a size is best is only known where the next smaller and the next larger one have a loss too, and so never of the
    smallest and the largest.

    Args:
        curves: Of each size its compute (n,), ascending and above 0, and its loss (n,).

    Returns:
        (size, compute, loss) of each, by size.
    """
    sizes = sorted(curves)
    if len(sizes) < 3:
        return []
    ends = [(curves[size][0][0], curves[size][0][-1]) for size in sizes]
    grid = np.geomspace(min(low for low, _ in ends), max(high for _, high in ends), GRID)
    losses = np.array([np.interp(np.log(grid), np.log(curves[s][0]), curves[s][1]) for s in sizes])
    known = np.array([(low <= grid) & (grid <= high) for low, high in ends])
    losses[~known] = np.inf
    found = []
    for i in range(1, len(sizes) - 1):
        best = np.flatnonzero(known[i - 1 : i + 2].all(axis=0) & (losses.argmin(axis=0) == i))
        if len(best):
            middle = best[len(best) // 2]
            found.append((float(sizes[i]), float(grid[middle]), float(losses[i, middle])))
    return found
