"""What a task shows a person: pictures, texts, profiles, a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class Profile:
    """One number for each position, such as the gradient by time step."""

    position: str  # what it is a position of
    value: str
    values: list[float]
    positions: list[float] | None = None  # None: 1, 2, ...


@dataclass
class Artifacts:
    """What a person looks at: pictures, texts and profiles by file stem, and a table whose first row is its head."""

    pictures: dict[str, Image.Image] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    table: list[tuple[str, ...]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)  # found while looking; logged with those of the validation
