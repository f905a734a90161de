"""Single texts and pairs of texts, most with a class each: tokenised once, gathered and padded by the batch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError
from epochal.core.specs import PAD, Classes, Inputs, Outputs, Tokens
from epochal.data import cache, ragged, sources, tables, tokenizers, vocabularies
from epochal.data.batching import Batch, BatchIndices
from epochal.data.datamodule import SPLITS
from epochal.data.ragged import Ragged
from epochal.data.stored import StoredExamples, stratified_order
from epochal.data.text import bytes_in

TOKENIZERS = ("word", "bpe", "character", "byte")
TEXT_COLUMNS = ("text", "sentence", "content", "review", "comment", "document")
LABEL_COLUMNS = ("label", "labels", "class", "target", "sentiment", "category", "y")
PAIR_COLUMNS = (  # of the first and the second text, as in GLUE and SuperGLUE
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
GUESS = "guess"
TAB = "\t"  # between the two texts of a pair, where they are given or shown as one

Texts = dict[str, list[str]]  # by role (train, validation, test)


class SentenceRows(Dataset[Batch]):
    """N texts as token ids, and their labels (N,); without labels the targets are the texts themselves.

    Args:
        tokens: The texts.
        labels: Of the classes, or None.
        pad: The id after the end of shorter texts.
        end: The id after each of the two texts of a pair; None: there are no pairs.
    """

    def __init__(self, tokens: Ragged, labels: Tensor | None, pad: int = PAD, end: int | None = None) -> None:
        self.tokens, self.labels, self.pad, self.end = tokens, labels, pad, end

    def __getitem__(self, batch: BatchIndices) -> Batch:
        inputs, lengths = self.tokens.padded(batch.rows, self.pad)
        targets = inputs if self.labels is None else self.labels[batch.rows]
        segments = None if self.end is None else segments_of(inputs, lengths, self.end)
        return Batch(inputs, targets, batch.seed, lengths, segments)


class SentenceData(StoredExamples):
    """Texts, or pairs of texts, with a class each, from the Hub, a folder or a file (CSV, TSV, JSON lines, Parquet).

    Held-out rows and those of a smaller `train_size` have the classes in the proportions of the training split. The
    vocabulary is learned from the rows that are trained on. Where the target is the text itself, classes are not needed;
    where there are any, the same rows are held out as for learning these.

    Args:
        text_column: The column with the texts; None: one of a usual name, or the first that holds strings.
        second_column: The column with the second text of each pair; "guess": the one that belongs to a first text of a
            usual name (sentence1 and sentence2, premise and hypothesis ...), if there is one; None: there are no pairs.
        label_column: The column with the classes; None: the first of type ClassLabel, or one of a usual name.
        tokenizer: "word" ("bpe" is used where words have no spaces between them), "bpe", "character" or "byte"; or the path
            of a tokenizer.json, or its folder.
        vocab_size: Largest size of the vocabulary, for "word" and "bpe".
        min_count: A word that the training texts have less often is unknown.
        max_length: Longest text in tokens, BEGIN and END included; longer ones are cut, of a pair the longer one first.
        add_special_tokens: Whether texts stand between BEGIN and END. None: as the run reads them whose weights this one
            begins with, or as its tokenizer.json says; else only where the target is the text itself. A pair is always
            BEGIN, first, END, second, END.
        encoding: Of local text files, by its name in Python; None: UTF-8, or as their byte order mark tells.
        **options: See `StoredExamples`.

    Raises:
        ConfigError: If there is no such tokenizer.
    """

    targets: ClassVar = ("classes", "text")
    yields: ClassVar = Tokens
    only_with: ClassVar = vocabularies.LEARNED
    unit: ClassVar = "texts"

    def __init__(
        self,
        *,
        text_column: str | None = None,
        second_column: str | None = None,
        label_column: str | None = None,
        tokenizer: str = "word",
        vocab_size: int = 20_000,
        min_count: int = 2,
        max_length: int = 256,
        add_special_tokens: bool | None = None,
        encoding: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.encoding = encoding
        self.text_column, self.second_column, self.label_column = text_column, second_column, label_column
        self.vocab_size, self.min_count, self.max_length = vocab_size, min_count, max_length
        self.add_special_tokens = add_special_tokens
        self.kind, self._loaded = vocabularies.chosen(
            tokenizer, TOKENIZERS
        )  # the state of one that is not to be learned
        if self._loaded is not None:
            self._loaded |= {"special_tokens": vocabularies.from_state(self._loaded).adds_special}
        self._note = ""

    def prepare(self) -> None:
        source = self.locate()
        key = source.fingerprint() | {"text": self.text_column, "label": self.label_column}
        key |= {"second": self.second_column} if self.second_column else {}
        key |= {"special": self.add_special_tokens, "learns": self.learns == "text"}
        key |= {"vocab_size": self.vocab_size, "min_count": self.min_count, "max_length": self.max_length}
        key |= vocabularies.cache_key(self.kind, self._loaded) | self.split_key() | self._made_from()
        folder = cache.cached(self.name, key, lambda building: self._make(source, building))
        meta = cache.read_meta(folder)
        self.fingerprint = meta["fingerprint"]
        self.classes = Classes(tuple(meta["classes"]))
        self.tokenizer, self.pairs = vocabularies.from_state(meta["tokenizer"]), meta["pairs"]
        self.characters_per_token: dict[str, float] = meta["characters_per_token"]
        self.bytes_per_token: dict[str, float] = meta["bytes_per_token"]
        self._rows, self._texts = {}, {}
        for split in SPLITS:
            labels = None if self.learns == "text" else cache.read_array(folder / f"{split}_labels.npy")
            self._rows[split] = SentenceRows(Ragged.read(folder, f"{split}_tokens"), labels, self._pad, self._pair_end)
            self._texts[split] = Ragged.read(folder, f"{split}_texts")
        ids = [rows.tokens.values.numpy() for rows in self._rows.values()]
        self._note = vocabularies.note(self.kind, self.tokenizer, ids)
        self.check_batch_size(len(self._rows["train"].tokens))

    def _made_from(self) -> dict[str, Any]:
        """More for the key of the cache, of a subclass that makes texts or labels."""
        return {}

    @property
    def _pad(self) -> int:
        return self.tokenizer.ids.pad or PAD

    @property
    def _pair_end(self) -> int | None:
        return self.tokenizer.ids.end if self.pairs else None

    def _read(self, source: sources.Source, scratch: Path) -> Corpus:
        columns = self.text_column, self.second_column, self.label_column
        return read(source, scratch, *columns, labelled=self.learns != "text")

    def _make(self, source: sources.Source, building: Path) -> dict[str, Any]:
        """Writes tokens, labels and texts of each split; returns the names of the classes and the tokenizer."""
        found = self._read(source, building / "scratch")
        labels, sides = found.labels, [found.texts] + ([found.seconds] if found.seconds else [])
        order = stratified_order(labels["train"], self.split_seed)
        splits = self.split_rows({role: len(each) for role, each in labels.items()}, order)
        chosen = {s: [[texts[role][row] for row in rows] for texts in sides] for s, (role, rows) in splits.items()}
        learned_from = [text for texts in chosen["train"] for text in texts]
        self.tokenizer, self.pairs = self._learned(learned_from), len(sides) == 2
        meta: dict[str, Any] = {"classes": found.classes, "tokenizer": self.tokenizer.state(), "pairs": self.pairs}
        meta |= {"characters_per_token": {}, "bytes_per_token": {}}
        for split, (role, rows) in splits.items():
            values, lengths = self._ids(chosen[split])
            ragged.write(building, f"{split}_tokens", values, lengths, ragged.smallest(len(self.tokenizer)))
            texts = [TAB.join(each) for each in zip(*chosen[split], strict=True)]
            ragged.write_texts(building, f"{split}_texts", texts)
            cache.create_array(building / f"{split}_labels.npy", rows.shape, np.int64)[:] = labels[role][rows]
            whole = [text for text, length in zip(texts, lengths) if length < self.max_length] or texts
            tokens = lengths[lengths < self.max_length].sum() or lengths.sum()
            predicted = max(int(tokens) - (len(whole) if self._delimiters()[0] is not None else 0), 1)
            meta["characters_per_token"][split] = sum(map(len, whole)) / predicted
            meta["bytes_per_token"][split] = sum(map(bytes_in, whole)) / predicted
        return meta

    def _learned(self, texts: list[str]) -> tokenizers.Tokenizer:
        """The tokenizer of `load_state`, or one learned from the texts."""
        sizes = {"vocab_size": self.vocab_size, "min_count": self.min_count}
        return vocabularies.learn_or_restore(self.kind, self._loaded, texts, **sizes)

    def _delimiters(self) -> tuple[int | None, int | None]:
        """The ids before and after each text, if any.

        Raises:
            ConfigError: If the texts need some that the vocabulary does not have.
        """
        ids, asked = self.tokenizer.ids, self.add_special_tokens
        if asked is None:
            asked = self.learns == "text" or bool(self._loaded and self._loaded["special_tokens"])
        if not (asked or self.pairs):
            return None, None
        if ids.end is None or (self.pairs and ids.begin is None):
            raise ConfigError(
                f"dataset={self.name} needs a token at the end of each text, which the vocabulary of the other run lacks; "
                "it must be one of this version, or of a run on single texts."
            )
        return ids.begin, ids.end

    def _ids(self, sides: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Concatenated ids of N texts, or of N pairs from two lists, and the lengths (N,), as the model reads them."""
        begin, end = self._delimiters()
        room = self.max_length - (begin is not None) - len(sides) * (end is not None)
        if room < len(sides):
            raise ConfigError(f"dataset.max_length={self.max_length} leaves no room for a text; give more.")
        encoded = [self.tokenizer.encode_all(texts) for texts in sides]
        longest = room
        if len(sides) == 2 and end is not None:  # as `_delimiters` sees to
            (_, first), (_, second) = encoded
            kept = np.minimum(first, np.maximum(room - second, room - room // 2))
            longest, limit = kept, np.minimum(second, room - kept)
            encoded[1] = ragged.delimit(*ragged.cut(*encoded[1], limit), end=end)
        values, lengths = ragged.cut(*encoded[0], longest)
        if end is not None:
            values, lengths = ragged.delimit(values, lengths, begin=begin, end=end)
        return ragged.joined((values, lengths), encoded[1]) if len(sides) == 2 else (values, lengths)

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], target: str) -> list[tuple[Inputs, Outputs]]:
        sizes = vocabularies.size_of(config, "vocab_size", 20_000), vocabularies.size_of(config, "max_length", 256)
        tokens = Tokens(*sizes)
        return [(tokens, tokens if target == "text" else Classes(("negative", "positive")))]

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        tokens = Tokens(len(self.tokenizer), self.max_length)
        return tokens, tokens if target == "text" else self.classes

    def lengths(self, split: str) -> Tensor:
        return self._rows[split].tokens.lengths

    def mean_lengths(self) -> tuple[float, None]:
        return self.padded_mean(self._rows["train"].tokens.lengths), None

    @property
    def note(self) -> str:
        return self._note

    def state(self) -> dict[str, Any]:
        special = self._delimiters() != (None, None)
        return {**self.tokenizer.state(), "special_tokens": special, "pairs": self.pairs}

    def load_state(self, state: dict[str, Any]) -> None:
        self._loaded = vocabularies.read_state(state, self.name, older=vocabularies.OLDER, most=1)
        self._loaded |= {"special_tokens": state.get("special_tokens")}
        self.kind, self.pairs = self._loaded["tokenizer"], bool(state.get("pairs"))

    def restore(self, inputs: Inputs, outputs: Outputs) -> None:
        assert self._loaded is not None
        if isinstance(outputs, Classes):
            self.classes = outputs
        self.tokenizer = vocabularies.from_state(self._loaded)

    def encode(self, examples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        if self.pairs:
            examples = [tuple(each.split(TAB)) if isinstance(each, str) else tuple(each) for each in examples]
            if any(len(each) != 2 for each in examples):
                raise ConfigError(
                    f"An example of dataset={self.name} is two texts: a pair, or one text with a tab between."
                )
        sides = [list(texts) for texts in zip(*examples)] if self.pairs else [list(examples)]
        values, lengths = self._ids(sides)
        rows = torch.from_numpy(np.asarray(values)).long().split(lengths.tolist())
        return pad_sequence(rows, batch_first=True, padding_value=self._pad), torch.as_tensor(lengths)

    def segments(self, inputs: Tensor, lengths: Tensor) -> Tensor | None:
        return None if self._pair_end is None else segments_of(inputs, lengths, self._pair_end)

    def rows(self, split: str) -> tuple[SentenceRows, int]:
        rows = self._rows[split]
        return rows, len(rows.tokens)

    def text(self, split: str, row: int) -> str:
        """The text of a row as the source has it; of a pair both, with a tab between them."""
        return self._texts[split].text(row)


class SwappedWords(SentenceData):
    """Texts of which a random half have two neighbouring, different words swapped: which ones? A question of syntax.

    Which words are swapped depends on (split_seed, split, row) alone, see `swap_words`. Texts with no two words that could
    be are left out. Where the target is the text itself, none is swapped.

    Args:
        **options: See `SentenceData`; but for those in `unread`.
    """

    unread: ClassVar = ("label_column", "second_column")

    def _made_from(self) -> dict[str, Any]:
        return {"swapped": True}

    def _read(self, source: sources.Source, scratch: Path) -> Corpus:
        found = read(source, scratch, self.text_column, None, None, labelled=False)
        texts: Texts = {}
        labels = {}
        for number, (role, given) in enumerate(found.texts.items()):
            random = np.random.default_rng((self.split_seed, number))
            draws = random.random((len(given), 2))
            made = [swap_words(text, float(place)) for text, (_, place) in zip(given, draws)]
            rows = [row for row, swapped in enumerate(made) if swapped is not None]
            labels[role] = (draws[rows, 0] < 0.5).astype(np.int64)
            texts[role] = [
                str(made[row]) if label and self.learns != "text" else " ".join(given[row].split())
                for row, label in zip(rows, labels[role])
            ]
        if not texts["train"]:
            raise ConfigError(f"No text of {source.path} has two words that could be swapped.")
        return Corpus(texts, None, labels, ["as written", "swapped"])


def swap_words(text: str, place: float) -> str | None:
    """The text with two neighbouring words swapped, one of the pairs of them by place in [0, 1); None if there is none.

    A pair is of two different words without punctuation marks, and a capital at the beginning stays there: else spelling
    would tell what only the order shall.
    """
    words = text.split()
    first = int(text[:1].isupper())
    whole = [word.isalnum() for word in words]
    pairs = [i for i in range(first, len(words) - 1) if whole[i] and whole[i + 1]]
    pairs = [i for i in pairs if words[i].lower() != words[i + 1].lower()]
    if not pairs:
        return None
    i = pairs[int(place * len(pairs))]
    words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


@dataclass
class Corpus:
    """What a source holds.

    Attributes:
        texts: The texts.
        seconds: Of pairs, the second texts; else None.
        labels: (N,) by role; all of them 0 where there are none.
        classes: Their names; none where there are no labels.
    """

    texts: Texts
    seconds: Texts | None
    labels: dict[str, np.ndarray]
    classes: list[str]


def read(
    source: sources.Source,
    scratch: Path,
    text_column: str | None,
    second_column: str | None,
    label_column: str | None,
    labelled: bool = True,
) -> Corpus:
    """The texts, pairs and labels of a source, see `SentenceData`.

    A validation or test split without labels (no such column, or all of them -1, which is no label of train, or null) is
    left out.

    Args:
        labelled: Whether there must be labels.

    Raises:
        ConfigError: If there are no such columns, a row has no text or no label, a label is not in train, or train has
            one class only.
    """
    splits = tables.open_splits(source, scratch)
    features = splits["train"].features
    label = _find_label(source, features, label_column, labelled)
    first, second = find_pair(source, features, text_column, second_column)
    text = _find_text_column(source, features, first, label)
    if second is not None:
        _check_second(source, features, text, second, label)
    texts: list[Texts] = [{}, {}]
    values: dict[str, list[Any]] = {}
    for role, rows in splits.items():
        if label is not None and label not in rows.column_names:
            continue
        found = _labels(rows, label)
        if role == "train" or any(value is not None and (value != -1 or -1 in values["train"]) for value in found):
            values[role] = found
            for side, column in enumerate(name for name in (text, second) if name is not None):
                if column not in rows.column_names:
                    raise ConfigError(
                        f"The split {role} of {source.path} has no column {column}, as train has; it has: "
                        f"{', '.join(rows.column_names)}."
                    )
                texts[side][role] = list(rows[column])
                _check_rows(source, role, column, texts[side][role], label, found, features)
    labels, names = {role: np.zeros(len(each), np.int64) for role, each in values.items()}, list[str]()
    if label is not None:
        labels, names = sources.encode_labels(source, features[label], values)
    if labelled and len(names) < 2:
        raise ConfigError(f"All texts of {source.path} have the same {label}: there is nothing to tell apart.")
    shutil.rmtree(scratch, ignore_errors=True)
    return Corpus(texts[0], texts[1] or None, labels, names)


def segments_of(inputs: Tensor, lengths: Tensor, end: int) -> Tensor:
    """1 for the tokens (B, T) of the second text of each pair and the END after it, else 0."""
    place = torch.arange(inputs.shape[1], device=inputs.device)
    ended = ((inputs == end) & (place > 0)).cumsum(1).roll(1, 1)  # before this token; a first END may be the BEGIN
    ended[:, 0] = 0
    return ((ended > 0) & (place < lengths[:, None])).long()


def find_pair(
    source: sources.Source, features: Any, first: str | None, second: str | None
) -> tuple[str | None, str | None]:
    """The columns of the first and the second texts as far as they are given or guessed, see `SentenceData`."""
    if second is None:
        return first, None
    if second != GUESS:
        return first, sources.check_column(source, "second_column", second, list(features))
    by_name = {name.lower(): name for name in features}
    for one, other in PAIR_COLUMNS:
        if one in by_name and other in by_name and first in (None, by_name[one]):
            return by_name[one], by_name[other]
    return first, None


def _check_second(source: sources.Source, features: Any, text: str, second: str, label: str | None) -> None:
    if getattr(features[second], "dtype", None) not in ("string", "large_string"):
        raise ConfigError(
            f"The column {second} of {source.path} holds no text; name the one that does by dataset.second_column."
        )
    if second in (text, label):
        raise ConfigError(
            f"dataset.second_column={second} is also dataset.{'text' if second == text else 'label'}_column; name another "
            f"one. There are: {', '.join(features)}."
        )


def _find_label(source: sources.Source, features: Any, given: str | None, needed: bool) -> str | None:
    """The column with the labels; None where none is needed or given, and there is none."""
    try:
        return sources.find_label_column(source, features, given, LABEL_COLUMNS)
    except ConfigError:
        if needed or given:
            raise
        return None


def _labels(rows: Any, label: str | None) -> list[Any]:
    if label is None:
        return [0] * len(rows)
    # a blank at the end of a label is invisible, and would make a class of its own
    found = [value.strip() or None if isinstance(value, str) else value for value in rows[label]]
    return sources.whole_labels(found)


def _find_text_column(source: sources.Source, features: Any, given: str | None, label: str | None) -> str:
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
    source: sources.Source, role: str, text: str, texts: list[Any], label: str | None, labels: list[Any], features: Any
) -> None:
    """Raises ConfigError if a row has no text or no label."""
    import datasets

    named = label is not None and isinstance(features[label], datasets.ClassLabel)
    for number, (words, value) in enumerate(zip(texts, labels)):
        where = f"Row {number} of {source.path}, split {role},"
        if words is None or not words.strip():
            raise ConfigError(f"{where} has an empty {text}. Write one or leave the row out.")
        if value is None or (named and value < 0):
            raise ConfigError(f"{where} has no {label}. Give it one or leave the row out.")
        if not isinstance(value, int | str):
            raise ConfigError(
                f"The column {label} of {source.path} does not hold one label for each text, a word or a whole "
                "number; name the one that does by dataset.label_column."
            )
