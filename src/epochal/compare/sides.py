"""The two sides of a test: runs with their values by seed, and those that have none; a number; or what a law predicts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from epochal.compare.groups import varying
from epochal.compare.labels import label
from epochal.compare.power_law import PowerLaw, power_law
from epochal.compare.records import Record, Value
from epochal.core.format import number_text
from epochal.core.metrics import find

Key = tuple[Value, ...]  # the seed, then the values of the other keys by which runs are matched


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a test.

    Attributes:
        label: Its config values in words.
        values: One for each seed, (seeds,); of a seed with several matched runs, on several data sets say, their mean.
        runs: Those that the values are of.
        lost: Of each seed, and of each of these others, that has no value though it has a run: its newest run.
        total: How many there are of these, with and without a value.
        seeds: Those of the values.
    """

    label: str
    values: np.ndarray
    runs: tuple[Record, ...]
    lost: tuple[Record, ...]
    total: int
    seeds: tuple[Value, ...] = ()

    def mean(self, name: str) -> float | None:
        """The mean of a metric over the runs; None if not all of them have it."""
        values = [value for record in self.runs if isinstance(value := record.value(name), int | float)]
        return fmean(values) if values and len(values) == len(self.runs) else None

    def why_lost(self, y: str) -> str:
        """`5 of 8 runs with depth 44 have no train/error (5 failed: The loss is nan at step 2.)`."""
        states = Counter("finished without it" if r.status == "finished" else r.shown_status for r in self.lost)
        error = next((f": {record.error}" for record in self.lost if record.error), "")
        said = ", ".join(f"{count} {state}{error if state == 'failed' else ''}" for state, count in states.items())
        has = "has" if len(self.lost) == 1 else "have"
        return f"{len(self.lost)} of {self.total} runs with {self.label} {has} no {y} ({said})"


def first_side(test: Mapping[str, Any]) -> dict[str, Value]:
    """The config values of the side that is said to be more, or not more, than the other, or as predicted."""
    return dict(next(test[key] for key in ("more", "not_more", "predicted") if key in test))


def run_sides(test: Mapping[str, Any]) -> list[dict[str, Value]]:
    """The config values of the sides that are runs, which the second is not if it is a number or predicted."""
    return [first_side(test), *([dict(than)] if isinstance(than := test.get("than"), Mapping) else [])]


def matching(records: Sequence[Record], values: Mapping[str, Value]) -> list[Record]:
    """The runs with these values; lists are compared as JSON text, as records hold them."""
    plain = {name: json.dumps(value) if isinstance(value, list) else value for name, value in values.items()}
    return [record for record in records if all(record.value(name) == value for name, value in plain.items())]


def sides(test: Mapping[str, Any], records: Sequence[Record]) -> tuple[Side, Side]:
    """Both sides of a test.

    Where other keys vary on both sides, such as the data set, a seed's value is the mean over the values of these keys that
    both sides have, so that each side is measured on the same. Repeated runs with the same values count as one, with their
    mean.

    A number is a side with that value for each seed of the other, so that Welch's interval is that of one mean.

    Args:
        test: With `more` or `not_more`, `than`, `y`, and optionally `failed: worst`.
        records: The runs, finished or not.
    """
    first, than = first_side(test), test["than"]
    if isinstance(than, Mapping):
        return _sides(test, records, (first, dict(than)))
    side, _ = _sides(test, records, (first, first))
    return side, Side(number_text(test["y"], than), np.full(len(side.values), float(than)), (), (), 0)


def _sides(
    test: Mapping[str, Any], records: Sequence[Record], chosen: tuple[dict[str, Value], dict[str, Value]]
) -> tuple[Side, Side]:
    found = [matching(records, values) for values in chosen]
    also = {*varying(found[0]), *varying(found[1])} - {*chosen[0], *chosen[1]}
    values_of = [{key: {record.value(key) for record in side} for key in also} for side in found]
    keys = ["seed", *sorted(key for key in also if values_of[0][key] & values_of[1][key])]
    by_key = [_by_key(side, keys) for side in found]
    shared = {key[1:] for key in by_key[0]} & {key[1:] for key in by_key[1]}
    worst = _worst(test["y"], records=[*found[0], *found[1]]) if test.get("failed") == "worst" else None
    first, second = (
        _side(
            label(values), test["y"], {key: runs for key, runs in grouped.items() if key[1:] in shared}, shared, worst
        )
        for values, grouped in zip(chosen, by_key)
    )
    return first, second


class Prediction(NamedTuple):
    """Runs of one size, and what the other sizes say of them.

    Attributes:
        measured: Those runs.
        expected: The runs of the other sizes; its values are what the law through those of a seed predicts for each value of
            `measured`, (seeds,). None at all if a seed has too few sizes for a law.
        law: That through the means of the other sizes; None if there is none.
    """

    measured: Side
    expected: Side
    law: PowerLaw | None


def predicted(test: Mapping[str, Any], records: Sequence[Record]) -> Prediction:
    """What is compared by a test that a power law holds: of each seed one is fitted to all sizes but one, and predicts that.

    Args:
        test: With `predicted` (the config values of the runs of that size), `by` (what the law is in, such as the
            parameters) and `y`.
        records: The runs, finished or not.
    """
    y, by, size = test["y"], test["by"], first_side(test)
    own = matching(records, size)
    rest = [record for record in records if record not in own]
    grouped = _by_key(own, ["seed"]), _by_key(rest, ["seed", *varying(rest)])
    names = label(size), "the other sizes"
    measured, others = (_side(n, y, g, {key[1:] for key in g}, None) for n, g in zip(names, grouped))
    laws = [_law([run for run in others.runs if run.seed == seed], by, y) for seed in measured.seeds]
    at = measured.mean(by)
    values = [law(at) for law in laws if law is not None and at is not None]
    expected = replace(others, values=np.array(values if len(values) == len(laws) else []))
    return Prediction(measured, expected, _law(others.runs, by, y))


def _law(records: Sequence[Record], by: str, y: str) -> PowerLaw | None:
    """The power law through the mean of y at each value of `by`."""
    found: dict[float, list[float]] = {}
    for record in records:
        if (x := _number(record, by)) is not None and (value := _number(record, y)) is not None:
            found.setdefault(x, []).append(value)
    return power_law(list(found), [fmean(values) for values in found.values()])


def _by_key(records: Sequence[Record], keys: Sequence[str]) -> dict[Key, list[Record]]:
    grouped: dict[Key, list[Record]] = {}
    for record in records:
        grouped.setdefault(tuple(record.value(key) for key in keys), []).append(record)
    return grouped


def _side(name: str, y: str, grouped: Mapping[Key, Sequence[Record]], shared: set[Key], worst: float | None) -> Side:
    values: dict[Key, float] = {}
    runs, lost = list[Record](), list[Record]()
    for key, records in grouped.items():
        having = [record for record in records if record.status == "finished" and _number(record, y) is not None]
        newest = max(records, key=lambda record: record.touched)
        if having:
            values[key] = fmean(float(record.value(y) or 0) for record in having)
            runs += having
        elif worst is not None and _is_worst(newest):
            values[key] = worst
        else:
            lost.append(newest)
    by_seed: dict[Value, list[float]] = {}
    for key, value in values.items():
        by_seed.setdefault(key[0], []).append(value)
    complete = {seed: fmean(listed) for seed, listed in by_seed.items() if len(listed) == len(shared)}
    return Side(name, np.array([*complete.values()]), tuple(runs), tuple(lost), len(grouped), tuple(complete))


def _number(record: Record, y: str) -> float | None:
    value = record.value(y)
    return float(value) if isinstance(value, int | float) else None


def _is_worst(record: Record) -> bool:
    """Whether a run ended for being bad: it diverged, or its search pruned it. A full disk says nothing of the network."""
    return record.status == "pruned" or (record.status == "failed" and record.summary.get("diverged") is True)


def _worst(y: str, records: Sequence[Record]) -> float | None:
    """The worst value of the finished runs, which a run that diverged is taken to have at least."""
    values = [value for record in records if record.status == "finished" and (value := _number(record, y)) is not None]
    return (min if find(y).larger_is_better else max)(values) if values else None
