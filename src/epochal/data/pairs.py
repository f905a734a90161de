"""Texts and their translations: tokenised once, gathered and padded by the batch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.specs import BEGIN, END, RESERVED, Inputs, Outputs, Tokens
from epochal.data import cache, ragged, sources, tables, vocabularies
from epochal.data.batching import Batch, BatchIndices
from epochal.data.datamodule import SPLITS
from epochal.data.ragged import Ragged
from epochal.data.stored import StoredExamples
from epochal.data.vocabularies import size_of

TOKENIZERS = ("bpe", "word", "character", "byte")
TABLES = (*tables.DELIMITED, *tables.JSON, ".parquet", ".arrow", ".gz")  # suffixes that are not a language

Pairs = tuple[list[str], list[str]]  # N texts and their N translations


class PairRows(Dataset[Batch]):
    """N sources that end with END, and their targets, from BEGIN to END."""

    def __init__(self, source: Ragged, target: Ragged) -> None:
        self.source, self.target = source, target

    def __getitem__(self, batch: BatchIndices) -> Batch:
        inputs, lengths = self.source.padded(batch.rows)
        return Batch(inputs, self.target.padded(batch.rows)[0], batch.seed, lengths)


class PairData(StoredExamples):
    """Texts and their translations, from the Hub, or a folder with a file for each language: train.de and train.en,
    validation.de and so on, where each line of one file is the translation of the same line of the other.

    Texts are stripped of whitespace. A pair with a text longer than max_length is left out of train; in validation and
    test its texts are cut.

    Args:
        source: The language to translate from: a column, a key of the column `translation`, or the suffix of a file.
        target: The language to translate to.
        tokenizer: "bpe", "word", "character" or "byte".
        vocab_size: Largest size of the vocabulary, for "word" and "bpe".
        joint: True: one vocabulary for both languages. False: one for each.
        max_length: Longest text in tokens, END included.
        validation, test: See `StoredData`.
        encoding: Of local text files, by its name in Python; None: UTF-8, or as their byte order mark tells.
        **options: See `StoredExamples`.

    Raises:
        ConfigError: If there is no such tokenizer, or source and target are the same.
    """

    targets: ClassVar = ("target_text",)
    yields: ClassVar = Tokens
    only_with: ClassVar = vocabularies.LEARNED
    unit: ClassVar = "texts"

    def __init__(
        self,
        *,
        source: str,
        target: str,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        joint: bool = True,
        max_length: int = 128,
        validation: int | float = 0.05,
        test: int | float = 0.05,
        encoding: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(validation=validation, test=test, **options)
        self.encoding = encoding
        vocabularies.check_kind(tokenizer, TOKENIZERS)
        if source == target:
            raise ConfigError(f"dataset.source and dataset.target are both {source}; give two languages.")
        self.source, self.target = source, target
        self.kind, self.vocab_size, self.joint, self.max_length = tokenizer, vocab_size, joint, max_length
        self._loaded: list[dict[str, Any]] | None = None  # the tokenizers of `load_state`: one, or one for each side

    def prepare(self) -> None:
        source = self.locate()
        key = source.fingerprint() | {"source": self.source, "target": self.target, "joint": self.joint}
        key |= {"vocab_size": self.vocab_size, "max_length": self.max_length, "reserved": RESERVED}
        key |= {"tokenizer": self.kind, "vocabularies": self._loaded} | self.split_key()
        folder = cache.cached(self.name, key, lambda building: self._make(source, building))
        meta = cache.read_meta(folder)
        self.fingerprint, self.left_out = meta["fingerprint"], meta["left_out"]
        self._set_tokenizers(meta["tokenizers"])
        self._rows, self._texts = {}, {}
        for split in SPLITS:
            self._rows[split] = PairRows(*(Ragged.read(folder, f"{split}_{side}") for side in ("source", "target")))
            self._texts[split] = [Ragged.read(folder, f"{split}_{side}_texts") for side in ("source", "target")]
        self.check_batch_size(len(self._rows["train"].source))

    def restore(self, inputs: Inputs, outputs: Outputs) -> None:
        assert self._loaded is not None
        self._set_tokenizers(self._loaded)

    def _set_tokenizers(self, states: list[dict[str, Any]]) -> None:
        """Makes the tokenizers of source and target; a single one serves both."""
        made = [vocabularies.from_state(state) for state in states]
        self.source_tokenizer, self.target_tokenizer = made[0], made[-1]

    def _make(self, source: sources.Source, building: Path) -> dict[str, Any]:
        """Writes tokens and texts of each split; returns the tokenizers and how many pairs are left out of train."""
        found = read(source, building / "scratch", self.source, self.target)
        order = np.random.default_rng(self.split_seed).permutation(len(found["train"][0]))
        splits = self.split_rows({role: len(texts[0]) for role, texts in found.items()}, order)
        pairs = {split: _select(found[role], rows) for split, (role, rows) in splits.items()}
        if self._loaded is None:
            sides = pairs["train"]
            learned = [[*sides[0], *sides[1]]] if self.joint else list(sides)
            made = [vocabularies.learn(self.kind, texts, vocab_size=self.vocab_size) for texts in learned]
            self.source_tokenizer, self.target_tokenizer = made[0], made[-1]
        else:
            self._set_tokenizers(self._loaded)
        left_out = {split: self._write(building, split, pairs[split]) for split in SPLITS}
        return {"left_out": left_out["train"], "tokenizers": self._states()}

    def _states(self) -> list[dict[str, Any]]:
        """Of the tokenizer of both sides, or of each of them."""
        made = (self.source_tokenizer,) if self.joint else (self.source_tokenizer, self.target_tokenizer)
        return [tokenizer.state() for tokenizer in made]

    def _write(self, building: Path, split: str, pairs: Pairs) -> int:
        """Writes tokens and texts of a split; returns how many pairs are left out because they are too long."""
        sides = {"source": self.source_tokenizer, "target": self.target_tokenizer}
        ids = [tokenizer.encode_all(texts) for tokenizer, texts in zip(sides.values(), pairs)]
        left_out = 0
        if split == "train":
            fits = np.maximum(ids[0][1], ids[1][1]) < self.max_length  # one less, for END
            left_out = int((~fits).sum())
            if left_out == len(fits):
                raise ConfigError(
                    f"All texts of dataset={self.name} are longer than {self.max_length} tokens; raise "
                    "dataset.max_length."
                )
            ids = [(values[np.repeat(fits, lengths)], lengths[fits]) for values, lengths in ids]
            pairs = _select(pairs, np.flatnonzero(fits))
        for (side, tokenizer), (values, lengths), texts in zip(sides.items(), ids, pairs):
            values, lengths = ragged.cut(values, lengths, self.max_length - 1)
            values, lengths = ragged.delimit(values, lengths, begin=BEGIN if side == "target" else None, end=END)
            ragged.write(building, f"{split}_{side}", values, lengths, ragged.smallest(len(tokenizer)))
            ragged.write_texts(building, f"{split}_{side}_texts", texts)
        return left_out

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], target: str) -> list[tuple[Inputs, Outputs]]:
        vocab_size, length = size_of(config, "vocab_size", 8000), size_of(config, "max_length", 128)
        # two vocabularies rarely have the same size, so a model that needs one for both must be refused
        return [(Tokens(vocab_size, length), Tokens(vocab_size + (not config.get("joint", True)), length))]

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        sizes = len(self.source_tokenizer), len(self.target_tokenizer)
        return Tokens(sizes[0], self.max_length), Tokens(sizes[1], self.max_length)

    def lengths(self, split: str) -> Tensor:
        """(N,) sort keys: the longer text of a pair, then the shorter.

        Sorted by the source alone, a fifth of the targets would be padding.
        """
        rows = self._rows[split]
        source, target = rows.source.lengths, rows.target.lengths
        return source.maximum(target) * (self.max_length + 2) + source.minimum(target)

    def mean_lengths(self) -> tuple[float, float]:
        rows = self._rows["train"]
        return self.padded_mean(rows.source.lengths), self.padded_mean(rows.target.lengths)

    def state(self) -> dict[str, Any]:
        source, *target = self._states()
        return {**source, **({"target_vocabulary": target[0]["vocabulary"]} if target else {})}

    def load_state(self, state: dict[str, Any]) -> None:
        kept = vocabularies.vocabularies_of(state)
        first = vocabularies.read_state(state, self.name, older=vocabularies.OLDER, pads=True)
        self._loaded = [{**first, "vocabulary": vocabulary} for vocabulary in kept]
        self.kind, self.joint = first["tokenizer"], len(kept) == 1

    def rows(self, split: str) -> tuple[PairRows, int]:
        rows = self._rows[split]
        return rows, len(rows.source)

    @property
    def note(self) -> str:
        if not self.left_out:
            return ""
        return f"{self.left_out:,} pairs longer than dataset.max_length={self.max_length} tokens are left out of train"

    def sources(self, split: str) -> list[str]:
        """The texts in the source language as they were written, row by row."""
        return self._texts[split][0].texts()

    def references(self, split: str) -> list[str]:
        """Their translations as they were written."""
        return self._texts[split][1].texts()


def read(source: sources.Source, scratch: Path, first: str, second: str) -> dict[str, Pairs]:
    """Stripped texts in both languages, by role (train, validation, test).

    Raises:
        ConfigError: If there is no such language, a text is empty, or the files of a split have different lengths.
    """
    if source.local is not None and source.local.is_dir() and (languages := _languages(source.local)):
        return _read_files(source, languages, first, second)
    splits = tables.open_splits(source, scratch)
    found = {}
    for role, rows in splits.items():
        table = rows.with_format("arrow")[:]
        if "translation" in table.column_names:
            table = table.select(["translation"]).flatten()
            table = table.rename_columns([name.removeprefix("translation.") for name in table.column_names])
        texts = []
        for option, language in (("source", first), ("target", second)):
            _check_language(source, option, language, table.column_names)
            column = table.column(language).to_pylist()
            for number, text in enumerate(column):
                if not isinstance(text, str) or not text.strip():
                    raise ConfigError(
                        f"Row {number} of {source.path}, split {role}, has no text in {language}. Write one or leave "
                        "the row out."
                    )
            texts.append([text.strip() for text in column])
        found[role] = (texts[0], texts[1])
    shutil.rmtree(scratch, ignore_errors=True)
    return found


def _select(pairs: Pairs, rows: np.ndarray) -> Pairs:
    return [pairs[0][row] for row in rows], [pairs[1][row] for row in rows]


def _check_language(source: sources.Source, option: str, language: str, languages: list[str]) -> None:
    if language not in languages:
        raise ConfigError(
            f"dataset.{option}={language} is no language of {source.path}.{did_you_mean(language, languages)} "
            f"It has: {', '.join(languages)}."
        )


def _languages(folder: Path) -> list[str]:
    """The suffixes of the files train.<language>; none if the folder holds tables."""
    files = [f for f in sorted(folder.iterdir()) if f.stem in sources.SPLIT_NAMES["train"] and f.is_file()]
    return [f.suffix[1:] for f in files if f.suffix and f.suffix.lower() not in TABLES]


def _read_files(source: sources.Source, languages: list[str], first: str, second: str) -> dict[str, Pairs]:
    assert source.local is not None  # checked by the caller
    for option, language in (("source", first), ("target", second)):
        _check_language(source, option, language, languages)
    found = {}
    for role, names in sources.SPLIT_NAMES.items():
        for name in names:
            files = [source.local / f"{name}.{language}" for language in (first, second)]
            there = [file for file in files if file.is_file()]
            if len(there) == 1:
                missing = next(file for file in files if file not in there)
                raise ConfigError(f"{there[0]} has no {missing.name} beside it; each language needs its file.")
            if there:
                texts = [_lines(file, source.encoding) for file in files]
                if len(texts[0]) != len(texts[1]):
                    raise ConfigError(
                        f"{files[0]} has {len(texts[0]):,} lines, but {files[1].name} has {len(texts[1]):,}; line by "
                        "line they must be translations of each other."
                    )
                found[role] = (texts[0], texts[1])
                break
    return found


def _lines(file: Path, encoding: str | None) -> list[str]:
    lines = tables.read_lines(file, encoding)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise ConfigError(f"Line {number:,} of {file} is empty. Write it, or leave it out in both languages.")
    return [line.strip() for line in lines]
