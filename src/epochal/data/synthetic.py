"""Problems of memory, made in memory: what counts is how far back a network reaches, and nothing else.

Hochreiter, Schmidhuber: Long Short-Term Memory, Neural Computation 9(8), 1997 (adding; symbols over long gaps).
Arjovsky, Shah, Bengio: Unitary Evolution Recurrent Neural Networks, 2016 (arXiv 1511.06464): both as they are used today.
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
from epochal.data.chance import check_count, uniform, whole
from epochal.data.datamodule import DataModule

SPLITS = ("train", "val", "test")
FIRST = END + 1  # id of the first symbol


class MadeRows(Dataset[Batch]):
    """Rows that are made when they are asked for."""

    def __init__(self, data: Synthetic, split: str) -> None:
        self.data, self.split = data, split

    def __getitem__(self, batch: BatchIndices) -> Batch:
        return self.data.make(self.split, batch)


class Synthetic(DataModule):
    """Rows made in memory. Those of validation and test are a function of (split_seed, split, row).

    Rows to learn from are made anew at each step, of (run's seed, epoch, step, row): as the literature does, so that
    nothing can be learned by heart. `fresh=False` gives each epoch the same ones.

    Args:
        name, batch_size, eval_batch_size, seed: See `Data`.
        length: How long the problem is; each says of what.
        train_size: Rows in an epoch.
        validation, test: Rows there.
        fresh: Whether each epoch has rows of its own.
        split_seed: What is validated and tested on, and with `fresh=False` learned from, depends on it.

    Raises:
        ConfigError: If a size is no whole number or too small.
    """

    shortest: ClassVar = 1

    def __init__(
        self,
        *,
        name: str,
        length: int,
        train_size: int = 12_800,
        validation: int = 1_000,
        test: int = 1_000,
        fresh: bool = True,
        split_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 250,
        seed: int = 1,
    ) -> None:
        super().__init__(name=name, batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed)
        check_count("length", length, self.shortest)
        self.length, self.fresh, self.split_seed = length, fresh, split_seed
        self._counts = {"train": train_size, "val": validation, "test": test}
        for option, count in zip(("train_size", "validation", "test"), self._counts.values(), strict=True):
            check_count(option, count)

    def prepare(self) -> None:
        made = {k: v for k, v in vars(self).items() if k in self._options()}
        text = repr((type(self).__name__, self.task, sorted(made.items()), self._counts))
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.check_batch_size(self._counts["train"])

    @classmethod
    def _options(cls) -> set[str]:
        """Arguments that decide what the rows are."""
        return {*inspect.signature(cls).parameters} - {"name", "batch_size", "eval_batch_size", "seed"}

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], task: str) -> list[tuple[Inputs, Outputs]]:
        options = {str(key): value for key, value in config.items() if str(key) in cls._options()}
        return [cls(name=str(config["name"]), **options).specs(task)]

    def make(self, split: str, batch: BatchIndices) -> Batch:
        """The rows of a batch."""
        raise NotImplementedError  # each problem does

    def rows(self, split: str) -> tuple[MadeRows, int]:
        return MadeRows(self, split), self._counts[split]

    def split_chance(self, split: str) -> int:
        """The seed of what does not change from epoch to epoch, nor from run to run."""
        return mix(self.split_seed, SPLITS.index(split))

    def chance(self, split: str, batch: BatchIndices) -> int:
        """The seed of what rows hold."""
        return batch.seed if self.fresh and split == "train" else self.split_chance(split)


class Symbols:
    """Names of ids: letters, or numbers where there are more kinds than letters; `_` for a blank, `?` for the signal."""

    def __init__(self, kinds: int) -> None:
        letters = string.ascii_lowercase
        self.names = tuple(letters[:kinds] if kinds <= len(letters) else map(str, range(kinds)))
        self.blank, self.signal = FIRST + kinds, FIRST + kinds + 1
        self._ids = {name: FIRST + place for place, name in enumerate((*self.names, "_", "?"))}

    def __len__(self) -> int:
        return self.signal + 1

    def missing(self, text: str) -> str:
        """What stands between the spaces and is no symbol."""
        return "".join(dict.fromkeys(name for name in text.split() if name not in self._ids))

    def encode(self, text: str) -> np.ndarray:
        """Ids of the symbols, which spaces separate."""
        return np.array([self._ids[name] for name in text.split() if name in self._ids], np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Up to the END, separated by spaces, without padding."""
        names, words = tuple(self._ids), []
        for token in map(int, ids):
            if token == END:
                break
            if token >= FIRST:
                words.append(names[token - FIRST])
        return " ".join(words)


class Recall(Synthetic):
    """Symbols, then blanks, then a signal on which the symbols are to be told: what `Copy` and `Reverse` share.

    As sequence labelling, `symbols blanks ? blanks`: from the signal on each step is asked for one symbol, and nothing
    else counts (Arjovsky et al. ask for blanks everywhere else, which every network soon knows). As translation, the
    source is `symbols blanks END`, the target `BEGIN symbols END`.

    Args:
        kinds: Of symbols.
        most: Symbols in the longest row.
        blanks: Steps between the last symbol and the signal.
        others: See `Synthetic`.
    """

    yields: ClassVar = Tokens
    reverse: ClassVar = False

    def __init__(self, *, kinds: int, most: int, blanks: int, **others: Any) -> None:
        super().__init__(**others)
        check_count("kinds", kinds, 2)
        self.kinds, self.most, self.blanks = kinds, most, blanks
        self.source_tokenizer = self.target_tokenizer = Symbols(kinds)

    def counts(self, split: str, rows: Tensor) -> Tensor:
        """(B,) symbols in each row."""
        return torch.full_like(rows, self.most)

    def specs(self, task: str) -> tuple[Inputs, Outputs]:
        kinds = len(self.source_tokenizer)
        if task == "translation":
            return Tokens(kinds, self.most + self.blanks + 1), Tokens(kinds, self.most + 2)
        return Tokens(kinds, 2 * self.most + self.blanks), StepLabels(self.source_tokenizer.names)

    def make(self, split: str, batch: BatchIndices) -> Batch:
        symbols, counts = self._draw(split, batch)
        arrange = self._translation if self.task == "translation" else self._labeling
        inputs, targets = arrange(symbols, counts)
        lengths = None if self.lengths(split) is None else self._lengths(counts)
        return Batch(inputs, targets, batch.seed, lengths)

    def _lengths(self, counts: Tensor) -> Tensor:
        return self.blanks + (counts + 1 if self.task == "translation" else 2 * counts)

    def _draw(self, split: str, batch: BatchIndices) -> tuple[Tensor, Tensor]:
        """(B, N) symbols, of which the first (B,) count, for the most N."""
        counts = self.counts(split, batch.numbers)
        most = int(counts.max()) if len(counts) else 0
        return FIRST + whole(self.chance(split, batch), batch.numbers, most, self.kinds), counts

    def _labeling(self, symbols: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        counts, most = counts[:, None], symbols.shape[1]
        asked, end = counts + self.blanks, 2 * counts + self.blanks  # (B, 1): where the signal is, and the end
        step = torch.arange(2 * most + self.blanks)  # (T,)
        inputs = F.pad(symbols, (0, most + self.blanks)).masked_fill(step >= counts, self.source_tokenizer.blank)
        inputs = inputs.masked_fill(step == asked, self.source_tokenizer.signal).masked_fill(step >= end, PAD)
        answers = self._answers(symbols, counts, step - asked) - FIRST
        return inputs, answers.masked_fill((step < asked) | (step >= end), IGNORED)  # (B, T) both

    def _translation(self, symbols: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        counts, most = counts[:, None], symbols.shape[1]
        end = counts + self.blanks  # (B, 1)
        step = torch.arange(most + self.blanks + 1)  # (S,)
        source = F.pad(symbols, (0, self.blanks + 1)).masked_fill(step >= counts, self.source_tokenizer.blank)
        source = source.masked_fill(step == end, END).masked_fill(step > end, PAD)
        place = torch.arange(-1, most + 1).expand(len(symbols), -1)  # (B, T + 1): BEGIN stands before the first
        target = self._answers(symbols, counts, place).masked_fill(place < 0, BEGIN)
        return source, target.masked_fill(place == counts, END).masked_fill(place > counts, PAD)

    def _answers(self, symbols: Tensor, counts: Tensor, place: Tensor) -> Tensor:
        """The symbol that is told at each place (B, T) of the answer; any symbol at other places."""
        return symbols.gather(1, (counts - 1 - place if self.reverse else place).clamp(0, symbols.shape[1] - 1))

    def sources(self, split: str) -> list[str]:
        """What is read, row by row, as text."""
        return [self.source_tokenizer.decode(row) for row in self._texts(split)[0].tolist()]

    def references(self, split: str) -> list[str]:
        """What is to be told, row by row, as text."""
        return [self.target_tokenizer.decode(row) for row in self._texts(split)[1].tolist()]

    def _texts(self, split: str) -> tuple[Tensor, Tensor]:
        return self._translation(
            *self._draw(split, BatchIndices(torch.arange(self._counts[split]), self.split_chance(split)))
        )


class Copy(Recall):
    """Symbols to be told again, in order, after `length` blank steps.

    Args:
        length: Steps between the last symbol and the signal.
        symbols: How many are to be remembered.
        kinds: Of symbols.
        others: See `Synthetic`.
    """

    tasks: ClassVar = ("sequence_labeling", "translation")

    def __init__(
        self,
        *,
        name: str,
        length: int = 30,
        symbols: int = 10,
        kinds: int = 8,
        train_size: int = 12_800,
        validation: int = 1_000,
        test: int = 1_000,
        fresh: bool = True,
        split_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 250,
        seed: int = 1,
    ) -> None:
        check_count("symbols", symbols)
        super().__init__(
            name=name,
            length=length,
            kinds=kinds,
            most=symbols,
            blanks=length,
            train_size=train_size,
            validation=validation,
            test=test,
            fresh=fresh,
            split_seed=split_seed,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
        )
        self.symbols = symbols


class Reverse(Recall):
    """Symbols to be told from the last to the first, without a pause. How many a row has is a function of its number.

    Args:
        length: Symbols in a row, at most.
        fixed: Every row has so many; else from one to so many.
        kinds: Of symbols.
        others: See `Synthetic`.
    """

    tasks: ClassVar = ("translation", "sequence_labeling")
    reverse: ClassVar = True

    def __init__(
        self,
        *,
        name: str,
        length: int = 10,
        fixed: bool = False,
        kinds: int = 8,
        train_size: int = 12_800,
        validation: int = 1_000,
        test: int = 1_000,
        fresh: bool = True,
        split_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 250,
        seed: int = 1,
    ) -> None:
        super().__init__(
            name=name,
            length=length,
            kinds=kinds,
            most=length,
            blanks=0,
            train_size=train_size,
            validation=validation,
            test=test,
            fresh=fresh,
            split_seed=split_seed,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
        )
        self.fixed = fixed

    def counts(self, split: str, rows: Tensor) -> Tensor:
        if self.fixed:
            return super().counts(split, rows)
        return 1 + whole(mix(self.split_chance(split), 1), rows, 1, self.length)[:, 0]

    def lengths(self, split: str) -> Tensor | None:
        return None if self.fixed else self._lengths(self.counts(split, torch.arange(self._counts[split])))


class Adding(Synthetic):
    """The sum of the two numbers that are marked, out of a long row of numbers from 0 to 1.

    One mark is in the first half, one in the second, as Arjovsky et al. have it. Always answering 1 has a mean squared
    error of 1/6.

    Args:
        length: Steps of the series.
        others: See `Synthetic`.
    """

    tasks: ClassVar = ("regression",)
    yields: ClassVar = Series
    shortest: ClassVar = 2

    def specs(self, task: str) -> tuple[Inputs, Outputs]:
        return Series(self.length, 2), Numbers(1)

    def make(self, split: str, batch: BatchIndices) -> Batch:
        drawn = uniform(self.chance(split, batch), batch.numbers, self.length + 2)
        values, half = drawn[:, 2:].float(), self.length // 2
        first = (drawn[:, :1] * half).long()
        second = half + (drawn[:, 1:2] * (self.length - half)).long()
        marked = torch.cat((first, second), dim=1)  # (B, 2)
        marks = torch.zeros_like(values).scatter_(1, marked, 1.0)
        return Batch(torch.stack((values, marks), dim=2), values.gather(1, marked).sum(1, keepdim=True), batch.seed)
