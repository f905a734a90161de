"""Texts in two languages, line by line: cut into tokens once, gathered and padded by the batch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.specs import BEGIN, END, Inputs, Outputs, Tokens
from epochal.data import cache, ragged, sources, tokenizers
from epochal.data.batching import Batch, BatchIndices
from epochal.data.datamodule import DataModule, count_of
from epochal.data.ragged import Ragged
from epochal.data.tokenizers import size_of

TOKENIZERS = ("bpe", "word", "character", "byte")
SPLITS = ("train", "val", "test")
TABLES = (".parquet", ".csv", ".json", ".jsonl", ".arrow", ".txt")  # files that are no language's


class PairRows(Dataset[Batch]):
    """Sources that end with END, and targets from BEGIN to END."""

    def __init__(self, source: Ragged, target: Ragged) -> None:
        self.source, self.target = source, target

    def __getitem__(self, batch: BatchIndices) -> Batch:
        inputs, lengths = self.source.padded(batch.numbers)
        return Batch(inputs, self.target.padded(batch.numbers)[0], batch.seed, lengths)


class PairData(DataModule):
    """Texts and their translations, from the Hub, or a folder with a file for each language: train.de and train.en,
    validation.de and so on, line by line.

    Without a test split of its own, part of train becomes it; the same for validation. What is held out depends on
    `split_seed` alone. Blanks around a text are cut off. Pairs with a text longer than max_length are left out of train,
    and cut in validation and test.

    Args:
        name, batch_size, eval_batch_size, seed: See `Data`.
        path: Id on the Hub, folder or file.
        config, revision: Which part and version of a set on the Hub.
        source, target: Languages: a column, a key of the column `translation`, or the end of a file's name.
        tokenizer: "bpe", "word", "character" or "byte".
        vocab_size: Tokens at most, for words and bpe.
        joint: One vocabulary for both languages; False learns one for each.
        max_length: Tokens of a text, its END among them.
        validation, test: Count or fraction of train to hold out where the set has no such split.
        train_size: Count or fraction of train to learn from; None is all.
        split_seed: Decides which pairs are held out and which are left.

    Raises:
        ConfigError: If there is no such tokenizer, or source and target are the same.
    """

    tasks: ClassVar = ("translation",)
    yields: ClassVar = Tokens

    def __init__(
        self,
        *,
        name: str,
        path: str | None,
        source: str,
        target: str,
        config: str | None = None,
        revision: str | None = None,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        joint: bool = True,
        max_length: int = 128,
        validation: int | float = 0.05,
        test: int | float = 0.05,
        train_size: int | float | None = None,
        split_seed: int = 0,
        batch_size: int = 128,
        eval_batch_size: int = 256,
        seed: int = 1,
    ) -> None:
        super().__init__(name=name, batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed)
        tokenizers.check_kind(tokenizer, TOKENIZERS)
        if source == target:
            raise ConfigError(f"dataset.source and dataset.target are both {source}; give two languages.")
        self.path, self.config, self.revision = None if path is None else str(path), config, revision
        self.source, self.target = source, target
        self.kind, self.vocab_size, self.joint, self.max_length = tokenizer, vocab_size, joint, max_length
        self.validation, self.test, self.train_size, self.split_seed = validation, test, train_size, split_seed
        self._vocabularies: list[str] | None = None  # another run's, if they were adopted

    def prepare(self) -> None:
        source = sources.locate(self.name, self.path, config=self.config, revision=self.revision)
        key = source.fingerprint() | {"source": self.source, "target": self.target, "tokenizer": self.kind}
        key |= {"vocab_size": self.vocab_size, "joint": self.joint, "vocabularies": self._vocabularies}
        key |= {"max_length": self.max_length, "split_seed": self.split_seed}
        key |= {"validation": self.validation, "test": self.test, "train_size": self.train_size}
        folder = cache.cached(self.name, key, lambda building: self._make(source, building))
        meta = cache.read_meta(folder)
        self.fingerprint, self.left_out = meta["fingerprint"], meta["left_out"]
        self._set_tokenizers(meta["vocabularies"])
        self._rows, self._texts = {}, {}
        for split in SPLITS:
            self._rows[split] = PairRows(*(Ragged.read(folder, f"{split}_{side}") for side in ("source", "target")))
            self._texts[split] = [Ragged.read(folder, f"{split}_{side}_texts") for side in ("source", "target")]
        self.check_batch_size(len(self._rows["train"].source))

    def _set_tokenizers(self, vocabularies: list[str]) -> None:
        """One vocabulary is that of both languages."""
        made = [tokenizers.restore(self.kind, v, tokenizers.RESERVED) for v in vocabularies]
        self.source_tokenizer, self.target_tokenizer = made[0], made[-1]

    def _make(self, source: sources.Source, building: Path) -> dict[str, Any]:
        """Writes tokens and texts of both sides of each split and tells what they are."""
        found = read(source, building / "scratch", self.source, self.target)
        order = np.random.default_rng(self.split_seed).permutation(len(found["train"][0]))
        pairs: dict[str, tuple[list[str], list[str]]] = {}
        for split, role, share in (("test", "test", self.test), ("val", "validation", self.validation)):
            if role in found:
                pairs[split] = found[role]
            else:
                held = count_of(share, len(order) - 1, f"dataset.{role}")
                pairs[split], order = _chosen(found["train"], np.sort(order[:held])), order[held:]
        kept = count_of(self.train_size, len(order), "dataset.train_size")
        pairs["train"] = _chosen(found["train"], np.sort(order[:kept]))

        if self._vocabularies is None:
            sides = pairs["train"]
            learned = [[*sides[0], *sides[1]]] if self.joint else list(sides)
            made = [tokenizers.learn(self.kind, texts, vocab_size=self.vocab_size) for texts in learned]
            self._set_tokenizers([tokenizer.vocabulary for tokenizer in made])
        else:
            self._set_tokenizers(self._vocabularies)
        left_out = 0
        for split in SPLITS:
            texts = pairs[split]
            ids = [t.encode_all(side) for t, side in zip((self.source_tokenizer, self.target_tokenizer), texts)]
            if split == "train":
                fits = np.maximum(ids[0][1], ids[1][1]) < self.max_length  # room for END
                left_out = int((~fits).sum())
                if left_out == len(fits):
                    raise ConfigError(
                        f"All texts of dataset={self.name} are longer than {self.max_length} tokens; raise dataset.max_length."
                    )
                ids = [(values[np.repeat(fits, lengths)], lengths[fits]) for values, lengths in ids]
                texts = _chosen(texts, np.flatnonzero(fits))
            for side, tokenizer, (values, lengths), words in zip(
                ("source", "target"), (self.source_tokenizer, self.target_tokenizer), ids, texts
            ):
                values, lengths = ragged.cut(values, lengths, self.max_length - 1)
                ends = ragged.offsets_of(lengths)
                values = np.insert(values, ends[1:], END)
                if side == "target":
                    values = np.insert(values, ends[:-1] + np.arange(len(lengths)), BEGIN)
                lengths = lengths + (2 if side == "target" else 1)
                ragged.write(building, f"{split}_{side}", values, lengths, ragged.smallest(len(tokenizer)))
                ragged.write_texts(building, f"{split}_{side}_texts", words)
        vocabularies = [self.source_tokenizer.vocabulary, self.target_tokenizer.vocabulary]
        return {"left_out": left_out, "vocabularies": vocabularies[:1] if self.joint else vocabularies}

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], task: str) -> list[tuple[Inputs, Outputs]]:
        vocab_size, length = size_of(config, "vocab_size", 8000), size_of(config, "max_length", 128)
        # two vocabularies are seldom of one size, so a model that wants one for both is told here
        return [(Tokens(vocab_size, length), Tokens(vocab_size + (not config.get("joint", True)), length))]

    def specs(self, task: str) -> tuple[Inputs, Outputs]:
        sizes = len(self.source_tokenizer), len(self.target_tokenizer)
        return Tokens(sizes[0], self.max_length), Tokens(sizes[1], self.max_length)

    def lengths(self, split: str) -> Tensor:
        """By the longer text of a pair, then by the shorter: by the source alone, a fifth of the targets is padding."""
        rows = self._rows[split]
        source, target = rows.source.lengths, rows.target.lengths
        return source.maximum(target) * (self.max_length + 2) + source.minimum(target)

    def state(self) -> dict[str, Any]:
        made = (self.source_tokenizer,) if self.joint else (self.source_tokenizer, self.target_tokenizer)
        return {"tokenizer": self.kind, "vocabularies": [tokenizer.vocabulary for tokenizer in made]}

    def load_state(self, state: dict[str, Any]) -> None:
        self.kind, self._vocabularies = state["tokenizer"], list(state["vocabularies"])
        self.joint = len(self._vocabularies) == 1

    def rows(self, split: str) -> tuple[PairRows, int]:
        rows = self._rows[split]
        return rows, len(rows.source)

    @property
    def note(self) -> str:
        """What a person should know about the rows, or nothing."""
        if not self.left_out:
            return ""
        return f"{self.left_out:,} pairs longer than dataset.max_length={self.max_length} tokens are left out of train"

    def sources(self, split: str) -> list[str]:
        """The texts as they were written, row by row."""
        return self._texts[split][0].texts()

    def references(self, split: str) -> list[str]:
        """Their translations as they were written."""
        return self._texts[split][1].texts()


def read(source: sources.Source, scratch: Path, first: str, second: str) -> dict[str, tuple[list[str], list[str]]]:
    """Texts in both languages by role (train, validation, test), without blanks around them.

    Raises:
        ConfigError: If there is no such language, a text is empty, or files are of unequal length.
    """
    if source.local is not None and source.local.is_dir() and (languages := _languages(source.local)):
        return _read_files(source, languages, first, second)
    splits = sources.open_splits(source, scratch)
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
                        f"Row {number} of {source.path}, split {role}, has no text in {language}. Write one or leave the row out."
                    )
            texts.append([text.strip() for text in column])
        found[role] = (texts[0], texts[1])
    shutil.rmtree(scratch, ignore_errors=True)
    return found


def _chosen(pairs: tuple[list[str], list[str]], rows: np.ndarray) -> tuple[list[str], list[str]]:
    return [pairs[0][row] for row in rows], [pairs[1][row] for row in rows]


def _check_language(source: sources.Source, option: str, language: str, languages: list[str]) -> None:
    if language not in languages:
        raise ConfigError(
            f"dataset.{option}={language} is no language of {source.path}.{did_you_mean(language, languages)} "
            f"It has: {', '.join(languages)}."
        )


def _languages(folder: Path) -> list[str]:
    """Of the files train.<language>; none where the folder holds tables."""
    files = [f for f in sorted(folder.iterdir()) if f.stem in sources.SPLIT_NAMES["train"] and f.is_file()]
    return [f.suffix[1:] for f in files if f.suffix and f.suffix not in TABLES]


def _read_files(
    source: sources.Source, languages: list[str], first: str, second: str
) -> dict[str, tuple[list[str], list[str]]]:
    assert source.local is not None  # the caller has looked
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
                texts = [_lines(file) for file in files]
                if len(texts[0]) != len(texts[1]):
                    raise ConfigError(
                        f"{files[0]} has {len(texts[0]):,} lines, but {files[1].name} has {len(texts[1]):,}; line by line "
                        "they must be translations of each other."
                    )
                found[role] = (texts[0], texts[1])
                break
    return found


def _lines(file: Path) -> list[str]:
    # only a newline ends a line here: other marks that Python would cut at may stand within a sentence
    lines = file.read_text(encoding="utf-8-sig", errors="replace").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise ConfigError(f"Line {number:,} of {file} is empty. Write it, or leave it out in both languages.")
    return [line.strip() for line in lines]
