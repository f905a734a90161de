"""Sentences with a label each: cut into tokens once, gathered and padded by the batch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError
from epochal.core.specs import Classes, Inputs, Outputs, Tokens
from epochal.data import cache, ragged, sources, tokenizers
from epochal.data.batching import Batch, BatchIndices
from epochal.data.datamodule import DataModule, count_of, stratified_order
from epochal.data.ragged import Ragged
from epochal.data.tokenizers import size_of

TOKENIZERS = ("word", "bpe", "character", "byte")
SPLITS = {"train": "train", "val": "validation", "test": "test"}
TEXT_COLUMNS = ("text", "sentence", "content", "review", "comment", "document")
LABEL_COLUMNS = ("label", "labels", "class", "target", "sentiment", "category", "y")


class SentenceRows(Dataset[Batch]):
    """Tokens of rows of unlike length, and their labels."""

    def __init__(self, tokens: Ragged, labels: Tensor) -> None:
        self.tokens, self.labels = tokens, labels

    def __getitem__(self, batch: BatchIndices) -> Batch:
        inputs, lengths = self.tokens.padded(batch.numbers)
        return Batch(inputs, self.labels[batch.numbers], batch.seed, lengths)


class SentenceData(DataModule):
    """Texts in classes, from the Hub, a folder or a file (CSV, JSON lines, Parquet).

    Without a test split of its own, part of train becomes it; the same for validation. What is held out depends on
    `split_seed` alone. The vocabulary is that of the rows that are learned from.

    Args:
        name, batch_size, eval_batch_size, seed: See `Data`.
        path: Id on the Hub, folder or file.
        config, revision: Which part and version of a set on the Hub.
        text_column, label_column: Guessed from the features where None.
        tokenizer: "word", "bpe", "character" or "byte".
        vocab_size: Tokens at most, for words and bpe.
        min_count: A word seen less often in train is unknown.
        max_length: Tokens of a text that are read, from its beginning.
        validation, test: Count or fraction of train to hold out where the set has no such split.
        train_size: Count or fraction of train to learn from, classes in proportion; None is all.
        split_seed: Decides which rows are held out and which are left.

    Raises:
        ConfigError: If there is no such tokenizer.
    """

    tasks: ClassVar = ("classification",)
    yields: ClassVar = Tokens

    def __init__(
        self,
        *,
        name: str,
        path: str | None,
        config: str | None = None,
        revision: str | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
        tokenizer: str = "word",
        vocab_size: int = 20_000,
        min_count: int = 2,
        max_length: int = 256,
        validation: int | float = 0.1,
        test: int | float = 0.1,
        train_size: int | float | None = None,
        split_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        seed: int = 1,
    ) -> None:
        super().__init__(name=name, batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed)
        tokenizers.check_kind(tokenizer, TOKENIZERS)
        self.path, self.config, self.revision = None if path is None else str(path), config, revision
        self.text_column, self.label_column = text_column, label_column
        self.kind, self.vocab_size, self.min_count, self.max_length = tokenizer, vocab_size, min_count, max_length
        self.validation, self.test, self.train_size, self.split_seed = validation, test, train_size, split_seed
        self._vocabulary: str | None = None  # another run's, if it was adopted

    def prepare(self) -> None:
        source = sources.locate(self.name, self.path, config=self.config, revision=self.revision)
        key = source.fingerprint() | {"text": self.text_column, "label": self.label_column}
        key |= {"tokenizer": self.kind, "vocab_size": self.vocab_size, "min_count": self.min_count}
        key |= {"vocabulary": self._vocabulary, "max_length": self.max_length, "split_seed": self.split_seed}
        key |= {"validation": self.validation, "test": self.test, "train_size": self.train_size}
        folder = cache.cached(self.name, key, lambda building: self._make(source, building))
        meta = cache.read_meta(folder)
        self.fingerprint = meta["fingerprint"]
        self.classes = Classes(tuple(meta["classes"]))
        self.tokenizer = tokenizers.restore(self.kind, meta["vocabulary"], tokenizers.RESERVED)
        self._rows, self._texts = {}, {}
        for split in SPLITS:
            labels = cache.read_array(folder / f"{split}_labels.npy")
            self._rows[split] = SentenceRows(Ragged.read(folder, f"{split}_tokens"), labels)
            self._texts[split] = Ragged.read(folder, f"{split}_texts")
        self.check_batch_size(len(self._rows["train"].labels))

    def _make(self, source: sources.Source, building: Path) -> dict[str, Any]:
        """Writes tokens, labels and texts of each split and tells what they are."""
        texts, labels, classes = read(source, building / "scratch", self.text_column, self.label_column)
        order = stratified_order(labels["train"], self.split_seed)
        rows = {}
        for split, role, share in (("test", "test", self.test), ("val", "validation", self.validation)):
            if role in texts:
                rows[split] = (role, np.arange(len(texts[role])))
            else:
                held = count_of(share, len(order) - 1, f"dataset.{role}")
                rows[split], order = ("train", np.sort(order[:held])), order[held:]
        rows["train"] = ("train", np.sort(order[: count_of(self.train_size, len(order), "dataset.train_size")]))

        chosen = {split: [texts[role][row] for row in numbers] for split, (role, numbers) in rows.items()}
        if self._vocabulary is None:
            sizes = {"vocab_size": self.vocab_size, "min_count": self.min_count}
            tokenizer = tokenizers.learn(self.kind, chosen["train"], **sizes)
        else:
            tokenizer = tokenizers.restore(self.kind, self._vocabulary, tokenizers.RESERVED)
        for split, (role, numbers) in rows.items():
            ids = ragged.cut(*tokenizer.encode_all(chosen[split]), self.max_length)
            ragged.write(building, f"{split}_tokens", *ids, ragged.smallest(len(tokenizer)))
            ragged.write_texts(building, f"{split}_texts", chosen[split])
            cache.create_array(building / f"{split}_labels.npy", numbers.shape, np.int64)[:] = labels[role][numbers]
        return {"classes": classes, "vocabulary": tokenizer.vocabulary}

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], task: str) -> list[tuple[Inputs, Outputs]]:
        tokens = Tokens(size_of(config, "vocab_size", 20_000), size_of(config, "max_length", 256))
        return [(tokens, Classes(("negative", "positive")))]

    def specs(self, task: str) -> tuple[Inputs, Outputs]:
        return Tokens(len(self.tokenizer), self.max_length), self.classes

    def lengths(self, split: str) -> Tensor:
        return self._rows[split].tokens.lengths

    def state(self) -> dict[str, Any]:
        return {"tokenizer": self.kind, "vocabulary": self.tokenizer.vocabulary}

    def load_state(self, state: dict[str, Any]) -> None:
        self.kind, self._vocabulary = state["tokenizer"], state["vocabulary"]

    def rows(self, split: str) -> tuple[SentenceRows, int]:
        rows = self._rows[split]
        return rows, len(rows.labels)

    def text(self, split: str, row: int) -> str:
        """A row as it was written."""
        return self._texts[split].text(row)


def read(
    source: sources.Source, scratch: Path, text_column: str | None, label_column: str | None
) -> tuple[dict[str, list[str]], dict[str, np.ndarray], list[str]]:
    """Texts and labels by role (train, validation, test), and the classes' names.

    A validation or test split without labels, marked by -1 as is the custom, is left out.

    Raises:
        ConfigError: If there are no such columns, a row has no text or no label, or train lacks a label.
    """
    import datasets

    splits = sources.open_splits(source, scratch)
    features = splits["train"].features
    wordy = [n for n, f in features.items() if getattr(f, "dtype", None) in ("string", "large_string")]
    labelled = next((n for n, f in features.items() if isinstance(f, datasets.ClassLabel)), None)
    label = label_column or labelled or next((n for n in LABEL_COLUMNS if n in features), None)
    wordy = [n for n in wordy if n != label]
    text = text_column or next((n for n in TEXT_COLUMNS if n in wordy), wordy[0] if wordy else None)
    for option, column in (("text_column", text), ("label_column", label)):
        sources.check_column(source, option, column, list(features))
    assert text is not None and label is not None  # the check has refused None
    if getattr(features[text], "dtype", None) not in ("string", "large_string"):
        raise ConfigError(
            f"The column {text} of {source.path} holds no text; name the one that does by dataset.text_column."
        )

    texts, values = {}, {}
    for role, rows in splits.items():
        found = list(rows[label])
        if role != "train" and all(value in (-1, None) for value in found):
            continue
        texts[role], values[role] = list(rows[text]), found
        for number, (words, value) in enumerate(zip(texts[role], found)):
            where = f"Row {number} of {source.path}, split {role},"
            if words is None or not words.strip():
                raise ConfigError(f"{where} has an empty {text}. Write one or leave the row out.")
            if value is None or (isinstance(features[label], datasets.ClassLabel) and value < 0):
                raise ConfigError(f"{where} has no {label}. Give it one or leave the row out.")
            if not isinstance(value, int | str):
                raise ConfigError(
                    f"The column {label} of {source.path} does not hold one label for each text, a word or a whole "
                    "number; name the one that does by dataset.label_column."
                )
    feature = features[label]
    known: list[Any]
    if isinstance(feature, datasets.ClassLabel):
        known, names = list(range(feature.num_classes)), list(feature.names)
    else:
        known = sorted(set(values["train"]))
        names = [str(value) for value in known]
    number_of = {value: number for number, value in enumerate(known)}
    if len(known) < 2:
        raise ConfigError(f"All texts of {source.path} have the same {label}: there is nothing to tell apart.")
    for role, found in values.items():
        if unknown := set(found) - set(known):
            new = ", ".join(map(str, sorted(unknown)[:3]))
            raise ConfigError(f"{source.path} has labels in {role} that train has not: {new}.")
    shutil.rmtree(scratch, ignore_errors=True)
    return texts, {role: np.array([number_of[v] for v in found], np.int64) for role, found in values.items()}, names
