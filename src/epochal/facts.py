"""What data yields, told once: models take their sizes from it, so no config repeats a number of classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


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


def words(fact: Facts) -> str:
    """For a sentence."""
    if isinstance(fact, Images):
        return f"{'grey' if fact.channels == 1 else 'colour'} images of {fact.height}x{fact.width} pixels"
    if isinstance(fact, Tokens):
        return f"{fact.vocab_size:,} kinds of tokens, {fact.length:,} at a time"
    return f"{fact.count:,} classes"


def to_plain(fact: Facts) -> dict[str, Any]:
    """As plain containers, for a checkpoint."""
    return {"kind": type(fact).__name__, **asdict(fact)}


def from_plain(plain: dict[str, Any]) -> Facts:
    """What `to_plain` was given."""
    kind = {"Images": Images, "Tokens": Tokens, "Classes": Classes}[plain["kind"]]
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in plain.items() if name != "kind"})
