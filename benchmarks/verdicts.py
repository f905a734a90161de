"""How often rules for a verdict are right and wrong, on made-up runs whose true difference is known.

python benchmarks/verdicts.py    the table of docs/verdicts.md, in a minute

Both sides have n seeds. Each cell tells how often, in percent, a rule says "supported" where there is no difference (2.5 is
what a 95 % interval promises), and where the first side is truly larger by one and by two standard deviations between seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from epochal.compare.intervals import t_quantile

ROUNDS = 4000
SEEDS = (3, 5, 8, 16)
EFFECTS = (0, 1, 2)  # in standard deviations between seeds
SAMPLED = 4000  # permutations and sign flips that are tried where there are too many for all

Sides = tuple[
    np.ndarray, np.ndarray
]  # (rounds, seeds) each, mean 0, and standard deviations of which the mean square is 1
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]  # whether the first side is found larger, (rounds,)


def normal(chance: np.random.Generator, n: int) -> Sides:
    return chance.normal(size=(ROUNDS, n)), chance.normal(size=(ROUNDS, n))


def unequal(chance: np.random.Generator, n: int) -> Sides:
    """One side spreads three times as wide as the other."""
    first, second = normal(chance, n)
    return first * math.sqrt(1.8), second * math.sqrt(0.2)


def heavy(chance: np.random.Generator, n: int) -> Sides:
    """Student's t with three degrees of freedom: now and then a seed far off."""
    first, second = (chance.standard_t(3, (ROUNDS, n)) / math.sqrt(3) for _ in range(2))
    return first, second


def skewed(chance: np.random.Generator, n: int) -> Sides:
    """Log-normal: a seed is rarely much worse, never much better."""
    variance = 0.64
    scale = math.sqrt((math.exp(variance) - 1) * math.exp(variance))
    first, second = (
        (np.exp(chance.normal(0, math.sqrt(variance), (ROUNDS, n))) - math.exp(variance / 2)) / scale for _ in range(2)
    )
    return first, second


def by_seed(chance: np.random.Generator, n: int) -> Sides:
    """Half of the variance is the seed's, the same on both sides: the case that pairing is made for."""
    shared, (first, second) = chance.normal(size=(ROUNDS, n)), normal(chance, n)
    return (first + shared) * math.sqrt(0.5), (second + shared) * math.sqrt(0.5)


def quantiles(freedom: np.ndarray) -> np.ndarray:
    """Of Student's t at 0.975, interpolated."""
    points = np.concatenate((np.arange(1, 10, 0.05), np.arange(10, 60, 0.5)))
    return np.interp(freedom, points, [t_quantile(0.975, float(point)) for point in points])


def old(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Version 0.1: below 8 pairs all agree and exceed two standard deviations, from 8 the exact sign-flip test."""
    differences, n = first - second, first.shape[1]
    if n < 8:
        return (differences > 0).all(1) & (differences.mean(1) > 2 * differences.std(1, ddof=1))
    every = np.array(list(itertools.product((1, -1), repeat=n))) if n <= 8 else None
    flips = np.random.default_rng(0).choice((-1.0, 1.0), (SAMPLED, n)) if every is None else every
    observed = differences.sum(1, keepdims=True) * (1 - 1e-9)
    as_far = np.abs(differences @ flips.T) >= np.abs(observed)
    return (as_far.mean(1) <= 0.05) & (observed[:, 0] > 0)


def paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The t interval of the differences by seed."""
    differences, n = first - second, first.shape[1]
    half = quantiles(np.array(n - 1.0)) * differences.std(1, ddof=1) / math.sqrt(n)
    return differences.mean(1) > half


def welch(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Welch's t interval, as in epochal.compare.statistics."""
    n = first.shape[1]
    parts = [side.var(1, ddof=1) / n for side in (first, second)]
    freedom = (parts[0] + parts[1]) ** 2 / ((parts[0] ** 2 + parts[1] ** 2) / (n - 1))
    return first.mean(1) - second.mean(1) > quantiles(freedom) * np.sqrt(parts[0] + parts[1])


def permutation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The exact unpaired permutation test of the means from five seeds, below that Welch's interval."""
    n = first.shape[1]
    if n < 5:
        return welch(first, second)
    if n <= 8:
        chosen = np.array(list(itertools.combinations(range(2 * n), n)))
        signs = -np.ones((len(chosen), 2 * n))
        np.put_along_axis(signs, chosen, 1, 1)
    else:
        chance = np.random.default_rng(0)
        signs = np.array([chance.permutation([1.0] * n + [-1.0] * n) for _ in range(SAMPLED)])
    observed = (first.sum(1) - second.sum(1))[:, None] * (1 - 1e-9)
    as_far = np.abs(np.concatenate((first, second), 1) @ signs.T) >= np.abs(observed)
    return (as_far.mean(1) <= 0.05) & (observed[:, 0] > 0)


WORLDS = {
    normal: "normal",
    unequal: "normal, one side three times as wide",
    heavy: "Student's t, 3 degrees of freedom",
    skewed: "log-normal",
    by_seed: "half shared by both sides of a seed",
}
RULES: dict[str, Rule] = {"version 0.1": old, "paired t": paired, "Welch's t": welch, "permutation": permutation}


def main() -> None:
    print("| seeds differ by | n | " + " | ".join(RULES) + " |")
    print("|---" * (len(RULES) + 2) + "|")
    for world, words in WORLDS.items():
        for n in SEEDS:
            first, second = world(np.random.default_rng(n), n)
            cells = [
                " / ".join(f"{100 * rule(first + effect, second).mean():.1f}" for effect in EFFECTS)
                for rule in RULES.values()
            ]
            print(f"| {words} | {n} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
