"""Which runs are of an experiment's own design: their whole config is compared with what the experiment composes now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from epochal.compare.groups import IGNORED, IGNORED_GROUPS
from epochal.compare.labels import value_text
from epochal.compare.records import Record, Value
from epochal.compare.scan import plain_value
from epochal.compare.tuning import Point, Tuning
from epochal.config.compose import compose, flat, load_option, option_file, plain
from epochal.core.multirun import stages

# Keys that may differ: they say where and how a run is executed, not what is trained
FREE = {
    *IGNORED,
    *("budget", "channels_last", "compile", "callbacks.checkpoint_every", "callbacks.explain", "dataset.skip_broken"),
    *("trainer.name", "trainer.accelerator", "trainer.strategy", "trainer.precision", "trainer.deterministic"),
    *("trainer.benchmark", "trainer.detect_anomaly"),
}
FREE_GROUPS = (*IGNORED_GROUPS, "launcher.", "budgets.")


class Design:
    """An experiment of one budget as its YAML stands now.

    Args:
        experiment, budget: Their names; budget is None for an experiment that has none.
        records: The runs, among which are the trials of an experiment that tunes.
    """

    def __init__(self, experiment: str, budget: str | None, records: Sequence[Record] = ()) -> None:
        file = option_file("experiment", experiment)
        stamp = 0 if file is None else file.stat().st_mtime_ns
        self._key = (experiment, budget, stamp)
        self.points, self.sets, self.tuning = _grid(*self._key)
        self._chosen = {} if self.tuning is None else self.tuning.chosen(self.points, records)
        self.tuned = "" if self.tuning is None else self.tuning.described(self.points, records)

    def is_trial(self, record: Record) -> bool:
        """Whether a run only served to choose a value."""
        return self.tuning is not None and self.tuning.is_trial(record)

    def differences(self, record: Record) -> tuple[str, ...]:
        """How a run's config differs from that of its point of the grid; empty for a run of the design."""
        point = self._point(record.typed)
        if point is None:
            keys = {override.partition("=")[0] for point in self.points for override in point}
            listed = {override for point in self.points for override in point}
            others = [o for o in record.typed if o.partition("=")[0].lstrip("+") in keys and o not in listed]
            return tuple(f"{override} is not in its grid" for override in others) or ("it is none of its grid",)
        designed = _composed(*self._key, (*point, *self._chosen.get(point, ())))
        return tuple(self._compared(designed, _as_requested(record.config)))

    def config(self, typed: Sequence[str]) -> dict[str, Value] | None:
        """What is composed for a run with these overrides, but for what may differ; None if it is none of the grid."""
        point = self._point(typed)
        if point is None:
            return None
        return {key: value for key, value in _composed(*self._key, self.own(typed)).items() if not _free(key)}

    def own(self, typed: Sequence[str]) -> Point:
        """Of these overrides those of the grid, and those of what is tuned."""
        space = self.tuning.space if self.tuning else {}
        tuned = (override for override in typed if override.partition("=")[0].lstrip("+") in space)
        return (*(self._point(typed) or ()), *tuned)

    def _point(self, typed: Sequence[str]) -> Point | None:
        own = [point for point in self.points if {*point} <= {*typed}]
        return max(own, key=len) if own else None

    def _compared(self, designed: dict[str, Value], run: dict[str, Value]) -> Iterator[str]:
        for key in sorted({*designed, *run}):
            if _free(key):
                continue
            if key not in run:
                if key in self.sets and designed[key] is not None:  # others are options that are newer than the run
                    yield f"{key} is not set, and {value_text(designed[key])} in the experiment"
            elif key not in designed:
                yield f"{key} is {value_text(run[key]) or 'null'}, and not set in the experiment"
            elif _place(key, run[key]) != _place(key, designed[key]):
                words = [value_text(values[key]) or "null" for values in (run, designed)]
                yield f"{key} is {words[0]}, and {words[1]} in the experiment"


def _free(key: str) -> bool:
    return key in FREE or f"{key}.".startswith(FREE_GROUPS)


def _place(key: str, value: Value) -> Value:
    """Paths by their name: the data may lie elsewhere."""
    return Path(value).name if key.endswith(".path") and isinstance(value, str) else value


def _as_requested(config: dict[str, Value]) -> dict[str, Value]:
    """A run's config with what was composed in place of what was made of it, which it keeps under `requested`."""
    asked = {key.partition(".")[2]: value for key, value in config.items() if key.startswith("requested.")}
    groups = {key.partition(".")[0] for key in asked}
    return {key: value for key, value in config.items() if key.split(".")[0] not in groups} | asked


@lru_cache(maxsize=16)
def _grid(experiment: str, budget: str | None, stamp: int) -> tuple[tuple[Point, ...], frozenset[str], Tuning | None]:
    """Every point of the grid, the keys that the experiment's YAML sets, and what it tunes; stamp is the time of its file."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf, open_dict

    written = load_option("experiment", experiment)
    sweeper: Any = OmegaConf.select(written, "hydra.sweeper") or OmegaConf.create()
    config = compose(_chosen(experiment, budget))
    with open_dict(config):
        config.sweeper = sweeper  # where the budget's values are found; all else may need the grid's choices to resolve
    found = OmegaConf.to_container(config.sweeper, resolve=True)
    assert isinstance(found, dict)
    tuning, points = Tuning.of(found.get("tune")), dict[Point, None]()
    for grid in (found.get("params") or {}, *chain(*stages(found.get("before") or []))):
        overrides = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in grid.items()])
        for job in BasicSweeper.split_arguments(overrides, max_batch_size=None)[0] if overrides else [()]:
            along = [o for choice in job for o in (found.get("along") or {}).get(choice, ())]
            taken = {*grid, *(tuning.space if tuning else ())}
            brought = [o for o in along if o.partition("=")[0] not in taken]
            points[tuple(o for o in (*job, *brought) if not o.startswith("seed="))] = None
    own: Any = OmegaConf.to_container(written, resolve=False)
    keys = frozenset(flat(own)) | {o.partition("=")[0].lstrip("+") for point in points for o in point}
    return tuple(points), keys, tuning


@lru_cache(maxsize=256)
def _composed(experiment: str, budget: str | None, stamp: int, point: Point) -> dict[str, Value]:
    """The config of a point of the grid, dotted, as runs keep theirs."""
    config = plain(compose([*_chosen(experiment, budget), *point]))
    for key in ("claim", "budgets"):
        config.pop(key, None)
    return {key: plain_value(value) for key, value in flat(config).items()}


def _chosen(experiment: str, budget: str | None) -> list[str]:
    return [f"experiment={experiment}", *([f"budget={budget}"] if budget is not None else [])]
