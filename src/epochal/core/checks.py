"""Options of objectives: what a person got wrong, in a sentence."""

from __future__ import annotations

import math
from typing import Any


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless value is a whole number of at least least."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value} must be a whole number of at least {least}.")


def check_number(name: str, value: Any, least: float, *, most: float = math.inf, below: float = math.inf) -> None:
    """Raise ValueError unless value is a number from least up to most, or up to but not below."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    if not right or not value < below:
        end = f"at most {most}" if most < math.inf else f"below {below}" if below < math.inf else "finite"
        raise ValueError(f"{name}={value} must be a number of at least {least} and {end}.")
