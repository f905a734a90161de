"""What a task produces besides metrics: pictures, texts, profiles and a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class Profile:
    """One number for each of several positions, such as the gradient norm at each time step."""

    position: str  # label of the positions
    value: str  # label of the values
    values: list[float]
    positions: list[float] | None = None  # None: 1, 2, ...


@dataclass
class Artifacts:
    """Pictures, texts and profiles by file stem, and a table whose first row is its header."""

    pictures: dict[str, Image.Image] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    table: list[tuple[str, ...]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)  # computed on the way; logged with those of the validation
