"""The settings of a search: the `sweep` node of a config, read and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig

from epochal.config.compose import plain
from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.metrics import COSTS

SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "hyperband", "none")
DIRECTIONS = ("maximize", "minimize")
COST_OBJECTIVES = tuple(name for name in COSTS if name not in ("steps", "epochs"))  # of a run, besides its metrics
INTEGERS = {"n_trials": 1, "n_jobs": 1, "startup": 1, "warmup": 0, "seed": 0}  # keys and their smallest values


@dataclass(frozen=True)
class Objective:
    """What is maximized or minimized: a metric such as val/accuracy, or a cost such as parameters."""

    direction: str
    name: str

    @classmethod
    def read(cls, text: Any) -> Objective:
        """Parses 'maximize val/accuracy'.

        Raises:
            ConfigError: If it is no direction and name.
        """
        direction, _, name = str(text).strip().partition(" ")
        name = name.strip()
        if direction not in DIRECTIONS or not name:
            raise ConfigError(
                f"sweep.objectives has {text}; an objective is a direction and a name, e.g. maximize val/accuracy."
            )
        if name.startswith("test/"):
            raise ConfigError(
                f"sweep.objectives has {name}, but the test set chooses nothing; take val/{name.removeprefix('test/')}."
            )
        if name not in COST_OBJECTIVES and not name.startswith(("val/", "train/")):
            raise ConfigError(
                f"sweep.objectives has {name}, which is neither a metric such as val/accuracy nor one of "
                f"{', '.join(COST_OBJECTIVES)}.{did_you_mean(name, (*COST_OBJECTIVES, 'val/accuracy', 'val/loss'))}"
            )
        return cls(direction, name)

    @property
    def worst(self) -> float:
        """Worse than any value: what a run that diverged is worth."""
        return -math.inf if self.direction == "maximize" else math.inf

    def value(self, summary: dict[str, Any]) -> float | None:
        """The value in a run's summary: at the best checkpoint if this metric chose it, else the last one.

        Args:
            summary: Of the run, its summary.json.

        Returns:
            None if it is not finite.

        Raises:
            KeyError: If the run has no such metric.
        """
        best = summary.get("best", {})
        if best.get("metric") == self.name:
            return best["value"]
        return summary[self.name] if self.name in COST_OBJECTIVES else summary["metrics"][self.name]


@dataclass(frozen=True)
class Settings:
    """The `sweep` node of a config; docs/sweeps.md describes the keys. For `auto`, objectives are empty."""

    study: str
    n_trials: int
    n_jobs: int | None
    sampler: str
    objectives: tuple[Objective, ...]
    pruner: str
    startup: int
    warmup: int
    seed: int

    @classmethod
    def read(cls, config: DictConfig) -> Settings:
        """Reads and checks the node of a config.

        Raises:
            ConfigError: With all its mistakes.
        """
        node = plain(config)["sweep"]
        known_keys = {*(field.name for field in fields(cls)), "trial"}
        if unknown := [key for key in node if key not in known_keys]:
            raise ConfigError(f"There is no key sweep.{unknown[0]}.{did_you_mean(unknown[0], known_keys)}")
        if missing := sorted(known_keys - set(node)):
            raise ConfigError(f"The sweep has no {missing[0]}; its YAML begins with `defaults: [search, _self_]`.")
        wrong = [*_wrong_values(node)]
        objectives = [] if node["objectives"] == "auto" else node["objectives"]
        if isinstance(objectives, str):
            objectives = [objectives]
        if not node["study"]:
            wrong.append("sweep.study must have a name.")
        if objectives is None or (not objectives and node["objectives"] != "auto"):
            wrong.append("sweep.objectives is empty; give e.g. [maximize val/accuracy], or auto.")
        if wrong:
            raise ConfigError("\n".join(wrong))
        return cls(
            study=str(node["study"]),
            sampler=str(node["sampler"]),
            objectives=tuple(Objective.read(text) for text in objectives),
            pruner="none" if node["pruner"] is None else str(node["pruner"]),
            **{key: node[key] for key in INTEGERS},
        ).checked()

    def checked(self) -> Settings:
        """The settings themselves.

        Raises:
            ConfigError: If the pruner would judge by what no validation measures.
        """
        if self.pruner == "none":
            return self
        if len(self.objectives) > 1:
            raise ConfigError(
                f"sweep.pruner={self.pruner} judges by one objective and there are {len(self.objectives)}; "
                "add sweep.pruner=none."
            )
        if self.objectives and not self.objectives[0].name.startswith("val/"):
            raise ConfigError(
                f"sweep.pruner={self.pruner} judges by validations, which do not measure {self.objectives[0].name}; "
                "add sweep.pruner=none."
            )
        return self

    def resolved(self, reports: tuple[str, str] | None) -> tuple[Objective, ...]:
        """The objectives, with `auto` replaced by the metric that chooses the best checkpoint.

        Args:
            reports: Of the task: that metric, and "max" or "min"; None if it has none.

        Raises:
            ConfigError: If it has none and objectives are `auto`.
        """
        if self.objectives:
            return self.objectives
        if reports is None:
            raise ConfigError(
                "sweep.objectives=auto is the metric that chooses the best checkpoint, and this task has none; "
                "give e.g. 'sweep.objectives=[minimize train/loss]'."
            )
        return (Objective(f"{reports[1]}imize", reports[0]),)


def _wrong_values(node: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the numbers and names of the node, a sentence each."""
    for key, lowest in INTEGERS.items():
        value = node[key]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole and value >= lowest) and not (key == "n_jobs" and value is None):
            yield f"sweep.{key}={value} must be a whole number from {lowest} on."
    for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        value = "none" if node[key] is None else str(node[key])  # pruner=null may mean none
        if value not in known:
            yield f"sweep.{key}={value} is no {key}.{did_you_mean(value, known)} There are: {' '.join(known)}"
