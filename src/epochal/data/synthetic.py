"""Synthetic sequences that test how long a network remembers: copy, reverse and adding.

Hochreiter, Schmidhuber: Long Short-Term Memory, Neural Computation 9(8), 1997 (adding; symbols over long gaps).
Arjovsky, Shah, Bengio: Unitary Evolution Recurrent Neural Networks, 2016 (arXiv 1511.06464), whose versions these are.
"""

from __future__ import annotations

import hashlib
import inspect
import string
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.seeds import mix
from epochal.core.specs import BEGIN, END, IGNORED, PAD, Inputs, Numbers, Outputs, Series, StepLabels, Tokens
from epochal.data.batching import Batch, BatchIndices
from epochal.data.counter_rng import integers, uniform
from epochal.data.datamodule import SPLITS, DataModule, check_count

FIRST = END + 1  # id of the first symbol

# The tasks after which targets were called in version 0.1, which are in the fingerprints of its runs
TASKS = {
    "step_classes": "sequence_labeling",
    "target_text": "translation",
    "numbers": "regression",
    "captions": "captioning",
}


class SyntheticRows(Dataset[Batch]):
    """The rows of a split, made when a batch asks for them."""

    def __init__(self, data: Synthetic, split: str) -> None:
        self.data, self.split = data, split

    def __getitem__(self, batch: BatchIndices) -> Batch:
        return self.data.make(self.split, batch)


class Synthetic(DataModule):
    """Rows made in memory. Those of validation and test depend on (split_seed, split, row) alone.

    By default training rows are made anew in each epoch, from (run's seed, epoch, step, row), as in the literature: a
    model cannot overfit to them.

    Args:
        length: Length of the problem, e.g. of a sequence; each subclass says of what.
        train_size: Training rows in an epoch.
        validation: Validation rows.
        test: Test rows.
        fresh: True: new training rows in each epoch. False: the same in each, from (split_seed, row).
        split_seed: Decides all rows that the run's seed does not decide.
        **options: See `DataModule`.

    Raises:
        ConfigError: If length or a number of rows is not positive.
    """

    shortest: ClassVar = 1  # the smallest length that there is

    def __init__(
        self,
        *,
        length: int,
        train_size: int = 12_800,
        validation: int = 1_000,
        test: int = 1_000,
        fresh: bool = True,
        split_seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_count("length", length, self.shortest)
        self.length, self.fresh, self.split_seed = length, fresh, split_seed
        self._counts = {"train": train_size, "val": validation, "test": test}
        for option, count in zip(("train_size", "validation", "test"), self._counts.values(), strict=True):
            check_count(option, count)

    def prepare(self) -> None:
        options = {k: v for k, v in vars(self).items() if k in self._row_options()}
        text = repr((type(self).__name__, TASKS.get(self.learns, self.learns), sorted(options.items()), self._counts))
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.check_batch_size(self._counts["train"])

    @classmethod
    def _row_options(cls) -> set[str]:
        """The options that decide what the rows are."""
        return {*inspect.signature(cls).parameters} - {*inspect.signature(DataModule).parameters}

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], target: str) -> list[tuple[Inputs, Outputs]]:
        options = {str(key): value for key, value in config.items() if str(key) in cls._row_options()}
        return [cls(name=str(config["name"]), **options).specs(target)]

    def make(self, split: str, batch: BatchIndices) -> Batch:
        """The rows of a batch."""
        raise NotImplementedError

    def rows(self, split: str) -> tuple[SyntheticRows, int]:
        return SyntheticRows(self, split), self._counts[split]

    def fixed_seed(self, split: str) -> int:
        """The seed of a split's rows that are the same in each epoch and run."""
        return mix(self.split_seed, SPLITS.index(split))

    def draw_seed(self, split: str, batch: BatchIndices) -> int:
        """The seed that a batch's rows are drawn with."""
        return batch.seed if self.fresh and split == "train" else self.fixed_seed(split)


class Symbols:
    """A vocabulary of symbols: letters, or numbers if there are more than 26; `_` is the blank, `?` the signal."""

    def __init__(self, kinds: int) -> None:
        letters = string.ascii_lowercase
        self.names = tuple(letters[:kinds] if kinds <= len(letters) else map(str, range(kinds)))
        self.blank, self.signal = FIRST + kinds, FIRST + kinds + 1
        self._ids = {name: FIRST + place for place, name in enumerate((*self.names, "_", "?"))}

    def __len__(self) -> int:
        return self.signal + 1

    def missing(self, text: str) -> str:
        """The words of the text that are no symbols, each once, joined."""
        return "".join(dict.fromkeys(name for name in text.split() if name not in self._ids))

    def encode(self, text: str) -> np.ndarray:
        """Ids (T,) int64 of the symbols, which spaces separate; other words are left out."""
        return np.array([self._ids[name] for name in text.split() if name in self._ids], np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The symbols up to END, separated by spaces, without the other reserved ids."""
        names, words = tuple(self._ids), []
        for token in map(int, ids):
            if token == END:
                break
            if token >= FIRST:
                words.append(names[token - FIRST])
        return " ".join(words)


class Recall(Synthetic):
    """Symbols, then blanks, then a signal, at which the symbols are to be repeated: the base of `Copy` and `Reverse`.

    As sequence labelling, the input is `symbols blanks ? blanks`; from the signal on, the label of each step is one
    symbol, and all other steps are IGNORED (Arjovsky et al. label them as blanks, which is quickly learned). As
    translation, the source is `symbols blanks END`, the target `BEGIN symbols END`.

    Args:
        kinds: Number of different symbols, at least 2.
        **options: See `Synthetic`.

    Raises:
        ConfigError: If kinds is below 2.
    """

    yields: ClassVar = Tokens
    unit: ClassVar = "texts"
    reverse: ClassVar = False  # whether the answer has the symbols in reverse order
    longest: int  # symbols in the longest row
    blanks: int  # steps between the last symbol and the signal

    def __init__(self, *, kinds: int = 8, **options: Any) -> None:
        super().__init__(**options)
        check_count("kinds", kinds, 2)
        self.kinds = kinds
        self.source_tokenizer = self.target_tokenizer = Symbols(kinds)

    def counts(self, split: str, rows: Tensor) -> Tensor:
        """(B,) number of symbols in each of the rows (B,)."""
        return torch.full_like(rows, self.longest)

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        size = len(self.source_tokenizer)
        if target == "target_text":
            return Tokens(size, self.longest + self.blanks + 1), Tokens(size, self.longest + 2)
        return Tokens(size, 2 * self.longest + self.blanks), StepLabels(self.source_tokenizer.names)

    def make(self, split: str, batch: BatchIndices) -> Batch:
        symbols, counts = self._draw(split, batch)
        arrange = self._translation if self.learns == "target_text" else self._labeling
        inputs, targets = arrange(symbols, counts)
        lengths = None if self.lengths(split) is None else self._lengths(counts)
        return Batch(inputs, targets, batch.seed, lengths)

    def _lengths(self, counts: Tensor) -> Tensor:
        """Length of the input for each number of symbols, same shape."""
        return self.blanks + (counts + 1 if self.learns == "target_text" else 2 * counts)

    def _draw(self, split: str, batch: BatchIndices) -> tuple[Tensor, Tensor]:
        """Symbols (B, N), and how many of each row count (B,); N is the largest of these."""
        counts = self.counts(split, batch.rows)
        longest = int(counts.max()) if len(counts) else 0
        return FIRST + integers(self.draw_seed(split, batch), batch.rows, longest, self.kinds), counts

    def _labeling(self, symbols: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels (B, T) of sequence labelling, from symbols (B, N) and their counts (B,)."""
        counts, longest = counts[:, None], symbols.shape[1]
        signal, end = counts + self.blanks, 2 * counts + self.blanks  # (B, 1) steps
        step = torch.arange(2 * longest + self.blanks)  # (T,)
        inputs = F.pad(symbols, (0, longest + self.blanks)).masked_fill(step >= counts, self.source_tokenizer.blank)
        inputs = inputs.masked_fill(step == signal, self.source_tokenizer.signal).masked_fill(step >= end, PAD)
        labels = self._answers(symbols, counts, step - signal) - FIRST
        return inputs, labels.masked_fill((step < signal) | (step >= end), IGNORED)

    def _translation(self, symbols: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Sources (B, S) and targets (B, T), from symbols (B, N) and their counts (B,)."""
        counts, longest = counts[:, None], symbols.shape[1]
        end = counts + self.blanks  # (B, 1)
        step = torch.arange(longest + self.blanks + 1)  # (S,)
        source = F.pad(symbols, (0, self.blanks + 1)).masked_fill(step >= counts, self.source_tokenizer.blank)
        source = source.masked_fill(step == end, END).masked_fill(step > end, PAD)
        place = torch.arange(-1, longest + 1).expand(len(symbols), -1)  # (B, T): -1 is BEGIN's
        target = self._answers(symbols, counts, place).masked_fill(place < 0, BEGIN)
        return source, target.masked_fill(place == counts, END).masked_fill(place > counts, PAD)

    def _answers(self, symbols: Tensor, counts: Tensor, place: Tensor) -> Tensor:
        """The symbol at each place (B, T) of the answer; an arbitrary one where place is not in [0, count)."""
        return symbols.gather(1, (counts - 1 - place if self.reverse else place).clamp(0, symbols.shape[1] - 1))

    def sources(self, split: str) -> list[str]:
        """The sources of the translation as text, row by row."""
        return [self.source_tokenizer.decode(row) for row in self._all_rows(split)[0].tolist()]

    def references(self, split: str) -> list[str]:
        """The targets of the translation as text, row by row."""
        return [self.target_tokenizer.decode(row) for row in self._all_rows(split)[1].tolist()]

    def _all_rows(self, split: str) -> tuple[Tensor, Tensor]:
        rows = BatchIndices(torch.arange(self._counts[split]), self.fixed_seed(split))
        return self._translation(*self._draw(split, rows))


class Copy(Recall):
    """Symbols to be repeated in order, after `length` blank steps.

    Args:
        length: Blank steps between the last symbol and the signal.
        symbols: How many symbols each row has.
        **options: See `Recall`.

    Raises:
        ConfigError: If symbols is not positive.
    """

    targets: ClassVar = ("step_classes", "target_text")

    def __init__(self, *, length: int = 30, symbols: int = 10, **options: Any) -> None:
        super().__init__(length=length, **options)
        check_count("symbols", symbols)
        self.symbols = self.longest = symbols
        self.blanks = length


class Reverse(Recall):
    """Symbols to be repeated in reverse order, without blanks before it.

    Args:
        length: Symbols in the longest row.
        fixed: True: every row has `length` symbols. False: from one to `length`, drawn from (split_seed, split, row).
        **options: See `Recall`.
    """

    targets: ClassVar = ("target_text", "step_classes")
    reverse: ClassVar = True

    def __init__(self, *, length: int = 10, fixed: bool = False, **options: Any) -> None:
        super().__init__(length=length, **options)
        self.longest, self.blanks, self.fixed = length, 0, fixed

    def counts(self, split: str, rows: Tensor) -> Tensor:
        if self.fixed:
            return super().counts(split, rows)
        return 1 + integers(mix(self.fixed_seed(split), 1), rows, 1, self.length)[:, 0]

    def lengths(self, split: str) -> Tensor | None:
        return None if self.fixed else self._lengths(self.counts(split, torch.arange(self._counts[split])))


class Adding(Synthetic):
    """Regression: the sum of the two marked numbers in a series of numbers drawn from [0, 1).

    Each step has two channels, the number and the mark (1 or 0). One mark is in the first half, one in the second, as
    in Arjovsky et al. Always predicting 1 has a mean squared error of 1/6.

    Args:
        length: Steps of the series, at least 2.
        **options: See `Synthetic`.
    """

    targets: ClassVar = ("numbers",)
    target_span: ClassVar = 2.0
    yields: ClassVar = Series
    unit: ClassVar = "series"
    shortest: ClassVar = 2

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        return Series(self.length, 2), Numbers(1)

    def make(self, split: str, batch: BatchIndices) -> Batch:
        drawn = uniform(self.draw_seed(split, batch), batch.rows, self.length + 2)
        values, half = drawn[:, 2:].float(), self.length // 2  # (B, T)
        first = (drawn[:, :1] * half).long()  # (B, 1)
        second = half + (drawn[:, 1:2] * (self.length - half)).long()  # (B, 1)
        marked = torch.cat((first, second), dim=1)  # (B, 2)
        marks = torch.zeros_like(values).scatter_(1, marked, 1.0)
        return Batch(torch.stack((values, marks), dim=2), values.gather(1, marked).sum(1, keepdim=True), batch.seed)
