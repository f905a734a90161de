"""Specs: what a data set yields and what a model must return. Models take their sizes from them, not from the config.

B is the batch size, T the length of a sequence.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass
from typing import Any, Literal

# The reserved first ids of every vocabulary: padding, unknown token, begin and end of a text, masked token, and who speaks
# in a conversation. Vocabularies of older runs reserve the first four of them, or none where the text was running text.
PAD, UNKNOWN, BEGIN, END, MASK, SYSTEM, USER, ASSISTANT = range(8)
RESERVED = ASSISTANT + 1
# Pixels that a model reads: "normalised" to mean 0 and standard deviation 1 of each channel, or "symmetric" in [-1, 1].
ImageRange = Literal["normalised", "symmetric"]
IGNORED = -100  # the label of positions that count neither in the loss nor in the metrics (PyTorch's ignore_index)


@dataclass(frozen=True)
class ReservedIds:
    """The ids of a vocabulary that are no text, as its tokenizer has them; None: it has no such token."""

    pad: int | None = None
    unknown: int | None = None
    begin: int | None = None
    end: int | None = None
    mask: int | None = None
    system: int | None = None
    user: int | None = None
    assistant: int | None = None

    @classmethod
    def first(cls, count: int) -> ReservedIds:
        """Those of a vocabulary whose first `count` ids are reserved."""
        return cls(*range(count))

    @property
    def filler(self) -> int:
        """The id behind the last token of a row: padding, or END in a vocabulary without, as neither is decoded to text."""
        return next((number for number in (self.pad, self.end) if number is not None), 0)

    def known(self) -> tuple[int, ...]:
        """Those that there are, each once, in order."""
        return tuple(sorted({number for number in astuple(self) if number is not None}))


@dataclass(frozen=True)
class Images:
    """Images of one shape. A model reads them as float tensors (B, channels, height, width)."""

    channels: int  # 1: grey, 3: RGB
    height: int  # in pixels
    width: int  # in pixels
    classes: int | None = None  # of images to be generated: how many there are, if each has one


@dataclass(frozen=True)
class Tokens:
    """Text as token ids in [0, vocab_size). A model reads it as int64 tensors (B, T), T at most length."""

    vocab_size: int
    length: int


@dataclass(frozen=True)
class Frames:
    """Videos. A model reads them as float tensors (B, T, channels, height, width), T at most length."""

    length: int  # in frames
    channels: int  # 1: grey, 3: RGB
    height: int  # in pixels
    width: int  # in pixels


@dataclass(frozen=True)
class Series:
    """Series of vectors. A model reads them as float tensors (B, T, channels), T at most length."""

    length: int
    channels: int


@dataclass(frozen=True)
class Classes:
    """One class for each example: labels (B,) in [0, count); a model returns logits (B, count)."""

    names: tuple[str, ...]  # by label

    @property
    def count(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class StepLabels:
    """One class for each step: labels (B, T) in [0, count) or IGNORED; a model returns logits (B, T, count)."""

    names: tuple[str, ...]  # by label

    @property
    def count(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Numbers:
    """Real numbers to predict, the targets of a regression: floats (B, count); a model returns the same shape."""

    count: int


Inputs = Images | Tokens | Frames | Series
Outputs = Classes | StepLabels | Numbers | Images | Tokens
Spec = Inputs | Outputs
KINDS: dict[str, type] = {k.__name__: k for k in (Images, Tokens, Frames, Series, Classes, StepLabels, Numbers)}


def class_count(spec: Spec) -> int | None:
    """The number of classes, None of a spec without classes."""
    return spec.count if isinstance(spec, Classes | StepLabels) else None


def describe(spec: Spec) -> str:
    """A noun phrase for messages, e.g. "grey images of 28x28 pixels"."""
    if isinstance(spec, Images | Frames):
        images = f"{'grey' if spec.channels == 1 else 'colour'} images of {spec.height}x{spec.width} pixels"
        return images if isinstance(spec, Images) else f"videos of up to {spec.length:,} {images}"
    if isinstance(spec, Tokens):
        return f"sequences of up to {spec.length:,} tokens from a vocabulary of {spec.vocab_size:,}"
    if isinstance(spec, Series):
        return f"series of up to {spec.length:,} steps of {spec.channels:,} numbers"
    if isinstance(spec, Numbers):
        return f"{spec.count:,} numbers"
    return f"{spec.count:,} classes" + (" at each step" if isinstance(spec, StepLabels) else "")


def to_plain(spec: Spec) -> dict[str, Any]:
    """The spec as plain containers, for a checkpoint; `from_plain` is the inverse."""
    values = {name: value for name, value in asdict(spec).items() if value is not None}
    return {"kind": type(spec).__name__, **values}


def from_plain(plain: dict[str, Any]) -> Spec:
    """The inverse of `to_plain`."""
    kind = KINDS[plain["kind"]]
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in plain.items() if name != "kind"})
