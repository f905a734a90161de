"""What data yields, told once: models take their sizes from it, so no config repeats a number of classes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Images:
    """Pictures of one shape; a model is given them as float tensors (B, channels, height, width)."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Tokens:
    """Text as ids below vocab_size, at most length of them at a time; a model is given int64 tensors (B, T)."""

    vocab_size: int
    length: int


@dataclass(frozen=True)
class Classes:
    """One label out of several, by name."""

    names: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.names)


Facts = Images | Tokens | Classes
