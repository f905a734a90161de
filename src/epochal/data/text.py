"""Text for language models: tokenised once into one flat array, cut into windows by the batch."""

from __future__ import annotations

import platform
import shutil
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError
from epochal.core.specs import Inputs, Outputs, Tokens
from epochal.data import cache, sources, tables, tokenizers
from epochal.data.batching import Batch, BatchIndices
from epochal.data.datamodule import SPLITS
from epochal.data.ragged import smallest
from epochal.data.stored import StoredData, count_of
from epochal.data.tokenizers import BytePairs, Bytes, Characters, Tokenizer, size_of

NEWLINE = "\n"  # the default prompt
COLUMNS = (".csv", ".tsv", *tables.JSON, ".parquet")  # suffixes of files with columns; others are running text
TOKENIZERS = ("character", "byte", "bpe")
ROWS = 10_000  # rows of a table that make a part of a text


class TextRows(Dataset[Batch]):
    """Windows of T + 1 tokens; inputs are the first T of them, targets the last T.

    Args:
        tokens: (N,) ids of the whole text.
        length: T.
        shift: Shift the windows of each batch by a random number of tokens, so that no token is always the first.
    """

    def __init__(self, tokens: Tensor, length: int, shift: bool) -> None:
        self.tokens, self.length, self.shift = tokens, length, shift
        self.span = torch.arange(length + 1)

    def __getitem__(self, batch: BatchIndices) -> Batch:
        starts = batch.rows * self.length
        if self.shift:
            starts = (starts + batch.seed % self.length).clamp(max=len(self.tokens) - self.length - 1)
        windows = self.tokens[starts[:, None] + self.span].long()  # (B, T + 1)
        return Batch(windows[:, :-1], windows[:, 1:], batch.seed)


class TextData(StoredData):
    """Running text for language models, from the Hub, a folder or a text file.

    A validation or test split that the source does not have is cut off the end of its training split.

    Args:
        column: The column with the text; None: one of a usual name, or the first.
        tokenizer: "character", "byte" or "bpe", which is learned from train.
        vocab_size: Largest size of the vocabulary, for "bpe".
        context_length: Tokens in a window.
        validation, test: See `StoredData`; a count is one of characters.
        prompt: The beginning of the samples that are generated; a newline gives way to the first character of the
            vocabulary where the text has none.
        encoding: Of local text files, by its name in Python; None: UTF-8, or as their byte order mark tells.
        **options: See `StoredData`; a count in `train_size` is one of tokens.

    Raises:
        ConfigError: If there is no such tokenizer.
    """

    targets: ClassVar = ("text",)
    yields: ClassVar = Tokens
    unit: ClassVar = "windows"

    def __init__(
        self,
        *,
        column: str | None = None,
        tokenizer: str = "character",
        vocab_size: int = 8000,
        context_length: int = 64,
        validation: int | float = 0.05,
        test: int | float = 0.05,
        prompt: str = NEWLINE,
        encoding: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(validation=validation, test=test, **options)
        self.encoding = encoding
        tokenizers.check_kind(tokenizer, TOKENIZERS)
        self.column = column
        self.kind, self.vocab_size, self.context_length, self.prompt = tokenizer, vocab_size, context_length, prompt
        self._loaded_vocabulary: str | None = None  # see `load_state`

    def prepare(self) -> None:
        key, read = self._reader()
        key |= {"column": self.column, "tokenizer": self.kind, "vocabulary": self._loaded_vocabulary}
        key |= {"validation": self.validation, "test": self.test}
        key |= {"vocab_size": self.vocab_size if self.kind == "bpe" else None}
        folder = cache.cached(self.name, key, lambda building: self._encode(read(building), building))
        meta = cache.read_meta(folder)
        self.fingerprint = meta["fingerprint"]
        self.tokenizer = tokenizers.restore(self.kind, meta["vocabulary"])
        self._check_prompt()
        self.characters_per_token: dict[str, float] = meta["characters_per_token"]
        self._tokens = {split: cache.read_array(folder / f"{split}_tokens.npy") for split in SPLITS}
        kept = count_of(self.train_size, len(self._tokens["train"]), "dataset.train_size")
        self._tokens["train"] = self._tokens["train"][:kept]
        for split, tokens in self._tokens.items():
            if len(tokens) <= self.context_length:
                raise ConfigError(
                    f"The {split} text of dataset={self.name} has {len(tokens):,} tokens, too few for one window of "
                    f"dataset.context_length={self.context_length} and the token after it."
                )
        self.check_batch_size(self.rows("train")[1])

    def restore(self, inputs: Inputs, outputs: Outputs) -> None:
        assert self._loaded_vocabulary is not None
        self.tokenizer = tokenizers.restore(self.kind, self._loaded_vocabulary)
        self._check_prompt()

    def _check_prompt(self) -> None:
        """Raises ConfigError if the vocabulary lacks characters of the prompt, unless it is the default."""
        if not (missing := self.tokenizer.missing(self.prompt)):
            return
        if self.prompt != NEWLINE:
            if self._loaded_vocabulary is not None:  # of a run that trained with this prompt
                return
            raise ConfigError(
                f"The text of dataset={self.name} lacks these characters of dataset.prompt: "
                f"{' '.join(map(repr, missing))}. Give a prompt without them."
            )
        self.prompt = next(c for c in self.tokenizer.vocabulary if c != tokenizers.REPLACEMENT)

    def _reader(self) -> tuple[dict[str, Any], Any]:
        """A key that changes with the source, and a function that reads it: folder for scratch -> text by role, in parts,
        so that a long one is nowhere copied as a whole."""
        source = self.locate()
        return source.fingerprint(), lambda building: self._read(source, building)

    def _read(self, source: sources.Source, building: Path) -> dict[str, list[str]]:
        if source.local is not None and source.local.is_file() and source.local.stat().st_size == 0:
            raise ConfigError(f"{source.local} is empty: there is nothing to learn from.")
        if source.local is not None and source.local.is_file() and tables.suffix(source.local) not in COLUMNS:
            return {"train": list(tables.read_running(source.local, source.encoding))}
        scratch = building / "scratch"
        splits = tables.open_splits(source, scratch, running=True)
        columns = splits["train"].column_names
        column = self.column or next((c for c in ("text", "content", "code", "sentence") if c in columns), columns[0])
        sources.check_column(source, "column", column, columns)
        if getattr(splits["train"].features[column], "dtype", None) not in ("string", "large_string"):
            raise ConfigError(
                f"The column {column} of {source.path} holds no text; name the one that does by dataset.column."
            )
        texts = {split: _joined(_texts(source, split, rows, column)) for split, rows in splits.items()}
        shutil.rmtree(scratch, ignore_errors=True)
        return texts

    def _encode(self, texts: dict[str, list[str]], building: Path) -> dict[str, Any]:
        """Writes the tokens of each split; returns the vocabulary and the characters per token, by split."""
        train = texts["train"]
        if not any(part.strip() for part in train):
            raise ConfigError(f"dataset={self.name} is empty: there is nothing to learn from.")
        held = {}
        for split, role, part in (("test", "test", self.test), ("val", "validation", self.validation)):
            if role in texts:
                held[split] = texts[role]
            else:
                length = _length(train)
                train, held[split] = _cut(train, length - count_of(part, length - 1, f"dataset.{role}"))
        tokenizer = self._tokenizer(train, held["val"] + held["test"])
        per_token = {}
        for split, parts in {"train": train, **held}.items():
            file, ids = building / f"{split}_tokens.npy", tokenizer.encode_running(parts)
            count = cache.write_parts(file, ids, smallest(len(tokenizer)))
            # unknown characters may be left out: they are not predicted, so they do not count
            per_token[split] = 1.0 if self.kind == "character" else _length(parts) / max(count, 1)
        return {"vocabulary": tokenizer.vocabulary, "characters_per_token": per_token}

    def _tokenizer(self, train: list[str], held_out: list[str]) -> Tokenizer:
        """The tokenizer of `load_state`, or one learned from the text."""
        if self._loaded_vocabulary is not None:
            return tokenizers.restore(self.kind, self._loaded_vocabulary)
        if self.kind == "bpe":
            return BytePairs.learn(tokenizers.pieces(train), vocab_size=self.vocab_size)
        return Bytes() if self.kind == "byte" else Characters.learn(train, held_out)

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], target: str) -> list[tuple[Inputs, Outputs]]:
        vocab_size = size_of(config, "vocab_size", 8000) if config.get("tokenizer") == "bpe" else 256
        tokens = Tokens(vocab_size, size_of(config, "context_length", 64))
        return [(tokens, tokens)]

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        tokens = Tokens(vocab_size=len(self.tokenizer), length=self.context_length)
        return tokens, tokens

    def state(self) -> dict[str, Any]:
        return {"tokenizer": self.kind, "vocabulary": self.tokenizer.vocabulary}

    def load_state(self, state: dict[str, Any]) -> None:
        self.kind, self._loaded_vocabulary = state["tokenizer"], state["vocabulary"]

    def rows(self, split: str) -> tuple[TextRows, int]:
        tokens = self._tokens[split]
        return TextRows(tokens, self.context_length, shift=split == "train"), (len(tokens) - 1) // self.context_length


def _texts(source: sources.Source, split: str, rows: Any, column: str) -> Iterator[str]:
    """The texts of a column, row by row; raises ConfigError if a row has none."""
    number = 0
    for table in rows.select_columns([column]).with_format("arrow").iter(1000):
        for text in table.column(column).to_pylist():
            if text is None:
                raise ConfigError(
                    f"Row {number} of {source.path}, split {split}, has no {column}. Write one or leave the row out."
                )
            yield text
            number += 1


def _joined(rows: Iterable[str]) -> list[str]:
    """The rows as one text in parts, with a newline between them unless a row ends with one itself."""

    def ended() -> Iterator[str]:
        last = None
        for row in rows:
            if last is not None:
                yield last.removesuffix("\n") + "\n"
            last = row
        yield last or ""

    texts, parts = ended(), []
    while some := list(islice(texts, ROWS)):
        parts.append("".join(some))
    return parts


def _length(parts: list[str]) -> int:
    return sum(map(len, parts))


def _cut(parts: list[str], end: int) -> tuple[list[str], list[str]]:
    """A text in parts before and from a character on."""
    before: list[str] = []
    for number, part in enumerate(parts):
        if len(part) >= end:
            return [*before, part[:end]], [part[end:], *parts[number + 1 :]]
        before.append(part)
        end -= len(part)
    return before, []


class PythonStdlib(TextData):
    """The source code of the standard library of the Python that runs this, which needs no download. One file in a
    hundred is held out for validation and one for the test.

    Args:
        **options: See `TextData`; path, config, revision, column, validation and test have no effect.
    """

    def _reader(self) -> tuple[dict[str, Any], Any]:
        root = Path(sysconfig.get_paths()["stdlib"])
        left_out = {
            "site-packages",
            "dist-packages",
            "test",
            "tests",
            "idlelib",
            "lib2to3",
            "__pycache__",
            "pydoc_data",
        }
        files = [f for f in sorted(root.rglob("*.py")) if not left_out & set(f.relative_to(root).parts)]

        def read(building: Path) -> dict[str, list[str]]:
            texts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
            for number, file in enumerate(files):
                role = {0: "validation", 50: "test"}.get(number % 100, "train")
                texts[role].append(file.read_text(encoding="utf-8", errors="replace"))
            return {role: ["\n".join(parts)] for role, parts in texts.items()}

        return {"python": platform.python_version(), "root": str(root), "files": len(files)}, read
