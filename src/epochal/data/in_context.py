"""Sequences of examples of a rule that is new in each: what a model learns from its prompt, without a change of weights.

Garg, Tsipras, Liang, Valiant: What Can Transformers Learn In-Context? A Case Study of Simple Function Classes, 2022 (arXiv
2208.01066). Chan et al.: Data Distributional Properties Drive Emergent In-Context Learning in Transformers, 2022 (arXiv
2205.05055), for symbols.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from epochal.core.specs import IGNORED, RESERVED, Inputs, Numbers, Outputs, ReservedIds, Series, Tokens
from epochal.data.batching import Batch, BatchIndices
from epochal.data.counter_rng import integers, normal
from epochal.data.datamodule import check_count
from epochal.data.synthetic import Synthetic


class KeysAndValues:
    """A vocabulary of keys and values: small and capital letters, or k0, k1 ... and v0, v1 ... if there are more."""

    ids = ReservedIds.first(RESERVED)

    def __init__(self, keys: int, values: int) -> None:
        few = max(keys, values) <= len(string.ascii_lowercase)
        self.keys = tuple(string.ascii_lowercase[:keys] if few else (f"k{i}" for i in range(keys)))
        self.values = tuple(string.ascii_uppercase[:values] if few else (f"v{i}" for i in range(values)))
        self._ids = {name: RESERVED + place for place, name in enumerate((*self.keys, *self.values))}

    def __len__(self) -> int:
        return RESERVED + len(self._ids)

    def missing(self, text: str) -> str:
        """The words of the text that are neither, each once, joined."""
        return "".join(dict.fromkeys(name for name in text.split() if name not in self._ids))

    def encode(self, text: str) -> np.ndarray:
        """Ids (T,) int64 of the keys and values, which spaces separate; other words are left out."""
        return np.array([self._ids[name] for name in text.split() if name in self._ids], np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The keys and values, separated by spaces, without the reserved ids."""
        names = tuple(self._ids)
        return " ".join(names[number - RESERVED] for number in map(int, ids) if number >= RESERVED)


class InContextSymbols(Synthetic):
    """Language modelling of pairs `key value key value ...`: the value of each key is drawn anew in each sequence.

    Only the values are asked for: the targets before keys are IGNORED. A value can be known once its key has been seen.

    Args:
        length: Pairs in a sequence.
        kinds: Number of different keys.
        values: Number of different values.
        **options: See `Synthetic`.

    Raises:
        ConfigError: If kinds is not positive, or values is below 2.
    """

    targets: ClassVar = ("text",)
    yields: ClassVar = Tokens
    unit: ClassVar = "texts"
    asks_some_tokens = True
    asks_questions: ClassVar = True

    def __init__(self, *, length: int = 12, kinds: int = 4, values: int = 4, **options: Any) -> None:
        super().__init__(length=length, **options)
        check_count("kinds", kinds)
        check_count("values", values, 2)
        self.kinds, self.values = kinds, values
        self.tokenizer = KeysAndValues(kinds, values)
        self.prompt = self.tokenizer.keys[0]

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        tokens = Tokens(len(self.tokenizer), 2 * self.length - 1)
        return tokens, tokens

    def make(self, split: str, batch: BatchIndices) -> Batch:
        seed = self.draw_seed(split, batch)
        drawn = integers(seed, batch.rows, self.kinds + self.length, self.kinds * self.values)  # uniform for both
        mapping, keys = drawn[:, : self.kinds] % self.values, drawn[:, self.kinds :] % self.kinds
        values = RESERVED + self.kinds + mapping.gather(1, keys)  # (B, N)
        tokens = torch.stack((RESERVED + keys, values), dim=2).flatten(1)  # (B, 2 N)
        targets = tokens[:, 1:].clone()
        targets[:, 1::2] = IGNORED
        return Batch(tokens[:, :-1], targets, batch.seed)

    def shots(self, batch: Batch) -> Tensor:
        """How many pairs stand before each target (B, T); -1 where none is asked for."""
        place = torch.arange(batch.targets.shape[1], device=batch.targets.device)
        return torch.where(place % 2 == 0, place // 2, -1).expand_as(batch.targets)

    def best_by_shots(self) -> list[float]:
        """The largest accuracy that is possible, by the number of pairs before the key: exact Bayes."""
        unseen = [(1 - 1 / self.kinds) ** shots for shots in range(self.length)]
        return [1 - chance + chance / self.values for chance in unseen]


class InContextLinear(Synthetic):
    """Regression from a prompt: (x_1, y_1), ..., (x_m, y_m), x, where y = w x for a w that is drawn anew in each sequence.

    A step of a series is an x, its y, and 0; the last one is the x in question, 0, and 1. x is from N(0, 1), w from
    N(0, 1 / dimensions), so that always answering 0 has a mean squared error of 1. The sequences of a split have 0 to
    `length` examples m before the question, as many of each, and are padded to the longest of a batch.

    Deviations from Garg et al.: x and y are one step, which is learned with a third of the error after as many steps; and
    the loss is that of the last y, not of all, so networks that are not causal can be compared.

    Args:
        length: Most examples before the question.
        dimensions: Numbers in an x.
        **options: See `Synthetic`.

    Raises:
        ConfigError: If dimensions is not positive.
    """

    targets: ClassVar = ("numbers",)
    yields: ClassVar = Series
    unit: ClassVar = "series"

    def __init__(self, *, length: int = 8, dimensions: int = 2, **options: Any) -> None:
        super().__init__(length=length, **options)
        check_count("dimensions", dimensions)
        self.dimensions = dimensions

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        return Series(self.length + 1, self.dimensions + 2), Numbers(1)

    def lengths(self, split: str) -> Tensor:
        return self._lengths(torch.arange(self._counts[split]))

    def _lengths(self, rows: Tensor) -> Tensor:
        return rows % (self.length + 1) + 1

    def make(self, split: str, batch: BatchIndices) -> Batch:
        seed, size = self.draw_seed(split, batch), self.dimensions
        lengths = self._lengths(batch.rows)
        most = int(lengths.max()) if len(lengths) else 1
        drawn = normal(seed, batch.rows, size * (most + 1)).float()
        weights, x = drawn[:, :size] / size**0.5, drawn[:, size:].unflatten(1, (most, size))  # (B, D), (B, N, D)
        y = torch.einsum("bnd,bd->bn", x, weights)
        place, last = torch.arange(most), lengths[:, None] - 1
        asked = (place == last).float()
        steps = torch.cat((x, (y * (1 - asked))[..., None], asked[..., None]), dim=2)  # (B, N, D + 2)
        return Batch(steps.masked_fill((place > last)[..., None], 0), y.gather(1, last), batch.seed, lengths)

    def shots(self, batch: Batch) -> Tensor:
        """How many examples stand before each target (B, 1)."""
        assert batch.lengths is not None
        return batch.lengths[:, None] - 1

    def best_by_shots(self) -> list[float]:
        """The smallest mean squared error that is possible, by the number of examples: that of least squares."""
        return [max(0.0, 1 - shots / self.dimensions) for shots in range(self.length + 1)]
