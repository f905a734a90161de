"""The length of a training as it is typed: epochs, steps, examples, minutes."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from epochal.core.errors import ConfigError

MOST = 1e12  # of any unit
UNITS = {"epoch": 1, "step": 1, "example": 1, "minute": 1, "hour": 60}  # hours are counted in minutes


class Length(NamedTuple):
    """How many optimiser steps a training takes, and how many batches these are.

    Attributes:
        steps: Of the whole training.
        batches_per_epoch: Training batches of an epoch.
        batches_per_step: Whose gradients are accumulated for a step; the last step of an epoch has what is left.
    """

    steps: int
    batches_per_epoch: int
    batches_per_step: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.batches_per_step)

    def batches(self, steps: int) -> int:
        """The batches of so many steps, from the beginning of the training."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        return epochs * self.batches_per_epoch + rest * self.batches_per_step


def parse_duration(text: Any) -> tuple[float, str]:
    """'5epochs', '2000 steps', '1e6examples', '10minutes' or '2hours' as amount and unit: epoch, step, example, minute.

    Raises:
        ConfigError: If it is none of them, or not above zero.
    """
    match = re.fullmatch(r"\s*([\d._]+(?:e\d+)?)\s*(epoch|step|example|minute|min|hour)s?\s*", str(text), re.IGNORECASE)
    try:
        amount = float(match[1].replace("_", "")) if match else 0.0
    except ValueError:
        amount = 0.0
    if not match or amount <= 0:
        raise ConfigError(f"duration={text} is no duration; give e.g. 5epochs, 2000steps, 1e6examples or 10minutes.")
    if amount > MOST:
        raise ConfigError(f"duration={text} would never end; {MOST:g} is the most.")
    unit = {"min": "minute"}.get(match[2].lower(), match[2].lower())
    return (amount * 60, "minute") if unit == "hour" else (amount, unit)


def parse_unit(duration: Any) -> str | None:
    try:
        return parse_duration(duration)[1]
    except ConfigError:
        return None
