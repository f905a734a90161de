"""Tests of a claim: supported, not supported or inconclusive. docs/verdicts.md explains the rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from epochal.compare.intervals import LEVEL, welch_interval
from epochal.compare.labels import key_text, label
from epochal.compare.power_law import LEAST
from epochal.compare.records import Record, usable_number
from epochal.compare.sides import Side, matching, predicted, run_sides, sides
from epochal.core.format import count_text, difference_text, number_text, ratio_text
from epochal.core.metrics import find

Decision = Literal["supported", "not supported", "inconclusive"]

MIN_SEEDS = 3  # on either side; fewer decide nothing
RULE = f"Welch's t interval of the difference, {100 - 100 * LEVEL:.0f} %"
ROUNDING = 1e-6  # smaller differences, relative to the values, are rounding of floats


@dataclass(frozen=True)
class Tested:
    """The result of one test of a claim: whether y is larger on one side than on the other, or as large as predicted.

    Attributes:
        says: The tested statement.
        verdict: The decision.
        sentence: The numbers behind it, or why there are none, in words.
        why: What kept the runs from deciding where the interval does not show it, in words; empty if nothing did.
        y: The value compared.
        seeds: How many each side has; the same number twice if the second is a number, or predicted.
        mean: Of the first side, minus that of the second; None if either has no value.
        interval: Welch's t interval of the difference, 95 %; None with a single seed on either side. The test is supported
            if all of it lies beyond the margin, on the side that the test says.
        against: The same at 1 - 0.05 / k for a claim of k tests; the test is not supported if all of it lies on the other
            side. One such test decides against the claim, so that all of them share the 5 %.
        resolution: The smallest difference that counts where the test has no margin; see `resolution`.
        log: The differences are those of natural logarithms: they are written as ratios, by `text`.
    """

    says: str
    verdict: Decision
    sentence: str
    y: str
    seeds: tuple[int, int]
    mean: float | None = None
    interval: tuple[float, float] | None = None
    against: tuple[float, float] | None = None
    resolution: float = 0.0
    log: bool = False
    why: str = ""

    def text(self, difference: float, *, sign: bool = True) -> str:
        """One of its differences in words: `+18.60 points`, or `×1.083` if they are of logarithms."""
        return ratio_text(math.exp(difference)) if self.log else difference_text(self.y, difference, sign=sign)

    def interval_text(self, interval: tuple[float, float]) -> str:
        """`+15.20 to +22.00`, or of ratios `1.021 to 1.142`."""
        return " to ".join(self.text(end).removesuffix(" points").removeprefix("×") for end in interval)


@dataclass(frozen=True)
class Verdict:
    """On a claim: supported if every test is, not supported if one is contradicted, else inconclusive."""

    verdict: Decision
    sentence: str
    tests: tuple[Tested, ...]

    @property
    def rule(self) -> str:
        """The statistical rule that its tests were decided by."""
        logs = [test.log for test in self.tests]
        if all(logs):
            return RULE.replace("difference", "ratio, as difference of logarithms")
        return f"{RULE}; where a test gives a ratio, of the difference of logarithms" if any(logs) else RULE


def judge(claim: Mapping[str, Any], records: Sequence[Record]) -> Verdict:
    """Tests a claim on its runs.

    Args:
        claim: Its `tests` are mappings with `says`, `y`, `more` or `not_more`, and `than` (the config values of the runs
            on either side; of the second a number too), and optionally `margin`, the smallest difference that counts; `scale: log`, by which
            logarithms are compared, and the margin is a ratio; and `failed: worst`: runs that diverged or were pruned
            have the worst value of both sides. Or they have `says`, `y`, `predicted` (the config values of the runs of one
            size), `by` and `margin`, a ratio: whether y is what a power law in `by` through all other sizes predicts.
            Its `needs` are bounds such as
            `{y: train/error, below: 0.1}`: a test decides only if the mean of both sides keeps to them.
        records: All runs of the claim, finished or not.
    """
    tests = claim.get("tests") or []
    results = tuple(_tested(test, claim.get("needs") or (), records, len(tests)) for test in tests)
    return Verdict(*_overall(results), results)


def resolution(y: str, values: tuple[np.ndarray, np.ndarray], examples: float | None) -> float:
    """The smallest difference of two means that says something.

    Of a fraction of examples, such as an error, it is the binomial standard error of the mean of both sides, one example at
    least: all seeds are tested on the same examples, so that more seeds do not resolve more. Of all else it is rounding.

    Args:
        y: The metric.
        values: Those of both sides, (n,) and (m,).
        examples: How many it was measured on; None if that is not known.
    """
    means = [float(side.mean()) for side in values]
    rounding = ROUNDING * max(map(abs, means))
    if not examples or not find(y).percent:
        return rounding
    fraction = min(1.0, max(0.0, sum(means) / 2))
    return max(rounding, 1 / examples, math.sqrt(fraction * (1 - fraction) / examples))


def _tested(test: Mapping[str, Any], needs: Sequence[Mapping[str, Any]], records: Sequence[Record], k: int) -> Tested:
    y, law = test["y"], predicted(test, records) if "predicted" in test else None
    both = sides(test, records) if law is None else (law.measured, law.expected)
    log = law is not None or test.get("scale") == "log"
    counts = (len(both[0].values), len(both[1].values))
    result = Tested(test["says"], "inconclusive", "", y, counts, log=log)
    reason = _unfit(test, both, needs, records)
    if not all(counts) or (log and min(side.values.min() for side in both) <= 0):
        return replace(result, sentence=reason or "", why=reason or "")
    values, margin, least = _compared(test, both, log)
    result = replace(result, mean=float(values[0].mean() - values[1].mean()), resolution=least)
    if min(counts) > 1:
        result = replace(result, interval=welch_interval(*values), against=welch_interval(*values, LEVEL / k))
    if reason is None:
        result = replace(result, verdict=_decide(result, margin or 0, test))
        why = _limit(result, k, _decide(replace(result, against=result.interval), margin or 0, test))
    else:
        why = reason
    sentence = _numbers(result, margin, reason is not None, why, _than(test, both))
    return replace(
        result,
        sentence=sentence if law is None else f"{sentence}; power law in {key_text(test['by'])}: {law.law}",
        why="" if result.verdict == "not supported" else why,
    )


def _compared(
    test: Mapping[str, Any], both: tuple[Side, Side], log: bool
) -> tuple[tuple[np.ndarray, np.ndarray], float | None, float]:
    """The values of both sides, (n,) and (m,), the margin, and the smallest difference that counts; of logarithms if log."""
    values, margin = (both[0].values, both[1].values), test.get("margin")
    least = 0.0 if margin is not None else resolution(test["y"], values, _examples(test["y"], both))
    if log:
        least = math.log1p(least / float(np.mean([side.mean() for side in values])))
        values, margin = (np.log(values[0]), np.log(values[1])), None if margin is None else math.log(margin)
    if "predicted" in test:
        values = values[0] - values[1], np.zeros(len(values[0]))  # each seed with the prediction of its own
    return values, margin, least


def _decide(result: Tested, margin: float, test: Mapping[str, Any]) -> Decision:
    """The decision by the intervals: the difference is said to lie above the margin, below, or within it on either side of 0."""
    assert result.mean is not None and result.interval is not None and result.against is not None
    if "predicted" in test:
        if all(abs(end) < margin for end in result.interval):
            return "supported"
        outside = min(result.against) > margin or max(result.against) < -margin
        return "not supported" if outside else "inconclusive"
    if abs(result.mean) < result.resolution:
        return "inconclusive"
    sign = 1 if "more" in test else -1
    if all(sign * (end - margin) > 0 for end in result.interval):
        return "supported"
    return "not supported" if all(sign * (end - margin) < 0 for end in result.against) else "inconclusive"


def _than(test: Mapping[str, Any], both: tuple[Side, Side]) -> str:
    """What the difference is to, where that is not the other side's runs."""
    if "predicted" in test:
        return " of what is predicted"
    return "" if isinstance(test["than"], Mapping) else f" against {both[1].label}"


def _unfit(
    test: Mapping[str, Any], both: tuple[Side, Side], needs: Sequence[Mapping[str, Any]], records: Sequence[Record]
) -> str | None:
    """Why the runs cannot decide, whatever their values; None if they can."""
    if (missing := _missing(test, both, records)) is not None:
        return missing
    counts = [len(side.values) for side in both]
    if test.get("scale") == "log" or "predicted" in test:
        how = " (scale: log)" if "scale" in test else ""
        for side in both:
            if (least := side.values.min()) <= 0:
                has = f"{side.label} has a {test['y']} of {number_text(test['y'], least)}"
                return f"{has}, and only values above 0 can be compared by their logarithms{how}"
    if (unlearned := _unlearned(both, needs)) is not None:
        return unlearned
    if min(counts) < MIN_SEEDS:
        where = f" on {'each' if counts[0] == counts[1] else 'one'} side" if len(run_sides(test)) > 1 else ""
        return f"{count_text(min(counts), 'seed')}{where}, and {MIN_SEEDS} are needed"
    return None


def _missing(test: Mapping[str, Any], both: tuple[Side, Side], records: Sequence[Record]) -> str | None:
    """What runs or values are missing, if any."""
    for values in run_sides(test):
        if not matching(records, values):
            return f"no run that counts has {label(values)}"
    for side in both:
        if side.lost:
            return side.why_lost(test["y"])
    if "predicted" in test and not len(both[1].values):
        return f"a law needs {LEAST} other values of {key_text(test['by'])} above 0 in each seed"
    return None if all(len(side.values) for side in both) else "no runs of the two sides are alike in all else"


def _unlearned(both: tuple[Side, Side], needs: Sequence[Mapping[str, Any]]) -> str | None:
    """Which side has not learned what the claim needs, if any."""
    for need, side in ((need, side) for need in needs for side in both if side.runs):
        name, mean, bound = need["y"], side.mean(need["y"]), need.get("below", need.get("above"))
        if mean is None or not (mean < bound if "below" in need else mean > bound):
            has = "none" if mean is None else number_text(name, mean)
            wanted = f"{'below' if 'below' in need else 'above'} {number_text(name, bound)}"
            return f"{side.label} has not learned: its {name} is {has}, and {wanted} is needed for a verdict"
    return None


def _examples(y: str, both: tuple[Side, Side]) -> float | None:
    """How many examples a metric of validation or test was measured on, at least; None if a run does not say."""
    split = y.partition("/")[0]
    sizes = [_measured(record, split) for side in both for record in side.runs]
    known = [size for size in sizes if size is not None]
    return min(known) if known and len(known) == len(sizes) and split != "train" else None


def _measured(record: Record, split: str) -> float | None:
    """How many examples of a split a run was measured on: all, unless the trainer limits the batches."""
    size, limit = (
        usable_number((record.summary.get("sizes") or {}).get(split)),
        record.value(f"trainer.limit_{split}_batches"),
    )
    batch = usable_number(record.value("dataset.eval_batch_size"))
    if size is None or not isinstance(limit, int | float) or isinstance(limit, bool):
        return size
    if isinstance(limit, float):
        return size * min(limit, 1.0)
    return size if batch is None else min(size, limit * batch)


def _limit(result: Tested, k: int, alone: Decision) -> str:
    """What else than the interval the decision rests on, in words; `alone`: the decision if this were the only test of k."""
    assert result.mean is not None and result.against is not None
    if abs(result.mean) < result.resolution:
        return f"what is below {result.text(result.resolution, sign=False)} cannot be told apart"
    if k == 1 or alone != "not supported":
        return ""
    level = f"{100 * (1 - LEVEL / k):.4g} %"
    return f"{level} interval {result.interval_text(result.against)} as it is one of {k} tests"


def _numbers(result: Tested, margin: float | None, unfit: bool, why: str, than: str) -> str:
    """The difference, its interval, the seeds, and what kept them from deciding, in words.

    Args:
        result: All but its sentence.
        margin: Of the test.
        unfit: The runs cannot decide, whatever their values.
        why: What the decision rests on besides.
        than: See `_than`.
    """
    assert result.mean is not None
    n, m = result.seeds
    interval = "" if result.interval is None else f" (95 % interval {result.interval_text(result.interval)})"
    words = [f"{result.y} {result.text(result.mean)}{than} on average{interval}"]
    if margin is not None:
        words.append(f"margin {result.text(margin)}")
    if min(n, m) >= MIN_SEEDS:
        words.append(f"{n} seeds" if than else f"{n} seeds a side" if n == m else f"{n} and {m} seeds")
    if unfit:
        return f"{why}; {', '.join(words)}"
    return ", ".join([*words, f"and {why}"] if why else words)


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
