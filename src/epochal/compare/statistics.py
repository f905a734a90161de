"""Tests of a claim: supported, not supported or inconclusive. docs/verdicts.md explains the rule."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np

from epochal.compare.groups import varying
from epochal.compare.labels import label
from epochal.compare.records import Record, Value
from epochal.core.format import count_text, difference_text

Decision = Literal["supported", "not supported", "inconclusive"]

MIN_SEEDS = 3  # on both sides; fewer decide nothing
FEW = 8  # pairs; with fewer, the smallest p of the exact test does not survive a correction
FACTOR = 2.0  # with few pairs, the mean must exceed this multiple of the standard deviation
LEVEL = 0.05
EXACT = 20  # pairs up to which all sign flips are enumerated; beyond, DRAWS of them are sampled
DRAWS = 2**20
RESAMPLES = 10_000


@dataclass(frozen=True)
class Tested:
    """The result of one test of a claim: whether y is larger on one side than on the other, pair by pair.

    Attributes:
        says: The tested statement.
        verdict: The decision.
        sentence: The numbers behind it, in words.
        y: The value compared.
        pairs: Number of pairs, one for each seed; without any, all that follows is None.
        agree: How many of the differences, minus the margin, have the sign of their mean.
        mean, std: Of the differences, first side minus second; std is None for a single pair.
        interval: Bootstrap interval of the mean, with 95 % coverage for all tests of the claim together.
        p: Of the exact two-sided sign-flip test, not corrected.
        corrected_p: Corrected by Holm's method for all tests of the claim.
        smallest_p: The smallest that this number of pairs allows.
    """

    says: str
    verdict: Decision
    sentence: str
    y: str
    pairs: int
    agree: int = 0
    mean: float | None = None
    std: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    corrected_p: float | None = None
    smallest_p: float | None = None


@dataclass(frozen=True)
class Verdict:
    """On a claim: supported if every test is, not supported if one is contradicted, else inconclusive."""

    verdict: Decision
    sentence: str
    tests: tuple[Tested, ...]


def judge(claim: Mapping[str, Any], records: Sequence[Record]) -> Verdict:
    """Tests a claim on its finished runs.

    Args:
        claim: Its `tests` are mappings with `says`, `y`, `more` or `not_more`, and `than` (the config values of the runs
            on either side), and optionally `margin`, the smallest difference that counts (0).
        records: All runs of the claim.
    """
    finished = [record for record in records if record.status == "finished"]
    tests = claim.get("tests") or []
    paired = [pair(finished, first_side(test), test["than"], test["y"]) for test in tests]
    differences = [np.array([a - b for a, b in pairs]) - test.get("margin", 0) for test, pairs in zip(tests, paired)]
    ps = [sign_flip_p(difference) for difference in differences]
    results = tuple(
        _tested(test, finished, pairs, difference, corrected, len(tests))
        for test, pairs, difference, corrected in zip(tests, paired, differences, holm(ps))
    )
    return Verdict(*_overall(results), results)


def first_side(test: Mapping[str, Any]) -> dict[str, Value]:
    """The config values of the side that is said to be more, or not more, than the other."""
    return dict(test["more"] if "more" in test else test["not_more"])


def matching(records: Sequence[Record], values: Mapping[str, Value]) -> list[Record]:
    """The runs with these values; lists are compared as JSON text, as records hold them."""
    plain = {name: json.dumps(value) if isinstance(value, list) else value for name, value in values.items()}
    return [record for record in records if all(record.value(name) == value for name, value in plain.items())]


def pair(
    records: Sequence[Record], first: Mapping[str, Value], second: Mapping[str, Value], y: str
) -> list[tuple[float, float]]:
    """The values of y on both sides, one pair for each seed that both have.

    Where other keys vary on both sides, such as the data set, runs are matched by these too, and the pair of a seed is
    the mean over all matches. Repeated runs with the same values count as one, with their mean.

    Args:
        records: The finished runs.
        first, second: Config values of the runs on either side.
        y: The value compared.
    """
    sides = [matching(records, values) for values in (first, second)]
    also = {*varying(sides[0]), *varying(sides[1])} - {*first, *second}
    values_of = [{key: {record.value(key) for record in side} for key in also} for side in sides]
    keys = ["seed", *sorted(key for key in also if values_of[0][key] & values_of[1][key])]
    found = []
    for side in sides:
        values: dict[tuple[Value, ...], list[float]] = {}
        for record in side:
            if isinstance(value := record.value(y), int | float):
                values.setdefault(tuple(record.value(key) for key in keys), []).append(float(value))
        found.append({key: sum(listed) / len(listed) for key, listed in values.items()})
    by_seed: dict[Value, list[tuple[float, float]]] = {}
    for key, value in found[0].items():
        if key in found[1]:
            by_seed.setdefault(key[0], []).append((value, found[1][key]))
    return [(fmean(a for a, _ in pairs), fmean(b for _, b in pairs)) for pairs in by_seed.values()]


def decide(differences: np.ndarray, corrected_p: float | None) -> Literal["above", "below", "unclear"]:
    """Whether differences, (pairs,), are above zero, below it, or not clearly either."""
    mean = float(differences.mean())
    if len(differences) >= FEW:
        clear = corrected_p is not None and corrected_p <= LEVEL
    else:
        agree = bool((differences > 0).all() or (differences < 0).all())
        clear = agree and abs(mean) > FACTOR * float(differences.std(ddof=1))
    return ("above" if mean > 0 else "below") if clear else "unclear"


def sign_flip_p(differences: np.ndarray) -> float | None:
    """The p-value of the exact two-sided paired permutation test (sign-flip test).

    It is the fraction of all ways to swap the sides of pairs that give a mean difference at least as far from zero.

    Args:
        differences: (pairs,).

    Returns:
        In (0, 1]; None without pairs.
    """
    if not len(differences):
        return None
    observed = abs(float(differences.sum())) * (1 - 1e-9)  # the order of a sum changes its rounding
    if len(differences) > EXACT:
        generator = np.random.default_rng(0)
        flips = (generator.choice((-1.0, 1.0), (DRAWS // 64, len(differences))) @ differences for _ in range(64))
        return (1 + sum(int((np.abs(sums) >= observed).sum()) for sums in flips)) / (1 + DRAWS)
    sums = differences[:1]  # the first sign stays: flipping all of them changes no absolute value
    for difference in differences[1:]:
        sums = np.concatenate((sums + difference, sums - difference))
    return float((np.abs(sums) >= observed).mean())


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p-values corrected by Holm's step-down method (1979), which bounds the family-wise error rate; None stays None."""
    corrected: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, index in enumerate(sorted((i for i, p in enumerate(ps) if p is not None), key=lambda i: ps[i] or 0.0)):
        highest = max(highest, min(1.0, (ps[index] or 0.0) * (len(ps) - rank)))
        corrected[index] = highest
    return corrected


def bootstrap_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """The central 1 - level of the bootstrap means of values, (n,); None for fewer than two values."""
    if len(values) < 2:
        return None
    indices = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[indices].mean(axis=1), (level / 2, 1 - level / 2))
    return float(low), float(high)


def _tested(
    test: Mapping[str, Any],
    finished: Sequence[Record],
    pairs: Sequence[tuple[float, float]],
    differences: np.ndarray,
    corrected_p: float | None,
    tests: int,
) -> Tested:
    y, margin = test["y"], float(test.get("margin", 0))
    if not pairs:
        return Tested(test["says"], "inconclusive", _missing(test, finished), y, 0)
    mean, p = float(differences.mean()), sign_flip_p(differences)
    result = Tested(
        says=test["says"],
        verdict="inconclusive",
        sentence="",
        y=y,
        pairs=len(pairs),
        agree=int((differences * (mean or 1) > 0).sum()),
        mean=mean + margin,
        std=float(differences.std(ddof=1)) if len(pairs) > 1 else None,
        interval=bootstrap_interval(differences + margin, LEVEL / tests),
        p=p,
        corrected_p=corrected_p,
        smallest_p=2.0 ** (1 - len(pairs)),
    )
    if len(pairs) >= MIN_SEEDS:
        wanted = "above" if "more" in test else "below"
        decision = decide(differences, corrected_p)
        verdict: Decision = (
            "inconclusive" if decision == "unclear" else "supported" if decision == wanted else "not supported"
        )
        result = replace(result, verdict=verdict)
    return replace(result, sentence=_numbers(result, margin))


def _numbers(result: Tested, margin: float) -> str:
    """The difference, its interval, how many pairs agree, and p, in words."""
    assert result.mean is not None and result.p is not None
    y, n = result.y, result.pairs
    interval = ""
    if result.interval is not None:
        low, high = (difference_text(y, end).removesuffix(" points") for end in result.interval)
        interval = f" (95 % interval {low} to {high})"
    words = [f"{y} {difference_text(y, result.mean)} on average{interval}"]
    if margin:
        words.append(f"margin {difference_text(y, margin)}")
    if n < MIN_SEEDS:
        return f"{', '.join(words)}; {count_text(n, 'seed')} on both sides, and {MIN_SEEDS} are needed"
    words.append(f"{result.agree} of {n} pairs {'on that side of it' if margin else 'agree'}")
    if n < FEW and result.std is not None:
        words.append(f"2 standard deviations are {difference_text(y, FACTOR * result.std, sign=False)}")
        least = f", the least that {n} pairs can give" if result.p == result.smallest_p else ""
        return f"{', '.join(words)}; exact p = {result.p:.2g}{least}"
    return f"{', '.join(words)}; exact p = {result.p:.2g}, corrected {result.corrected_p:.2g}"


def _missing(test: Mapping[str, Any], finished: Sequence[Record]) -> str:
    """The reason why there are no pairs."""
    for values in (first_side(test), test["than"]):
        side = matching(finished, values)
        if not side:
            return f"no finished run has {label(dict(values))}"
        if all(record.value(test["y"]) is None for record in side):
            return f"no run with {label(dict(values))} has {test['y']}"
    return "no seed is on both sides with all else alike"


def _overall(results: Sequence[Tested]) -> tuple[Decision, str]:
    """The claim's verdict, and the reason for it."""
    against = [result.says for result in results if result.verdict == "not supported"]
    undecided = [result.says for result in results if result.verdict == "inconclusive"]
    if against:
        return "not supported", f"The runs say the opposite of: {'; '.join(against)}."
    if undecided:
        return "inconclusive", f"The runs do not decide: {'; '.join(undecided)}."
    return "supported", "The runs support it." if len(
        results
    ) == 1 else f"Each of its {len(results)} tests is supported."
