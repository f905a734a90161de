"""Ragged arrays: rows of different lengths, concatenated in one array of the cache, so that a batch is one gather."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from epochal.core.specs import PAD
from epochal.data import cache


class Ragged:
    """N rows; row i is values[offsets[i] : offsets[i + 1]].

    Args:
        values: (sum of the lengths,).
        offsets: (N + 1,) int64, the first 0.
    """

    def __init__(self, values: Tensor, offsets: Tensor) -> None:
        self.values, self.offsets = values, offsets

    @classmethod
    def read(cls, folder: Path, name: str) -> Ragged:
        """What `write` or `write_texts` wrote into the folder under this name."""
        return cls(cache.read_array(folder / f"{name}.npy"), torch.from_numpy(np.load(folder / f"{name}_offsets.npy")))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """(N,) int64."""
        return self.offsets.diff()

    def __getitem__(self, row: int) -> Tensor:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def padded(self, rows: Tensor, pad: int = PAD) -> tuple[Tensor, Tensor]:
        """The rows (B,) as (B, T) int64, padded on the right to the longest of them, and their lengths (B,)."""
        values, offsets, numbers = self.values.numpy(), self.offsets.numpy(), rows.numpy()
        starts = offsets[numbers]
        lengths = offsets[numbers + 1] - starts
        span = np.arange(lengths.max(initial=0))  # of a last batch smaller than the number of ranks one may have no row
        index = np.minimum(starts[:, None] + span, len(values) - 1)
        # numpy takes half the time of torch here, which matters beside the training step of a small network
        padded = np.where(span < lengths[:, None], values.take(index).astype(np.int64), pad)
        return torch.from_numpy(padded), torch.from_numpy(lengths)

    def text(self, row: int) -> str:
        """One of the texts of `write_texts`."""
        return self[row].numpy().tobytes().decode("utf-8")

    def texts(self) -> list[str]:
        """All texts of `write_texts`."""
        return [self.text(row) for row in range(len(self))]


def write(folder: Path, name: str, values: np.ndarray, lengths: np.ndarray, dtype: np.dtype | type) -> None:
    """Writes concatenated rows and their offsets to the folder.

    Args:
        values: (sum of the lengths,).
        lengths: (N,).
        dtype: Of the values in the file.
    """
    cache.create_array(folder / f"{name}.npy", values.shape, dtype)[:] = values
    cache.create_array(folder / f"{name}_offsets.npy", (len(lengths) + 1,), np.int64)[:] = offsets_of(lengths)


def write_texts(folder: Path, name: str, texts: Sequence[str]) -> None:
    """Writes texts as UTF-8; `Ragged.texts` reads them."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    values = np.frombuffer(b"".join(encoded), np.uint8)
    write(folder, name, values, np.array([len(text) for text in encoded], np.int64), np.uint8)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Where each of N rows begins in their concatenation, and where the last ends: (N + 1,) int64."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def cut(values: np.ndarray, lengths: np.ndarray, longest: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and lengths of the N rows, cut after longest values, a number or one for each row (N,)."""
    place = np.arange(len(values)) - np.repeat(offsets_of(lengths)[:-1], lengths)
    limit = longest if isinstance(longest, int) else np.repeat(longest, lengths)
    return values[place < limit], np.minimum(lengths, longest)


def joined(*parts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Values and lengths of rows that are made of the rows of each part (values, lengths), one after the other."""
    lengths = np.stack([each for _, each in parts], axis=1)  # (N, parts)
    places = [np.repeat(np.arange(len(each)) * len(parts) + number, each) for number, (_, each) in enumerate(parts)]
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate([values for values, _ in parts])[order], lengths.sum(axis=1)


def delimit(
    values: np.ndarray, lengths: np.ndarray, *, end: int, begin: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Values and lengths of the rows with end after each, and with begin before each if it is given."""
    offsets = offsets_of(lengths)
    values = np.insert(values, offsets[1:], end)
    if begin is None:
        return values, lengths + 1
    return np.insert(values, offsets[:-1] + np.arange(len(lengths)), begin), lengths + 2


def smallest(count: int) -> type:
    """The smallest of uint8, uint16 and int32 that holds the numbers in [0, count)."""
    return np.uint8 if count <= 256 else np.uint16 if count <= 65536 else np.int32
