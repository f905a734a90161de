"""Texts with a class each: tokenised once, gathered and padded by the batch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError
from epochal.core.specs import PAD, Classes, Inputs, Outputs, Tokens
from epochal.data import cache, ragged, sources, tables, tokenizers
from epochal.data.batching import Batch, BatchIndices
from epochal.data.datamodule import SPLITS
from epochal.data.ragged import Ragged
from epochal.data.stored import StoredExamples, stratified_order

TOKENIZERS = ("word", "bpe", "character", "byte")
TEXT_COLUMNS = ("text", "sentence", "content", "review", "comment", "document")
LABEL_COLUMNS = ("label", "labels", "class", "target", "sentiment", "category", "y")


class SentenceRows(Dataset[Batch]):
    """N texts as token ids, and their labels (N,)."""

    def __init__(self, tokens: Ragged, labels: Tensor) -> None:
        self.tokens, self.labels = tokens, labels

    def __getitem__(self, batch: BatchIndices) -> Batch:
        inputs, lengths = self.tokens.padded(batch.rows)
        return Batch(inputs, self.labels[batch.rows], batch.seed, lengths)


class SentenceData(StoredExamples):
    """Texts with a class each, from the Hub, a folder or a file (CSV, TSV, JSON lines, Parquet).

    Held-out rows and those of a smaller `train_size` have the classes in the proportions of the training split. The
    vocabulary is learned from the rows that are trained on.

    Args:
        text_column: The column with the texts; None: one of a usual name, or the first that holds strings.
        label_column: The column with the classes; None: the first of type ClassLabel, or one of a usual name.
        tokenizer: "word" ("bpe" is used where words have no spaces between them), "bpe", "character" or "byte".
        vocab_size: Largest size of the vocabulary, for "word" and "bpe".
        min_count: A word that the training texts have less often is unknown.
        max_length: Longest text in tokens; longer ones are cut.
        encoding: Of local text files, by its name in Python; None: UTF-8, or as their byte order mark tells.
        **options: See `StoredExamples`.

    Raises:
        ConfigError: If there is no such tokenizer.
    """

    targets: ClassVar = ("classes",)
    yields: ClassVar = Tokens
    unit: ClassVar = "texts"

    def __init__(
        self,
        *,
        text_column: str | None = None,
        label_column: str | None = None,
        tokenizer: str = "word",
        vocab_size: int = 20_000,
        min_count: int = 2,
        max_length: int = 256,
        encoding: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.encoding = encoding
        tokenizers.check_kind(tokenizer, TOKENIZERS)
        self.text_column, self.label_column = text_column, label_column
        self.kind, self.vocab_size, self.min_count, self.max_length = tokenizer, vocab_size, min_count, max_length
        self._loaded_vocabulary: str | None = None  # see `load_state`
        self._note = ""

    def prepare(self) -> None:
        source = self.locate()
        key = source.fingerprint() | {"text": self.text_column, "label": self.label_column}
        key |= {"tokenizer": self.kind, "vocab_size": self.vocab_size, "min_count": self.min_count}
        key |= {"vocabulary": self._loaded_vocabulary, "max_length": self.max_length}
        folder = cache.cached(self.name, key | self.split_key(), lambda building: self._make(source, building))
        meta = cache.read_meta(folder)
        self.fingerprint = meta["fingerprint"]
        self.classes = Classes(tuple(meta["classes"]))
        self.tokenizer = tokenizers.restore(meta.get("tokenizer", self.kind), meta["vocabulary"], tokenizers.RESERVED)
        self._rows, self._texts = {}, {}
        for split in SPLITS:
            labels = cache.read_array(folder / f"{split}_labels.npy")
            self._rows[split] = SentenceRows(Ragged.read(folder, f"{split}_tokens"), labels)
            self._texts[split] = Ragged.read(folder, f"{split}_texts")
        ids = [rows.tokens.values.numpy() for rows in self._rows.values()]
        self._note = tokenizers.note(self.kind, self.tokenizer, ids)
        self.check_batch_size(len(self._rows["train"].labels))

    def _make(self, source: sources.Source, building: Path) -> dict[str, Any]:
        """Writes tokens, labels and texts of each split; returns the names of the classes and the vocabulary."""
        texts, labels, classes = read(source, building / "scratch", self.text_column, self.label_column)
        order = stratified_order(labels["train"], self.split_seed)
        splits = self.split_rows({role: len(found) for role, found in labels.items()}, order)
        chosen = {split: [texts[role][row] for row in rows] for split, (role, rows) in splits.items()}
        tokenizer = tokenizers.learn_or_restore(
            self.kind, self._loaded_vocabulary, chosen["train"], vocab_size=self.vocab_size, min_count=self.min_count
        )
        for split, (role, rows) in splits.items():
            ids = ragged.cut(*tokenizer.encode_all(chosen[split]), self.max_length)
            ragged.write(building, f"{split}_tokens", *ids, ragged.smallest(len(tokenizer)))
            ragged.write_texts(building, f"{split}_texts", chosen[split])
            cache.create_array(building / f"{split}_labels.npy", rows.shape, np.int64)[:] = labels[role][rows]
        return {"classes": classes, "vocabulary": tokenizer.vocabulary, "tokenizer": tokenizer.kind}

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], target: str) -> list[tuple[Inputs, Outputs]]:
        sizes = tokenizers.size_of(config, "vocab_size", 20_000), tokenizers.size_of(config, "max_length", 256)
        return [(Tokens(*sizes), Classes(("negative", "positive")))]

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        return Tokens(len(self.tokenizer), self.max_length), self.classes

    def lengths(self, split: str) -> Tensor:
        return self._rows[split].tokens.lengths

    def mean_lengths(self) -> tuple[float, None]:
        return self.padded_mean(self._rows["train"].tokens.lengths), None

    @property
    def note(self) -> str:
        return self._note

    def state(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.kind, "vocabulary": self.tokenizer.vocabulary}

    def load_state(self, state: dict[str, Any]) -> None:
        self.kind, self._loaded_vocabulary = state["tokenizer"], state["vocabulary"]

    def restore(self, inputs: Inputs, outputs: Outputs) -> None:
        assert self._loaded_vocabulary is not None and isinstance(outputs, Classes)
        self.classes = outputs
        self.tokenizer = tokenizers.restore(self.kind, self._loaded_vocabulary, tokenizers.RESERVED)

    def encode(self, examples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        values, lengths = ragged.cut(*self.tokenizer.encode_all(list(examples)), self.max_length)
        rows = torch.from_numpy(np.asarray(values)).long().split(lengths.tolist())
        return pad_sequence(rows, batch_first=True, padding_value=PAD), torch.as_tensor(lengths)

    def rows(self, split: str) -> tuple[SentenceRows, int]:
        rows = self._rows[split]
        return rows, len(rows.labels)

    def text(self, split: str, row: int) -> str:
        """The text of a row as the source has it."""
        return self._texts[split].text(row)


def read(
    source: sources.Source, scratch: Path, text_column: str | None, label_column: str | None
) -> tuple[dict[str, list[str]], dict[str, np.ndarray], list[str]]:
    """Texts and labels (N,) by role (train, validation, test), and the names of the classes.

    A validation or test split without labels (all of them -1 or null) is left out.

    Raises:
        ConfigError: If there are no such columns, a row has no text or no label, a label is not in train, or train has
            one class only.
    """
    splits = tables.open_splits(source, scratch)
    features = splits["train"].features
    label = sources.find_label_column(source, features, label_column, LABEL_COLUMNS)
    text = _find_text_column(source, features, text_column, label)
    texts, values = {}, {}
    for role, rows in splits.items():
        # a blank at the end of a label is invisible, and would make a class of its own
        found = [value.strip() or None if isinstance(value, str) else value for value in rows[label]]
        found = sources.whole_labels(found)
        if role == "train" or any(value not in (-1, None) for value in found):
            texts[role], values[role] = list(rows[text]), found
            _check_rows(source, role, text, texts[role], label, found, features[label])
    labels, names = sources.encode_labels(source, features[label], values)
    if len(names) < 2:
        raise ConfigError(f"All texts of {source.path} have the same {label}: there is nothing to tell apart.")
    shutil.rmtree(scratch, ignore_errors=True)
    return texts, labels, names


def _find_text_column(source: sources.Source, features: Any, given: str | None, label: str) -> str:
    strings = [n for n, f in features.items() if getattr(f, "dtype", None) in ("string", "large_string")]
    others = [name for name in strings if name != label]
    text = given or sources.usual_column(others, TEXT_COLUMNS) or (others[0] if others else None)
    text = sources.check_column(source, "text_column", text, list(features))
    if text not in strings:
        raise ConfigError(
            f"The column {text} of {source.path} holds no text; name the one that does by dataset.text_column."
        )
    if text == label:
        raise ConfigError(
            f"dataset.text_column and dataset.label_column are both {text}, so the text would give the class away; "
            f"name two columns. There are: {', '.join(features)}."
        )
    return text


def _check_rows(
    source: sources.Source, role: str, text: str, texts: list[Any], label: str, labels: list[Any], feature: Any
) -> None:
    """Raises ConfigError if a row has no text or no label."""
    import datasets

    for number, (words, value) in enumerate(zip(texts, labels)):
        where = f"Row {number} of {source.path}, split {role},"
        if words is None or not words.strip():
            raise ConfigError(f"{where} has an empty {text}. Write one or leave the row out.")
        if value is None or (isinstance(feature, datasets.ClassLabel) and value < 0):
            raise ConfigError(f"{where} has no {label}. Give it one or leave the row out.")
        if not isinstance(value, int | str):
            raise ConfigError(
                f"The column {label} of {source.path} does not hold one label for each text, a word or a whole "
                "number; name the one that does by dataset.label_column."
            )
