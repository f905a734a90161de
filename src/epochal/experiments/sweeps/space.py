"""The search space: Hydra's sweep syntax, such as `tag(log, interval(1e-4, 1e-1))`, as Optuna's distributions."""

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
    """A searched key, and the values it may have.

    Args:
        key: As in the override, including a leading +.
        choices: The values of a categorical parameter; None for a range.
        low, high: Ends of the range, inclusive; if both are integers, values are integers.
        step: Between two values of the range; None for a continuous one, or all integers.
        log: Whether values are drawn uniformly on a logarithmic scale.
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
        """In Hydra's syntax, with inclusive ends: stored in the study, and shown to users."""
        if self.choices is not None:
            return f"{self.name}=choice({','.join(map(value_text, self.choices))})"
        ends = f"{value_text(self.low)}, {value_text(self.high)}"
        if self.step is not None:
            return f"{self.name}=range({ends}, {value_text(self.step)})"
        interval = f"interval({ends})" if self.fractional else f"int(interval({ends}))"
        return f"{self.name}=tag(log, {interval})" if self.log else f"{self.name}={interval}"

    @property
    def fractional(self) -> bool:
        """Whether it is a range of floats."""
        return self.choices is None and not (isinstance(self.low, int) and isinstance(self.high, int))

    def suggest(self, trial: Trial) -> Value:
        """The trial's value, sampled if it has none yet."""
        if self.choices is not None:
            chosen = trial.suggest_categorical(self.name, self.choices)
            assert isinstance(chosen, int | float | str)  # as all choices are
            return chosen
        if self.fractional:
            return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        step = 1 if self.step is None else self.step
        return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(step), log=self.log)

    def override(self, value: Value) -> str:
        """The value as an argument of the command line, floats with six significant digits."""
        return f"{self.key}={value_text(value)}"

    def corners(self) -> Sequence[Value]:
        """Every choice, or the ends of the range."""
        return self.choices if self.choices is not None else (self.low, self.high)


def value_text(value: Value) -> str:
    """A value as in an override, floats with six significant digits."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.6g}"
    return text if not text.lstrip("-").isdigit() else f"{text}.0"  # else a float would be read as an integer


def read_space(overrides: Iterable[Override], config: DictConfig) -> tuple[list[Parameter], list[str]]:
    """The searched keys, and the overrides that are the same in every trial. Of two for one key the later one counts.

    Args:
        overrides: Those of the config, then those of the command line.
        config: Of the search, with the default of each key.

    Raises:
        ConfigError: If no key is searched, or a range is invalid.
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
    """The parameter of a sweep override.

    Raises:
        ConfigError: If its range is invalid.
    """
    sweep, text = override.value(), str(override.input_line)
    tags: set[str] = getattr(sweep, "tags", set())
    if tags - {"log"} or (tags and not isinstance(sweep, IntervalSweep)):
        raise ConfigError(f"{text} cannot be read: the only tag is log, and it goes with interval, as in {EXAMPLE}.")
    if isinstance(sweep, IntervalSweep):
        return _interval(override.get_key_element(), sweep, text)
    if isinstance(sweep, RangeSweep):
        values = sorted(override.sweep_iterator())  # type: ignore[type-var]
        if not values:
            raise ConfigError(f"{text} is empty.")
        step = sweep.step if isinstance(sweep.step, int) else float(sweep.step)
        low, high = _number(values[0]), _number(values[-1])
        return Parameter(override.get_key_element(), low=low, high=high, step=abs(step))
    texts = list(override.sweep_string_iterator())
    given: list[Any] = list(override.sweep_iterator()) if not override.value_type.name.startswith("GLOB") else texts  # type: ignore[union-attr]
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in given]
    choices = dict.fromkeys(v if n else t for v, n, t in zip(given, numbers, texts))
    return Parameter(override.get_key_element(), choices=tuple(choices))


def _interval(key: str, sweep: IntervalSweep, text: str) -> Parameter:
    low, high = sweep.start, sweep.end
    if low is None or high is None or not low < high or not all(map(math.isfinite, (low, high))):
        raise ConfigError(f"{text} has nothing between its ends; the first is the smaller one.")
    if "log" in sweep.tags and low <= 0:
        raise ConfigError(f"{text} must begin above zero: a logarithm has no zero.")
    return Parameter(key, low=low, high=high, log="log" in sweep.tags)


def _number(value: Any) -> float | int:
    assert isinstance(value, int | float)  # as all values of a range are
    return value
