"""What data yields, told once: models take their sizes from it, so no config repeats a number of classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# The first ids of every vocabulary whose texts begin, end and are padded to one length: all but running text.
PAD, UNKNOWN, BEGIN, END = range(4)
IGNORED = -100  # a label that nothing is learned from


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
class Frames:
    """Films of at most length pictures; a model is given them as float tensors (B, T, channels, height, width)."""

    length: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Series:
    """Steps of a few numbers each; a model is given them as float tensors (B, T, channels)."""

    length: int
    channels: int


@dataclass(frozen=True)
class Classes:
    """One label out of several, by name."""

    names: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class StepLabels:
    """One label out of several at each step of a sequence, by name; a model gives (B, T, count) logits."""

    names: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Numbers:
    """Numbers to be met; a model gives (B, count)."""

    count: int


Inputs = Images | Tokens | Frames | Series
Outputs = Classes | StepLabels | Numbers | Images | Tokens
Specs = Inputs | Outputs
KINDS: dict[str, type] = {k.__name__: k for k in (Images, Tokens, Frames, Series, Classes, StepLabels, Numbers)}


def words(fact: Specs) -> str:
    """For a sentence."""
    if isinstance(fact, Images | Frames):
        pictures = f"{'grey' if fact.channels == 1 else 'colour'} images of {fact.height}x{fact.width} pixels"
        return pictures if isinstance(fact, Images) else f"films of up to {fact.length:,} {pictures}"
    if isinstance(fact, Tokens):
        return f"{fact.vocab_size:,} kinds of tokens, {fact.length:,} at a time"
    if isinstance(fact, Series):
        return f"series of up to {fact.length:,} steps of {fact.channels:,} numbers"
    if isinstance(fact, Numbers):
        return f"{fact.count:,} numbers"
    return f"{fact.count:,} classes" + (" at each step" if isinstance(fact, StepLabels) else "")


def to_plain(fact: Specs) -> dict[str, Any]:
    """As plain containers, for a checkpoint."""
    return {"kind": type(fact).__name__, **asdict(fact)}


def from_plain(plain: dict[str, Any]) -> Specs:
    """What `to_plain` was given."""
    kind = KINDS[plain["kind"]]
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in plain.items() if name != "kind"})
