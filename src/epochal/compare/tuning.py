"""Equal tuning: every side of an experiment gets the same number of trials from one space, as AlgoPerf has it.

Dahl et al.: Benchmarking Neural Network Training Algorithms, 2023 (arXiv 2306.07179). The trials are runs of a seed that is
not used afterwards, and are judged on validation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from epochal.compare.labels import label
from epochal.compare.records import Record, Value, usable_number
from epochal.core.errors import ConfigError
from epochal.core.format import count_text, duration_text
from epochal.core.metrics import find

FEW = 3  # sides that chose the same values and are still listed one by one
Point = tuple[str, ...]  # the overrides of one side, without its seed and what is tuned


@dataclass(frozen=True)
class Tuning:
    """What is tuned; `hydra.sweeper.tune` of an experiment.

    Attributes:
        space: The values of each key as text, with commas: {"optimizer.lr": "0.01,0.1"}; every combination is a trial.
        seed: Of the trials; none of the runs that decide has it.
        metric: That decides, of validation: the value of the best checkpoint where this was chosen by it, else the last.
    """

    space: Mapping[str, str]
    seed: int
    metric: str = "val/loss"

    @classmethod
    def of(cls, written: Mapping[str, Any] | None) -> Tuning | None:
        """The tuning that a config describes, or None.

        Raises:
            ConfigError: If it does not describe one.
        """
        if not written:
            return None
        space, seed, metric = written.get("space"), written.get("seed"), written.get("metric", cls.metric)
        if unknown := sorted({*map(str, written)} - {"space", "seed", "metric"}):
            raise ConfigError(f"hydra.sweeper.tune has {unknown[0]}. There are: space seed metric")
        if not isinstance(space, Mapping) or not space or not isinstance(seed, int) or isinstance(seed, bool):
            raise ConfigError("hydra.sweeper.tune needs a space, such as {optimizer.lr: '0.01,0.1'}, and a seed.")
        if not str(metric).startswith("val/") or find(str(metric)).direction is None:
            raise ConfigError(
                f"hydra.sweeper.tune.metric={metric} is no metric of validation that has a better and a worse."
            )
        return cls({str(key): str(values) for key, values in space.items()}, seed, str(metric))

    def point(self, job: Iterable[str]) -> Point:
        """The side to which a run with these overrides belongs."""
        return tuple(o for o in job if _key(o) != "seed")

    def is_set(self, job: Iterable[str]) -> bool:
        """Whether a run has a value for a key that is tuned, so that nothing is left to try."""
        return any(_key(override) in self.space for override in job)

    def is_trial(self, record: Record) -> bool:
        """Whether a run is one of the trials."""
        return record.seed == self.seed

    def chosen(self, points: Iterable[Point], records: Sequence[Record]) -> dict[Point, Point]:
        """The best values of each side as overrides; a side of which no trial has ended well is left out.

        Args:
            points: The sides.
            records: Runs, of which the trials are taken. One that diverged is worse than all others.
        """
        trials = [record for record in records if self.is_trial(record)]
        found = {}
        for point in points:
            own = [record for record in trials if set(record.typed).issuperset(point)]
            scored = [(score, record) for record in own if (score := self._score(record)) is not None]
            score, best = min(scored, key=lambda pair: pair[0]) if scored else (math.inf, None)
            if best is not None and score < math.inf:
                found[point] = tuple(o for o in best.typed if _key(o) in self.space)
        return found

    def described(self, points: Sequence[Point], records: Sequence[Record]) -> str:
        """What was tried and chosen, and its cost, in a sentence; empty before the first trial."""
        trials = [record for record in records if self.is_trial(record)]
        if not trials:
            return ""
        found, keys = self.chosen(points, records), _telling(points)
        values = {point: " ".join(map(_value, overrides)) for point, overrides in found.items()}
        [(usual, times)] = Counter(values.values()).most_common(1) or [("", 0)]
        short = len(found) == len(points) and times > FEW
        words = [
            f"{label(_choices(o for o in point if _key(o) in keys)) if keys else 'each run'} takes {value}"
            for point, value in values.items()
            if not (short and value == usual)
        ]
        chosen = "; ".join([*words, f"{'all others take' if words else 'all take'} {usual}"] if short else words)
        chosen = chosen or "none chosen yet"
        space = ", ".join(f"{key} of {values}" for key, values in self.space.items())
        cost = duration_text(sum(usable_number(record.summary.get("seconds")) or 0 for record in trials))
        return f"Tuned by {self.metric} with seed {self.seed}, {space}: {chosen} ({count_text(len(trials), 'trial')}, {cost})."

    def _score(self, record: Record) -> float | None:
        """Smaller is better; infinite if it diverged, None if it has no value for another reason."""
        best = record.summary.get("best") or {}
        value = usable_number(best.get("value")) if best.get("metric") == self.metric else record.value(self.metric)
        if record.status == "finished" and isinstance(value, int | float):
            return -value if find(self.metric).larger_is_better else float(value)
        return math.inf if record.summary.get("diverged") is True else None


def _telling(points: Sequence[Point]) -> list[str]:
    """The first keys that tell all sides from each other, without those that only go along with another."""
    keys: list[str] = []
    apart = 1
    for key in dict.fromkeys(_key(override) for point in points for override in point):
        tried = {tuple(o for o in point if _key(o) in (*keys, key)) for point in points}
        if len(tried) > apart:
            keys, apart = [*keys, key], len(tried)
    return keys


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _value(override: str) -> str:
    return override.partition("=")[2]


def _choices(overrides: Iterable[str]) -> dict[str, Value]:
    """Keys and values of overrides as of a record: the choice of a group is its name."""
    pairs = ((_key(override), yaml.safe_load(_value(override))) for override in overrides)
    return {
        f"{key}.name" if key in ("model", "dataset", "task") else key: "null" if value is None else value
        for key, value in pairs
    }
