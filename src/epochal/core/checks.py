"""Checks of arguments: each raises a ValueError that names the argument, its value and what would be right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


class OnlyWith(NamedTuple):
    """With which values of another option an option of a class is read.

    A class says so of its options by `only_with = {"gamma": (OnlyWith("algorithm", ("ppo",)),)}`, and a command in which
    an option is typed that would not be read is refused.
    """

    option: str
    values: tuple[Any, ...] = ()  # where it is one of these; empty: where it is none of `but`
    but: tuple[Any, ...] = ()

    def holds(self, value: Any) -> bool:
        return value in self.values if self.values else value not in self.but


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise ValueError unless value is a whole number of at least least, and where most is given at most that."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most:,}"
        raise ValueError(f"{name}={value} must be a whole number {span}.")


def check_sizes(**sizes: Any) -> None:
    """Raise ValueError unless every size is a whole number of at least 1."""
    for name, size in sizes.items():
        check_whole(name, size, 1)


def check_number(name: str, value: Any, least: float, *, most: float = math.inf, below: float = math.inf) -> None:
    """Raise ValueError unless least <= value <= most and value < below; by default any finite number from least up."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    if not right or not value < below:
        end = f"at most {most}" if most < math.inf else f"below {below}" if below < math.inf else "finite"
        raise ValueError(f"{name}={value} must be a number of at least {least} and {end}.")


def check_positive(name: str, value: Any, *, most: float = math.inf) -> None:
    """Raise ValueError unless 0 < value <= most and value is finite."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    if not right or value > most:
        raise ValueError(f"{name}={value} must be above 0 and {f'at most {most}' if most < math.inf else 'finite'}.")


def check_fraction(name: str, value: Any) -> None:
    """Raise ValueError unless 0 <= value < 1, as of a dropout probability."""
    check_number(name, value, 0, below=1)


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise ValueError unless value is one of choices."""
    if value not in choices:
        raise ValueError(f"{name}={value} is no choice. There are: {' '.join(map(str, choices))}")


def check_heads(num_heads: int, embed_dim: int) -> None:
    """Raise ValueError unless the embedding can be divided evenly among the attention heads."""
    if embed_dim % num_heads:
        raise ValueError(f"num_heads={num_heads} does not divide embed_dim={embed_dim}.")
