"""Where a search looks: Hydra's own sweeps, such as `tag(log, interval(1e-4, 1e-1))`, as Optuna's distributions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from epochal.core.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Trial

Value = float | int | str
EXAMPLE = "'optimizer.lr=tag(log, interval(1e-4, 1e-1))'"


@dataclass(frozen=True)
class Parameter:
    """A key that is searched.

    Args:
        key: As it is typed, a leading + and all.
        choices: To choose from, or None for a range.
        low, high: Ends of the range, both of them inside; whole numbers make it one of whole numbers.
        step: Between two values of the range; None for all there are.
        log: Whether ratios count and not differences.
    """

    key: str
    choices: tuple[Value, ...] | None = None
    low: float | int = 0
    high: float | int = 0
    step: float | int | None = None
    log: bool = False

    @property
    def name(self) -> str:
        return self.key.lstrip("+")

    def __str__(self) -> str:
        """In Hydra's words, both ends inside: what a study remembers, and a person reads."""
        if self.choices is not None:
            return f"{self.name}=choice({','.join(map(shown, self.choices))})"
        ends = f"{shown(self.low)}, {shown(self.high)}"
        if self.step is not None:
            return f"{self.name}=range({ends}, {shown(self.step)})"
        said = f"interval({ends})" if self.fractional else f"int(interval({ends}))"
        return f"{self.name}=tag(log, {said})" if self.log else f"{self.name}={said}"

    @property
    def fractional(self) -> bool:
        """Whether it draws numbers that are not whole."""
        return self.choices is None and not (isinstance(self.low, int) and isinstance(self.high, int))

    def suggest(self, trial: Trial) -> Value:
        """The trial's value, drawn if it has none yet."""
        if self.choices is not None:
            chosen = trial.suggest_categorical(self.name, self.choices)
            assert isinstance(chosen, int | float | str)  # there is no other among them
            return chosen
        if self.fractional:
            return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        step = 1 if self.step is None else self.step
        return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(step), log=self.log)

    def override(self, value: Value) -> str:
        """The value as an argument; six digits of a fraction are what a person can read and type again."""
        return f"{self.key}={shown(value)}"

    def corners(self) -> Sequence[Value]:
        """Every choice, or the ends of the range."""
        return self.choices if self.choices is not None else (self.low, self.high)


def shown(value: Value) -> str:
    """A value as it is typed."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.6g}"
    return text if not text.lstrip("-").isdigit() else f"{text}.0"  # else a fraction would become a whole number


def read_space(overrides: Iterable[Override], config: DictConfig) -> tuple[list[Parameter], list[str]]:
    """What is searched, and what is the same in every trial. Of two words for one key the later one counts.

    Args:
        overrides: Those of the config, then those of the command line.
        config: The sweep's own, which knows the defaults.

    Raises:
        ConfigError: If nothing is searched, or a range is none.
    """
    last = {override.get_key_element().lstrip("+"): override for override in overrides}
    space = [_parameter(override) for override in last.values() if override.is_sweep_override()]
    if not space:
        raise ConfigError(f"There is nothing to search; give a range or a list for a key, e.g. {EXAMPLE}.")
    for parameter in space:
        default = OmegaConf.select(config, parameter.name)
        whole = isinstance(default, int) and not isinstance(default, bool) and default > 1
        if parameter.fractional and whole:
            raise ConfigError(
                f"{parameter.name} is a whole number, so its range is int(interval({parameter.low:g}, {parameter.high:g}))."
            )
    return space, [str(override.input_line) for override in last.values() if not override.is_sweep_override()]


def _parameter(override: Override) -> Parameter:
    key, sweep = override.get_key_element(), override.value()
    said = str(override.input_line)
    tags: set[str] = getattr(sweep, "tags", set())
    if tags - {"log"} or (tags and not isinstance(sweep, IntervalSweep)):
        raise ConfigError(f"{said} cannot be read: the only tag is log, and it goes with interval, as in {EXAMPLE}.")
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
        if low is None or high is None or not low < high or not all(map(math.isfinite, (low, high))):
            raise ConfigError(f"{said} has nothing between its ends; the first is the smaller one.")
        if "log" in tags and low <= 0:
            raise ConfigError(f"{said} must begin above zero: a logarithm has no zero.")
        return Parameter(key, low=low, high=high, log="log" in tags)
    if isinstance(sweep, RangeSweep):
        values = sorted(override.sweep_iterator())  # type: ignore[type-var]
        if not values:
            raise ConfigError(f"{said} is empty.")
        step = sweep.step if isinstance(sweep.step, int) else float(sweep.step)
        return Parameter(key, low=_number(values[0]), high=_number(values[-1]), step=abs(step))
    texts = list(override.sweep_string_iterator())
    given: list[Any] = list(override.sweep_iterator()) if not override.value_type.name.startswith("GLOB") else texts  # type: ignore[union-attr]
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in given]
    return Parameter(key, choices=tuple(dict.fromkeys(v if n else t for v, n, t in zip(given, numbers, texts))))


def _number(value: Any) -> float | int:
    assert isinstance(value, int | float)  # a range has no other
    return value
