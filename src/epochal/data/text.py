"""Text for language models: tokenised once into one flat array, cut into windows anew each epoch."""

from __future__ import annotations

import platform
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError
from epochal.core.specs import Inputs, Outputs, Tokens
from epochal.data import cache, sources, tokenizers
from epochal.data.batching import Batch, BatchIndices
from epochal.data.datamodule import DataModule, count_of
from epochal.data.ragged import smallest
from epochal.data.tokenizers import BytePairs, Bytes, Characters, Tokenizer, size_of

TOKENIZERS = ("character", "byte", "bpe")


class TextRows(Dataset[Batch]):
    """Windows of length + 1 tokens of a flat array; inputs are all but the last, targets all but the first."""

    def __init__(self, tokens: Tensor, length: int, shift: bool) -> None:
        self.tokens, self.length, self.shift = tokens, length, shift
        self.span = torch.arange(length + 1)

    def __getitem__(self, batch: BatchIndices) -> Batch:
        starts = batch.numbers * self.length
        if self.shift:  # other cuts in each batch, so that no token is always first
            starts = (starts + batch.seed % self.length).clamp(max=len(self.tokens) - self.length - 1)
        windows = self.tokens[starts[:, None] + self.span].long()  # (B, T + 1)
        return Batch(windows[:, :-1], windows[:, 1:], batch.seed)


class TextData(DataModule):
    """A running text, from the Hub, a folder or a text file.

    Without a validation or test split of its own, the end of train becomes it.

    Args:
        name, batch_size, eval_batch_size, seed: See `Data`.
        path: Id on the Hub, folder or text file.
        config, revision: Which part and version of a set on the Hub.
        column: The one with the text; guessed where None.
        tokenizer: "character", "byte", or "bpe", which is learned from train.
        vocab_size: Tokens at most, for bpe.
        context_length: Tokens in a window.
        validation, test: Count of characters or fraction of train to hold out where the set has no such split.
        train_size: Count of tokens or fraction of train to learn from; None is all.
        prompt: What samples begin with.
    """

    tasks: ClassVar = ("language_modeling",)
    yields: ClassVar = Tokens

    def __init__(
        self,
        *,
        name: str,
        path: str | None,
        config: str | None = None,
        revision: str | None = None,
        column: str | None = None,
        tokenizer: str = "character",
        vocab_size: int = 8000,
        context_length: int = 64,
        validation: int | float = 0.05,
        test: int | float = 0.05,
        train_size: int | float | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 128,
        prompt: str = "\n",
        seed: int = 1,
    ) -> None:
        super().__init__(name=name, batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed)
        tokenizers.check_kind(tokenizer, TOKENIZERS)
        self.path, self.config = None if path is None else str(path), config
        self.revision, self.column = revision, column
        self.kind, self.vocab_size, self.context_length, self.prompt = tokenizer, vocab_size, context_length, prompt
        self.validation, self.test, self.train_size = validation, test, train_size
        self._vocabulary: str | None = None  # another run's, if it was adopted

    def prepare(self) -> None:
        key, read = self._reader()
        key |= {"column": self.column, "tokenizer": self.kind, "vocabulary": self._vocabulary}
        key |= {"validation": self.validation, "test": self.test}
        key |= {"vocab_size": self.vocab_size if self.kind == "bpe" else None}
        folder = cache.cached(self.name, key, lambda building: self._encode(read(building), building))
        meta = cache.read_meta(folder)
        self.fingerprint = meta["fingerprint"]
        self.tokenizer = tokenizers.restore(self.kind, meta["vocabulary"])
        self.characters_per_token: dict[str, float] = meta["characters_per_token"]
        self._tokens = {split: cache.read_array(folder / f"{split}_tokens.npy") for split in ("train", "val", "test")}
        kept = count_of(self.train_size, len(self._tokens["train"]), "dataset.train_size")
        self._tokens["train"] = self._tokens["train"][:kept]
        for split, tokens in self._tokens.items():
            if len(tokens) <= self.context_length:
                raise ConfigError(
                    f"The {split} text of dataset={self.name} has {len(tokens):,} tokens, too few for one window of "
                    f"dataset.context_length={self.context_length} and the token after it."
                )
        self.check_batch_size(self.rows("train")[1])

    def _reader(self) -> tuple[dict[str, Any], Any]:
        """What tells the source from others, and a function that reads it into texts by split."""
        source = sources.locate(self.name, self.path, config=self.config, revision=self.revision)
        return source.fingerprint(), lambda building: self._read(source, building)

    def _read(self, source: sources.Source, building: Path) -> dict[str, str]:
        if source.local is not None and source.local.is_file() and source.local.stat().st_size == 0:
            raise ConfigError(f"{source.local} is empty: there is nothing to learn from.")
        if source.local is not None and source.local.suffix == ".txt":
            return {"train": source.local.read_text(encoding="utf-8", errors="replace")}
        scratch = building / "scratch"
        splits = sources.open_splits(source, scratch)
        columns = splits["train"].column_names
        column = self.column or next((c for c in ("text", "content", "code", "sentence") if c in columns), columns[0])
        sources.check_column(source, "column", column, columns)
        if not isinstance(splits["train"][0][column], str):
            raise ConfigError(
                f"The column {column} of {source.path} holds no text; name the one that does by dataset.column."
            )
        texts = {split: _joined(list(rows[column])) for split, rows in splits.items()}
        shutil.rmtree(scratch, ignore_errors=True)
        return texts

    def _encode(self, texts: dict[str, str], building: Path) -> dict[str, Any]:
        train = texts["train"]
        if not train.strip():
            raise ConfigError(f"dataset={self.name} is empty: there is nothing to learn from.")
        held = {}
        for split, role, share in (("test", "test", self.test), ("val", "validation", self.validation)):
            if role in texts:
                held[split] = texts[role]
            else:
                end = len(train) - count_of(share, len(train) - 1, f"dataset.{role}")
                train, held[split] = train[:end], train[end:]
        tokenizer = self._tokenizer(train, held["val"] + held["test"])
        per_token = {}
        for split, text in {"train": train, **held}.items():
            ids = tokenizer.encode(text)
            cache.create_array(building / f"{split}_tokens.npy", ids.shape, smallest(len(tokenizer)))[:] = ids
            # characters that are in no vocabulary and left out are not predicted either, so they do not count
            per_token[split] = 1.0 if self.kind == "character" else len(text) / max(len(ids), 1)
        return {"vocabulary": tokenizer.vocabulary, "characters_per_token": per_token}

    def _tokenizer(self, train: str, held_out: str) -> Tokenizer:
        """Another run's, or the one that this text asks for."""
        if self._vocabulary is not None:
            return tokenizers.restore(self.kind, self._vocabulary)
        if self.kind == "bpe":
            return BytePairs.learn([train], vocab_size=self.vocab_size)
        return Bytes() if self.kind == "byte" else Characters.learn(train, held_out)

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], task: str) -> list[tuple[Inputs, Outputs]]:
        vocab_size = size_of(config, "vocab_size", 8000) if config.get("tokenizer") == "bpe" else 256
        tokens = Tokens(vocab_size, size_of(config, "context_length", 64))
        return [(tokens, tokens)]

    def specs(self, task: str) -> tuple[Inputs, Outputs]:
        tokens = Tokens(vocab_size=len(self.tokenizer), length=self.context_length)
        return tokens, tokens

    def state(self) -> dict[str, Any]:
        return {"tokenizer": self.kind, "vocabulary": self.tokenizer.vocabulary}

    def load_state(self, state: dict[str, Any]) -> None:
        self.kind, self._vocabulary = state["tokenizer"], state["vocabulary"]

    def rows(self, split: str) -> tuple[TextRows, int]:
        tokens = self._tokens[split]
        return TextRows(tokens, self.context_length, shift=split == "train"), (len(tokens) - 1) // self.context_length


def _joined(rows: list[str]) -> str:
    """One text, a line or more a row; a row that ends its line itself gets no empty one after it."""
    return "\n".join([*(row.removesuffix("\n") for row in rows[:-1]), rows[-1]])


class PythonStdlib(TextData):
    """The standard library of the Python that runs this: real code, and nothing to download. One file in a
    hundred is held out for validation and one for the test."""

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

        def read(building: Path) -> dict[str, str]:
            texts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
            for number, file in enumerate(files):
                role = {0: "validation", 50: "test"}.get(number % 100, "train")
                texts[role].append(file.read_text(encoding="utf-8", errors="replace"))
            return {role: "\n".join(parts) for role, parts in texts.items()}

        return {"python": platform.python_version(), "root": str(root), "files": len(files)}, read
