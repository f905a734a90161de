"""Text for language models: tokenised once into one flat array, cut into windows by the batch."""

from __future__ import annotations

import platform
import shutil
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.checks import OnlyWith
from epochal.core.errors import ConfigError
from epochal.core.specs import IGNORED, RESERVED, Inputs, Outputs, Tokens
from epochal.data import cache, sources, tables, tokenizers, vocabularies
from epochal.data.batching import Batch, BatchIndices
from epochal.data.datamodule import SPLITS, check_count
from epochal.data.ragged import smallest
from epochal.data.stored import StoredData, count_of
from epochal.data.tokenizers import BytePairs, Bytes, Characters, Tokenizer
from epochal.data.vocabularies import size_of

NEWLINE = "\n"  # the default prompt
PACKED = (".arrow", ".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst")  # what `datasets` unpacks
TOKENIZERS = ("character", "byte", "bpe")
DOCUMENTS = ("files", "rows")
ROWS = 10_000  # rows of a table that make a part of a text

Document = list[str]  # a text in parts, so that a long one is nowhere copied as a whole


class TextRows(Dataset[Batch]):
    """Windows of T + 1 tokens; inputs are the first T of them, targets the last T.

    Args:
        tokens: (N,) ids of the whole text.
        length: T.
        shift: Shift the windows of each batch by a random number of tokens, so that no token is always the first.
        stride: Tokens from the start of a window to that of the next, at most T. Windows that overlap ask only for tokens
            that the one before did not: the other targets are IGNORED.
    """

    def __init__(self, tokens: Tensor, length: int, shift: bool, stride: int) -> None:
        self.tokens, self.length, self.shift, self.stride = tokens, length, shift, stride
        self.span = torch.arange(length + 1)

    def __len__(self) -> int:
        return (len(self.tokens) - 1 - self.length) // self.stride + 1

    def __getitem__(self, batch: BatchIndices) -> Batch:
        starts = batch.rows * self.stride
        if self.shift:
            starts = (starts + batch.seed % self.length).clamp(max=len(self.tokens) - self.length - 1)
        windows = self.tokens[starts[:, None] + self.span].long()  # (B, T + 1)
        targets = windows[:, 1:]
        if self.stride < self.length:
            asked = (self.span[:-1] >= self.length - self.stride) | (starts[:, None] == 0)
            targets = targets.masked_fill(~asked, IGNORED)
        return Batch(windows[:, :-1], targets, batch.seed)


class TextData(StoredData):
    """Running text for language models, from the Hub, a text file, or many of them: a folder, or a pattern like `books/*.txt`.

    A validation or test split that the source does not have is cut off the end of its training split. A folder of texts
    has splits if the names of its files or folders say so (train.txt, validation.txt; train/...), and then all must; README
    and LICENSE are left aside. Between two documents
    of a split stands the token END; a window may go on from one to the next. With the vocabulary of an older run, which
    has no END, it is a newline.

    Args:
        column: The column with the text; None: one of a usual name, or the first.
        documents: "files": each file of a folder of texts is a document, in the order of their paths. "rows": and each row
            of a table. None: all of a split is one. The rows of a document have a newline between them.
        tokenizer: "character", "byte" or "bpe", which is learned from train; or the path of a tokenizer.json, or its folder.
        vocab_size: Largest size of the vocabulary, for "bpe".
        context_length: Tokens in a window.
        eval_stride: Tokens from the start of a window of validation and test to that of the next; None: context_length.
            Smaller ones begin warm, with the tokens before them, and take as much longer as they overlap.
        validation, test: See `StoredData`; a count is one of characters.
        prompt: The beginning of the samples that are generated; a newline gives way to the first character of the
            vocabulary where the text has none.
        encoding: Of local text files, by its name in Python; None: UTF-8, or as their byte order mark tells.
        **options: See `StoredData`; a count in `train_size` is one of tokens.

    Raises:
        ConfigError: If there is no such tokenizer, documents is none of these, or prompt is no text or empty.
    """

    targets: ClassVar = ("text",)
    yields: ClassVar = Tokens
    only_with: ClassVar = {"vocab_size": (OnlyWith("tokenizer", ("bpe",)),)}
    unit: ClassVar = "windows"

    def __init__(
        self,
        *,
        column: str | None = None,
        documents: str | None = "files",
        tokenizer: str = "character",
        vocab_size: int = 8000,
        context_length: int = 64,
        eval_stride: int | None = None,
        validation: int | float = 0.05,
        test: int | float = 0.05,
        prompt: str = NEWLINE,
        encoding: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(validation=validation, test=test, **options)
        self.encoding = encoding
        if documents is not None and documents not in DOCUMENTS:
            raise ConfigError(f"dataset.documents={documents} must be one of {', '.join(DOCUMENTS)}, or null.")
        if not isinstance(prompt, str) or not prompt:
            raise ConfigError(f"dataset.prompt={prompt!r} must be a text, in quotation marks where it is a number.")
        self.column, self.documents = column, documents
        self.vocab_size, self.context_length = vocab_size, context_length
        self.eval_stride = context_length if eval_stride is None else eval_stride
        check_count("eval_stride", self.eval_stride)
        if self.eval_stride > context_length:
            raise ConfigError(
                f"dataset.eval_stride={eval_stride} would leave tokens out; take at most dataset.context_length={context_length}."
            )
        self.asks_some_tokens = self.eval_stride < context_length
        self.prompt: str = prompt
        self.kind, self._loaded = vocabularies.chosen(
            tokenizer, TOKENIZERS
        )  # the state of one that is not to be learned

    def prepare(self) -> None:
        key, read = self._reader()
        key |= {"column": self.column, "documents": self.documents} | vocabularies.cache_key(self.kind, self._loaded)
        key |= {"validation": self.validation, "test": self.test}
        key |= {"vocab_size": self.vocab_size if self.kind == "bpe" else None}
        folder = cache.cached(self.name, key, lambda building: self._encode(read(building), building))
        meta = cache.read_meta(folder)
        self.fingerprint = meta["fingerprint"]
        self.tokenizer = vocabularies.from_state(meta["tokenizer"])
        self._check_prompt()
        self.characters_per_token: dict[str, float] = meta["characters_per_token"]
        self.bytes_per_token: dict[str, float] = meta["bytes_per_token"]
        self._tokens = {split: cache.read_array(folder / f"{split}_tokens.npy") for split in SPLITS}
        kept = count_of(self.train_size, len(self._tokens["train"]), "dataset.train_size", "tokens")
        self._tokens["train"] = self._tokens["train"][:kept]
        for split, tokens in self._tokens.items():
            if len(tokens) <= self.context_length:
                raise ConfigError(
                    f"The {split} text of dataset={self.name} has {len(tokens):,} tokens, too few for one window of "
                    f"dataset.context_length={self.context_length} and the token after it."
                )
        self.check_batch_size(self.rows("train")[1])

    def restore(self, inputs: Inputs, outputs: Outputs) -> None:
        assert self._loaded is not None
        self.tokenizer = vocabularies.from_state(self._loaded)
        self._check_prompt()

    def _check_prompt(self) -> None:
        """Raises ConfigError if the vocabulary lacks characters of the prompt, unless it is the default."""
        if not (missing := self.tokenizer.missing(self.prompt)):
            return
        if self.prompt != NEWLINE:
            if self._loaded is not None:  # of a run that trained with this prompt
                return
            raise ConfigError(
                f"The text of dataset={self.name} lacks these characters of dataset.prompt: "
                f"{' '.join(map(repr, missing))}. Give a prompt without them."
            )
        self.prompt = next(c for c in self.tokenizer.vocabulary if c != tokenizers.REPLACEMENT)

    def check_typed(self, typed: Set[str]) -> None:
        super().check_typed(typed)
        if self.path is not None and "column" in typed and _text_files(self.locate()):
            raise ConfigError(
                f"dataset.column={self.column} is of tables, and {self.path} is running text, which has none: leave it out."
            )

    def locate(self) -> sources.Source:
        options = {"config": self.config, "revision": self.revision, "encoding": self.encoding}
        return sources.matching(self.name, self.path, **options) or super().locate()

    def _reader(self) -> tuple[dict[str, Any], Any]:
        """A key that changes with the source, and a function that reads it: folder for scratch -> documents by role."""
        source = self.locate()
        return source.fingerprint(), lambda building: self._read(source, building)

    def _read(self, source: sources.Source, building: Path) -> dict[str, list[Document]]:
        if source.local is not None and source.local.is_file() and source.local.stat().st_size == 0:
            raise ConfigError(f"{source.local} is empty: there is nothing to learn from.")
        if files := _text_files(source):
            texts = {
                role: [list(tables.read_running(f, source.encoding)) for f in each] for role, each in files.items()
            }
            return texts if self.documents else {role: [_on_lines(each)] for role, each in texts.items()}
        scratch = building / "scratch"
        splits = tables.open_splits(source, scratch, running=True)
        columns = splits["train"].column_names
        column = self.column or next((c for c in ("text", "content", "code", "sentence") if c in columns), columns[0])
        heads = source.local is not None and all(tables.suffix(f) in tables.DELIMITED for f in source.contents())
        if heads and not self.column and " " in column.strip():
            raise ConfigError(
                f"The first line of {source.path} is taken for the names of its columns, and {column[:40]!r} looks like none: "
                "write text above it, or name the column by dataset.column."
            )
        sources.check_column(source, "column", column, columns)
        if getattr(splits["train"].features[column], "dtype", None) not in ("string", "large_string"):
            raise ConfigError(
                f"The column {column} of {source.path} holds no text; name the one that does by dataset.column."
            )
        texts = {}
        for split, rows in splits.items():
            found = _texts(source, split, rows, column)
            texts[split] = [[text] for text in found] if self.documents == "rows" else [_joined(found)]
        shutil.rmtree(scratch, ignore_errors=True)
        return texts

    def _encode(self, texts: dict[str, list[Document]], building: Path) -> dict[str, Any]:
        """Writes the tokens of each split; returns the tokenizer, and the characters and bytes per token, by split."""
        loaded = None if self._loaded is None else vocabularies.from_state(self._loaded)
        if loaded is not None and loaded.ids.end is None:
            texts = {role: [_on_lines(documents)] for role, documents in texts.items()}
        texts = {role: [document for document in documents if any(document)] for role, documents in texts.items()}
        train = texts["train"]
        if not any(part.strip() for document in train for part in document):
            raise ConfigError(f"dataset={self.name} is empty: there is nothing to learn from.")
        texts = self.held_out(texts)
        tokenizer = loaded or self._learned(texts["train"])
        meta: dict[str, Any] = {"tokenizer": tokenizer.state(), "characters_per_token": {}, "bytes_per_token": {}}
        for split, role in zip(SPLITS, ("train", "validation", "test")):
            documents = texts[role]
            file, ids = building / f"{split}_tokens.npy", _ids(tokenizer, documents)
            count = cache.write_parts(file, ids, smallest(len(tokenizer)))
            length = length_of(documents)
            if self.kind == "character" and not tokenizer.reserved:
                count = length  # an older run may leave unknown characters out: they are not predicted, so do not count
            meta["characters_per_token"][split] = length / max(count, 1)
            meta["bytes_per_token"][split] = length_of(documents, bytes_in) / max(count, 1)
        return meta

    def held_out(self, texts: dict[str, list[Document]]) -> dict[str, list[Document]]:
        """The documents of all roles: what there is no validation or test of is cut off the end of train."""
        texts = dict(texts)
        for role, part in (("test", self.test), ("validation", self.validation)):
            if role not in texts:
                length = length_of(texts["train"])
                end = length - count_of(part, length - 1, f"dataset.{role}", "characters")
                texts["train"], texts[role] = cut(texts["train"], end)
        return texts

    def _learned(self, documents: list[Document]) -> Tokenizer:
        if self.kind == "bpe":
            pieces = (piece for document in documents for piece in tokenizers.pieces(document))
            return BytePairs.learn(pieces, vocab_size=self.vocab_size)
        return Bytes() if self.kind == "byte" else Characters.learn(chain.from_iterable(documents))

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], target: str) -> list[tuple[Inputs, Outputs]]:
        vocab_size = size_of(config, "vocab_size", 8000) if config.get("tokenizer") == "bpe" else 256 + RESERVED
        tokens = Tokens(vocab_size, size_of(config, "context_length", 64))
        return [(tokens, tokens)]

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        tokens = Tokens(vocab_size=len(self.tokenizer), length=self.context_length)
        return tokens, tokens

    def state(self) -> dict[str, Any]:
        return self.tokenizer.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self._loaded = vocabularies.read_state(state, self.name, older=0, most=1)
        self.kind = self._loaded["tokenizer"]

    def rows(self, split: str) -> tuple[TextRows, int]:
        train = split == "train"
        stride = self.context_length if train else self.eval_stride
        rows = TextRows(self._tokens[split], self.context_length, shift=train, stride=stride)
        return rows, len(rows)


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


def bytes_in(text: str) -> int:
    """The length of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def length_of(documents: list[Document], size: Callable[[str], int] = len) -> int:
    return sum(size(part) for document in documents for part in document)


def _on_lines(documents: list[Document]) -> Document:
    """The documents as one, with a newline between them."""
    return [part for number, document in enumerate(documents) for part in ([NEWLINE] if number else []) + document]


def cut(documents: list[Document], end: int) -> tuple[list[Document], list[Document]]:
    """Documents before and from a character on."""
    before: list[Document] = []
    for number, document in enumerate(documents):
        if (length := length_of([document])) >= end:
            first, rest = _cut_parts(document, end)
            return [d for d in (*before, first) if d], [d for d in (rest, *documents[number + 1 :]) if d]
        before.append(document)
        end -= length
    return before, []


def _cut_parts(document: Document, end: int) -> tuple[Document, Document]:
    before: Document = []
    for number, part in enumerate(document):
        if len(part) >= end:
            parts = [*before, part[:end]], [part[end:], *document[number + 1 :]]
            return [p for p in parts[0] if p], [p for p in parts[1] if p]
        before.append(part)
        end -= len(part)
    return before, []


def _ids(tokenizer: Tokenizer, documents: list[Document]) -> Iterator[np.ndarray]:
    """The ids of documents, with END between them."""
    for number, document in enumerate(documents):
        if number:
            yield np.array([tokenizer.ids.end])
        yield from tokenizer.encode_running(document)


def _text_files(source: sources.Source) -> dict[str, list[Path]] | None:
    """By role the files of a text file, a folder of texts or a pattern; None if there are tables, or it is on the Hub."""
    if source.local is None:
        return None
    if source.local.is_file():
        return {"train": [source.local]} if tables.suffix(source.local) not in sources.TABLES else None
    in_config = bool(source.config) and (source.local / str(source.config)).is_dir()
    root = source.local / str(source.config) if in_config else source.local
    files = [f for f in source.contents() if f.is_relative_to(root) and not _aside(f.relative_to(root))]
    if not files or _has_tables(source, files):
        return None
    roles: dict[str | None, list[Path]] = {}
    for file in files:
        roles.setdefault(_role(file.relative_to(root)), []).append(file)
    nowhere = roles.pop(None, [])
    if "train" not in roles or len(roles) < 2:
        return {"train": files}
    if nowhere:
        raise ConfigError(
            f"{root} has splits ({', '.join(map(str, roles))}) by the names of its files, and {nowhere[0].name} belongs to "
            "none of them; name it as one, such as train-2.txt, or move it elsewhere."
        )
    return {str(role): each for role, each in roles.items()}


def _has_tables(source: sources.Source, files: list[Path]) -> bool:
    """Whether there are tables among the files; raises ConfigError if there is running text too."""
    rows = [file for file in files if tables.suffix(file) in sources.TABLES or file.suffix.lower() in PACKED]
    if rows and (texts := [file for file in files if tables.suffix(file) == ".txt"]):
        raise ConfigError(
            f"{source.path} holds tables ({rows[0].name}) and running text ({texts[0].name}), and either would leave out the "
            f"other; name what to read by a pattern, e.g. dataset.path='{source.path}/*.txt'."
        )
    return bool(rows)


def _aside(file: Path) -> bool:
    """Whether a file is hidden, or says something about the data set."""
    about = len(file.parts) == 1 and file.name.split(".")[0].upper() in ("README", "LICENSE", "LICENCE", "NOTICE")
    return any(part.startswith(".") for part in file.parts) or about


def _role(file: Path) -> str | None:
    """The split that a file's name or its topmost folder's says it belongs to: train.txt, wiki.valid.txt, test/1.txt."""
    first = file.parts[0].lower()
    words = first.replace("_", ".").replace("-", ".").split(".") if len(file.parts) == 1 else [first]
    return next((role for role, names in sources.SPLIT_NAMES.items() if set(names) & set(words)), None)


class PythonStdlib(TextData):
    """The source code of the standard library of the Python that runs this, which needs no download. One file in a
    hundred is held out for validation and one for the test. Each file is a document.

    Args:
        **options: See `TextData`; but for those in `unread`.
    """

    unread: ClassVar = ("path", "config", "revision", "column", "encoding", "validation", "test")

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

        def read(building: Path) -> dict[str, list[Document]]:
            texts: dict[str, list[Document]] = {"train": [], "validation": [], "test": []}
            for number, file in enumerate(files):
                role = {0: "validation", 50: "test"}.get(number % 100, "train")
                texts[role].append([file.read_text(encoding="utf-8", errors="replace")])
            return texts if self.documents else {role: [_on_lines(each)] for role, each in texts.items()}

        return {"python": platform.python_version(), "root": str(root), "files": len(files)}, read
