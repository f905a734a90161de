"""Rows of unlike length, end to end in one array of the cache: a batch of them is one gather."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from epochal.core.specs import PAD
from epochal.data import cache


class Ragged:
    """Row i is values[offsets[i] : offsets[i + 1]]; offsets has one entry more than there are rows."""

    def __init__(self, values: Tensor, offsets: Tensor) -> None:
        self.values, self.offsets = values, offsets

    @classmethod
    def read(cls, folder: Path, name: str) -> Ragged:
        """What `write` left in the folder under this name."""
        return cls(cache.read_array(folder / f"{name}.npy"), torch.from_numpy(np.load(folder / f"{name}_offsets.npy")))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    def __getitem__(self, row: int) -> Tensor:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def padded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The rows as (B, longest of them) int64, padded on the right, and their lengths (B,)."""
        values, offsets, numbers = self.values.numpy(), self.offsets.numpy(), rows.numpy()
        starts = offsets[numbers]
        lengths = offsets[numbers + 1] - starts
        span = np.arange(lengths.max())
        index = np.minimum(starts[:, None] + span, len(values) - 1)
        # numpy takes half the time of torch here, which matters beside the step of a small network
        padded = np.where(span < lengths[:, None], values.take(index).astype(np.int64), PAD)
        return torch.from_numpy(padded), torch.from_numpy(lengths)

    def text(self, row: int) -> str:
        """A row of `write_texts`."""
        return self[row].numpy().tobytes().decode("utf-8")

    def texts(self) -> list[str]:
        """All rows of `write_texts`."""
        return [self.text(row) for row in range(len(self))]


def write(folder: Path, name: str, values: np.ndarray, lengths: np.ndarray, dtype: np.dtype | type) -> None:
    """Rows end to end, and how long each is."""
    cache.create_array(folder / f"{name}.npy", values.shape, dtype)[:] = values
    cache.create_array(folder / f"{name}_offsets.npy", (len(lengths) + 1,), np.int64)[:] = offsets_of(lengths)


def write_texts(folder: Path, name: str, texts: Sequence[str]) -> None:
    """Texts as they are, to be shown and compared with."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    values = np.frombuffer(b"".join(encoded), np.uint8)
    write(folder, name, values, np.array([len(text) for text in encoded], np.int64), np.uint8)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def cut(values: np.ndarray, lengths: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows' beginnings."""
    place = np.arange(len(values)) - np.repeat(offsets_of(lengths)[:-1], lengths)
    return values[place < longest], lengths.clip(max=longest)


def smallest(count: int) -> type:
    """The smallest integers that hold the numbers below count."""
    return np.uint8 if count <= 256 else np.uint16 if count <= 65536 else np.int32
