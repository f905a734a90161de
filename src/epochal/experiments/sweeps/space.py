"""The search space: Hydra's sweep syntax, such as `tag(log, interval(1e-4, 1e-1))`, as Optuna's distributions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from epochal.config.compose import choices, keys
from epochal.config.finalize import finalize
from epochal.config.instantiate import parameters
from epochal.config.messages import other_option
from epochal.config.schema import NOT_ARGUMENTS
from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.format import count_text

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

Value = float | int | str
Setting = dict[str, Value]  # of a trial: the values of its searched keys, by name
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

    @property
    def distribution(self) -> BaseDistribution:
        """Optuna's form of it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        if self.fractional:
            return FloatDistribution(self.low, self.high, log=self.log, step=self.step)
        step = 1 if self.step is None else int(self.step)
        return IntDistribution(int(self.low), int(self.high), log=self.log, step=step)

    def suggest(self, trial: Trial) -> Value:
        """The trial's value, sampled if it has none yet."""
        chosen = trial._suggest(self.name, self.distribution)
        assert isinstance(chosen, int | float | str)  # as all choices are
        return chosen

    @property
    def size(self) -> float:
        """The number of its values; infinite for a range of floats without steps."""
        if self.choices is not None:
            return len(self.choices)
        if self.step is None:
            return math.inf if self.fractional else self.high - self.low + 1
        return round((self.high - self.low) / self.step) + 1

    def values(self) -> Iterator[Value]:
        """All values of one that is finite."""
        if self.choices is not None:
            yield from self.choices
        else:
            step = 1 if self.step is None else self.step
            yield from (self.low + i * step for i in range(int(self.size)))

    def override(self, value: Value) -> str:
        """The value as an argument of the command line, floats with six significant digits."""
        return f"{self.key}={value_text(value)}"

    def corners(self) -> Sequence[Value]:
        """Every choice, or the ends of the range."""
        return self.choices if self.choices is not None else (self.low, self.high)


@dataclass(frozen=True)
class Branch:
    """A combination of searched options of config groups, such as model=cnn, and what goes with it.

    Args:
        options: The option of each searched group.
        names: The searched keys that its configs have, the groups included; None for all.
        fixed: The overrides that are the same in all its trials.
    """

    options: Mapping[str, Value] = field(default_factory=dict)
    names: frozenset[str] | None = None
    fixed: tuple[str, ...] = ()

    def has(self, parameter: Parameter) -> bool:
        return self.names is None or parameter.name in self.names


@dataclass(frozen=True)
class Space:
    """The searched keys. With several options of a group (model=mlp,cnn) a trial has those that its own option has.

    Args:
        parameters: All searched keys.
        branches: One for each combination of the searched groups' options.
    """

    parameters: tuple[Parameter, ...]
    branches: tuple[Branch, ...] = (Branch(),)

    @classmethod
    def of(
        cls, parameters: Sequence[Parameter], fixed: Sequence[str], compose: Callable[[Sequence[str]], DictConfig]
    ) -> Space:
        """Finds out which keys go with which options.

        Args:
            parameters: All searched keys.
            fixed: Overrides of all trials; those of keys that a branch does not have are left out there.
            compose: Makes a config from overrides.

        Raises:
            ConfigError: If no option has one of the keys.
        """
        groups = [parameter for parameter in parameters if parameter.name in choices()]
        if not groups:
            return cls(tuple(parameters), (Branch(fixed=tuple(fixed)),))
        options = [override for override in fixed if _name(override) in choices()]
        lacking = {p.name for p in parameters} | {_name(override) for override in fixed}
        branches, known = [], list[str]()
        for combination in itertools.product(*(group.values() for group in groups)):
            chosen = [group.override(value) for group, value in zip(groups, combination)]
            config = finalized(compose([*options, *chosen]))
            names = {p.name for p in parameters if p in groups or has_key(config, p.key)}
            kept = [override for override in fixed if override in options or has_key(config, override)]
            values = dict(zip((group.name for group in groups), combination))
            branches.append(Branch(values, frozenset(names), tuple(kept)))
            lacking -= {*names, *map(_name, kept)}
            known += keys(config)
        if lacking:
            raise ConfigError(_no_choice_has(min(lacking), groups, known))
        return cls(tuple(parameters), tuple(branches))

    def branch(self, setting: Mapping[str, Value]) -> Branch:
        """That of a setting, or of its part with the groups."""
        return next(b for b in self.branches if all(setting[name] == option for name, option in b.options.items()))

    def draw(self, value: Callable[[Parameter], Value]) -> Setting:
        """A setting whose values a function gives, called once for each key that belongs to it, in a fixed order."""
        setting: Setting = {}
        groups = [parameter for parameter in self.parameters if parameter.name in self.branches[0].options]
        if any(not branch.has(parameter) for branch in self.branches for parameter in self.parameters):
            setting.update((parameter.name, value(parameter)) for parameter in groups)
            branch = self.branch(setting)
        else:  # every key belongs to every trial, whichever is drawn first
            groups, branch = [], Branch()
        for parameter in self.parameters:
            if parameter not in groups and branch.has(parameter):
                setting[parameter.name] = value(parameter)
        return setting

    def parameters_of(self, setting: Mapping[str, Value]) -> list[Parameter]:
        """Those that a setting has, in the order in which they were given."""
        return [parameter for parameter in self.parameters if parameter.name in setting]

    def overrides(self, setting: Mapping[str, Value]) -> list[str]:
        """All overrides of a trial with this setting."""
        chosen = [parameter.override(setting[parameter.name]) for parameter in self.parameters_of(setting)]
        return [*self.branch(setting).fixed, *chosen]

    @property
    def size(self) -> float:
        """The number of its settings, infinite if one of the keys has a range of floats without steps."""
        return sum(math.prod(p.size for p in self._varying(branch)) for branch in self.branches)

    @property
    def count_text(self) -> str:
        """`12 settings`, of a finite space; `12 settings (4 with 3 seeds each)`."""
        seeds = next((parameter.size for parameter in self.parameters if parameter.name == "seed"), 1)
        each = f" ({self.size / seeds:.0f} with {seeds} seeds each)" if seeds > 1 else ""
        return count_text(int(self.size), "setting") + each

    def settings(self) -> Iterator[Setting]:
        """All settings of a finite space."""
        for branch in self.branches:
            varying = self._varying(branch)
            for values in itertools.product(*(parameter.values() for parameter in varying)):
                yield dict(branch.options) | {p.name: v for p, v in zip(varying, values)}

    def _varying(self, branch: Branch) -> list[Parameter]:
        return [p for p in self.parameters if branch.has(p) and p.name not in branch.options]


def setting_text(setting: Mapping[str, Value]) -> str:
    """`model=cnn optimizer.lr=0.003`; two settings of the same text make the same run."""
    return " ".join(f"{name}={value_text(value)}" for name, value in sorted(setting.items()))


def finalized(config: DictConfig) -> DictConfig:
    """The config with its task chosen; as it is where the checks before the runs will say what is wrong with it."""
    try:
        return finalize(config)
    except (ConfigError, StopIteration):  # no task fits this model and this data set
        return config


def has_key(config: DictConfig, override: str) -> bool:
    """Whether a config has the key of an override, and what it is given to takes it.

    Args:
        config: As a run's.
        override: Or its key; with a + in front the key need not be in the config yet.
    """
    name = _name(override)
    group, _, rest = name.partition(".")
    if override.startswith("~") or not rest:
        return True
    node = config.get(group)
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    argument = rest.partition(".")[0]
    if target is not None and argument not in (*NOT_ARGUMENTS, "pretrained", "metrics"):
        taken = parameters(target)
        if taken is not None and argument not in taken:
            return False
    if override.startswith("+"):
        return True
    place = OmegaConf.select(config, name.rpartition(".")[0])
    return isinstance(place, DictConfig) and name.rpartition(".")[2] in place


def _no_choice_has(name: str, groups: Sequence[Parameter], known: Sequence[str]) -> str:
    """That a key is in no branch, with where it is, or the key that was probably meant."""
    searched = " ".join(f"{group.name}={','.join(map(value_text, group.values()))}" for group in groups)
    parent, _, leaf = name.rpartition(".")
    if elsewhere := other_option(parent, leaf):
        return f"There is no key {name} with any of {searched}; {elsewhere} would have it."
    near = [key for key in known if key.startswith(f"{parent}.") and not key.endswith((".name", "._target_"))]
    return f"There is no key {name} with any of {searched}.{did_you_mean(name, near)}"


def _name(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


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
    options: dict[str, Value] = {}
    for value, number, option in zip(given, numbers, texts):
        options.setdefault(value_text(value if number else option), value if number else option)
    return Parameter(override.get_key_element(), choices=tuple(options.values()))


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
