"""Conversations to learn the answers of, pairs of a better and a worse answer, and prompts that a model is to answer."""

from __future__ import annotations

import bisect
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError
from epochal.core.specs import IGNORED, PAD, Inputs, Outputs, Tokens
from epochal.data import cache, dialogue_rows, ragged, sources, vocabularies
from epochal.data.batching import Batch, BatchIndices
from epochal.data.chat_template import render
from epochal.data.datamodule import SPLITS, check_count
from epochal.data.dialogue_rows import Row
from epochal.data.ragged import Ragged
from epochal.data.stored import StoredExamples

TOKENIZERS = ("bpe", "word", "character", "byte")
TEMPLATES = ("chat", "plain")

Encoded = tuple[np.ndarray, np.ndarray]  # ids (T,), and which of them are the answer's, bool (T,)


class AnswerRows(Dataset[Batch]):
    """Conversations as inputs (B, T) and the token after each (B, T), IGNORED where that is not the assistant's.

    Args:
        tokens: Ids of each conversation.
        written: Which of them the assistant writes, 0 or 1.
        pad: The id after the end of shorter ones.
    """

    def __init__(self, tokens: Ragged, written: Ragged, pad: int = PAD) -> None:
        self.tokens, self.written, self.pad = tokens, written, pad

    def __getitem__(self, batch: BatchIndices) -> Batch:
        tokens, targets, lengths = padded(self.tokens, self.written, batch.rows, self.pad)
        inputs = tokens[:, :-1]
        inputs = inputs.masked_fill(torch.arange(inputs.shape[1]) >= lengths[:, None] - 1, self.pad)
        return Batch(inputs, targets[:, 1:], batch.seed, lengths - 1)


class PreferenceRows(Dataset[Batch]):
    """Pairs of texts that begin alike: inputs (B, 2, T), the chosen one first, lengths (B, 2), and as targets (B, 2, T) the
    tokens of the answers, IGNORED elsewhere.

    Args:
        sides: The chosen and the rejected texts: ids, and which of them are the answer's.
        pad: The id after the end of shorter ones.
    """

    def __init__(self, sides: Sequence[tuple[Ragged, Ragged]], pad: int = PAD) -> None:
        self.sides, self.pad = tuple(sides), pad

    def __getitem__(self, batch: BatchIndices) -> Batch:
        found = [padded(tokens, written, batch.rows, self.pad) for tokens, written in self.sides]
        width = max(tokens.shape[1] for tokens, _, _ in found)
        inputs = torch.stack([widened(tokens, width, self.pad) for tokens, _, _ in found], dim=1)
        targets = torch.stack([widened(targets, width, IGNORED) for _, targets, _ in found], dim=1)
        return Batch(inputs, targets, batch.seed, torch.stack([lengths for _, _, lengths in found], dim=1))


class PromptRows(Dataset[Batch]):
    """Prompts (B, T), padded on the right, with the numbers of their rows (B,) as targets.

    Args:
        tokens: Ids of each prompt, up to where the answer begins.
        pad: The id after the end of shorter ones.
    """

    def __init__(self, tokens: Ragged, pad: int = PAD) -> None:
        self.tokens, self.pad = tokens, pad

    def __getitem__(self, batch: BatchIndices) -> Batch:
        inputs, lengths = self.tokens.padded(batch.rows, self.pad)
        return Batch(inputs, batch.rows, batch.seed, lengths)


class DialogueData(StoredExamples):
    """What conversations and preferences have in common: layouts, template, tokens.

    A text that is longer than max_length is cut at its end; where nothing of an answer is left, the row is left out.

    Args:
        template: "chat": each message begins with the reserved id of its role, see `epochal.data.chat_template`. "plain": a
            prompt is a text that the answer goes on with, as BEGIN, prompt, answer, END; it may be empty.
        tokenizer: "bpe", "word", "character" or "byte"; or the path of a tokenizer.json, or its folder.
        vocab_size: Largest size of the vocabulary, for "word" and "bpe".
        min_count: A word that the training texts have less often is unknown.
        max_length: Longest text in tokens.
        packing: Train on rows of up to max_length tokens that are made of whole conversations, one after the other, for less
            padding. As in running text, a token sees the conversations before its own.
        encoding: Of local text files, by its name in Python; None: UTF-8, or as their byte order mark tells.
        **options: See `StoredExamples`.

    Raises:
        ConfigError: If there is no such tokenizer or template, or a number is out of range.
    """

    yields: ClassVar = Tokens
    only_with: ClassVar = vocabularies.LEARNED
    preferences: ClassVar[bool] = False  # whether each row has two answers

    def __init__(
        self,
        *,
        template: str = "chat",
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        min_count: int = 1,
        max_length: int = 256,
        packing: bool = False,
        encoding: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if template not in TEMPLATES:
            raise ConfigError(f"dataset.template={template} must be one of {', '.join(TEMPLATES)}.")
        check_count("max_length", max_length, least=4)
        self.template, self.packing, self.encoding = template, packing, encoding
        self.conversational = template == "chat"
        self.vocab_size, self.min_count, self.max_length = vocab_size, min_count, max_length
        self.kind, self._loaded = vocabularies.chosen(
            tokenizer, TOKENIZERS
        )  # the state of one that is not to be learned
        self._note = ""

    def prepare(self) -> None:
        source = self.locate()
        key = source.fingerprint() | {"learns": self.learns, "template": self.template, "packing": self.packing}
        key |= {"vocab_size": self.vocab_size, "min_count": self.min_count, "max_length": self.max_length}
        key |= vocabularies.cache_key(self.kind, self._loaded) | self.split_key() | self._made_from()
        key |= {"layouts": 2}  # older caches lack system messages and histories that stood in columns of their own
        folder = cache.cached(self.name, key, lambda building: self._make(source, building))
        meta = cache.read_meta(folder)
        self.fingerprint, self.tokenizer = meta["fingerprint"], vocabularies.from_state(meta["tokenizer"])
        self._note = meta["note"]
        self._rows = {split: self._open(folder, split) for split in SPLITS}
        self.check_batch_size(self.rows("train")[1])

    def _made_from(self) -> dict[str, Any]:
        """More for the key of the cache, of a subclass that makes its rows."""
        return {}

    def _read(self, source: sources.Source, scratch: Path) -> dict[str, list[Row]]:
        """The rows by role: train, and validation and test if the source has them."""
        return dialogue_rows.read(source, scratch, preferences=self.preferences, plain=self.template == "plain")

    @property
    def _sides(self) -> tuple[str, ...]:
        """The names of the texts of a row that are stored."""
        return ("chosen", "rejected") if self.learns == "preferences" else (self.learns,)

    def _open(self, folder: Path, split: str) -> AnswerRows | PreferenceRows | PromptRows:
        pad = self.tokenizer.ids.pad or PAD
        texts = [Ragged.read(folder, f"{split}_{side}") for side in self._sides]
        if self.learns == "prompts":
            return PromptRows(texts[0], pad)
        written = [Ragged.read(folder, f"{split}_{side}_written") for side in self._sides]
        if self.learns == "preferences":
            return PreferenceRows(list(zip(texts, written)), pad)
        return AnswerRows(texts[0], written[0], pad)

    def _make(self, source: sources.Source, building: Path) -> dict[str, Any]:
        """Writes the tokens of each split; returns the tokenizer, and a note."""
        found = self._read(source, building / "scratch")
        shutil.rmtree(building / "scratch", ignore_errors=True)
        order = np.random.default_rng(self.split_seed).permutation(len(found["train"]))
        splits = self.split_rows({role: len(rows) for role, rows in found.items()}, order)
        chosen = {split: [found[role][row] for row in rows] for split, (role, rows) in splits.items()}
        sizes = {"vocab_size": self.vocab_size, "min_count": self.min_count}
        texts = [text for row in chosen["train"] for text in row.texts]
        self.tokenizer = vocabularies.learn_or_restore(self.kind, self._loaded, texts, **sizes)
        notes = []
        for split, rows in chosen.items():
            kept = [made for row in rows if (made := self._encoded(row)) is not None]
            if not kept:
                raise ConfigError(
                    f"No row of dataset={self.name}, split {split}, has an answer within dataset.max_length="
                    f"{self.max_length} tokens; raise it."
                )
            if len(kept) < len(rows):
                notes.append(f"{len(rows) - len(kept):,} of the {len(rows):,} rows of {split}")
            self._write(building, split, kept)
        told = f"left out, as no answer is within dataset.max_length={self.max_length} tokens: {', '.join(notes)}"
        return {"tokenizer": self.tokenizer.state(), "note": told if notes else ""}

    def _write(self, building: Path, split: str, rows: list[tuple[Encoded, ...]]) -> None:
        for number, side in enumerate(self._sides):
            ids, written = [row[number][0] for row in rows], [row[number][1] for row in rows]
            if split == "train" and self.packing and self.learns == "answers":
                ids, written = packed(ids, written, self.max_length)
            lengths = np.array([len(each) for each in ids], np.int64)
            dtype = ragged.smallest(len(self.tokenizer))
            ragged.write(building, f"{split}_{side}", np.concatenate(ids), lengths, dtype)
            if self.learns != "prompts":
                ragged.write(building, f"{split}_{side}_written", np.concatenate(written), lengths, np.uint8)

    def _encoded(self, row: Row) -> tuple[Encoded, ...] | None:
        """The texts of a row as `_sides` names them; None where no answer is left within max_length."""
        try:
            if self.learns == "prompts":
                return (self.encoded(row.prompt, prompt=True),)
            endings = row.answers if self.learns == "preferences" else row.answers[:1]
            said = [(*row.messages, {"role": "assistant", "content": answer}) for answer in endings] or [row.messages]
            if said[0][-1]["role"] != "assistant":
                raise ValueError("the conversation has no answer of the assistant to learn")
            whole = [self.encoded(messages) for messages in said]
        except ValueError as error:
            raise ConfigError(f"{row.where}: {error}") from error
        made = [(ids[: self.max_length], written[: self.max_length]) for ids, written in whole]
        if not all(written[1:].any() for _, written in made):
            return None
        if len(made) == 2 and np.array_equal(made[0][0], made[1][0]):  # they differ in what was cut off, or is unknown
            return None
        return tuple(made)

    def encoded(self, messages: Sequence[Mapping[str, str]], *, prompt: bool = False) -> Encoded:
        """A conversation as ids and which of them are the answers', in the template of this data.

        Args:
            messages: With template="plain" the user's and perhaps the assistant's.
            prompt: End where the answer is to begin.

        Raises:
            ValueError: If it is no conversation, or the vocabulary lacks what the template needs.
        """
        if self.template == "chat":
            return render(messages, self.tokenizer, generation_prompt=prompt)
        ids = self.tokenizer.ids
        begin = np.array([] if ids.begin is None else [ids.begin], np.int32)
        asked = np.concatenate([begin, self.tokenizer.encode(messages[0]["content"])]).astype(np.int32)
        if prompt and not len(asked):
            raise ValueError("the prompt is empty, and the vocabulary has no token for the beginning of a text.")
        if prompt:
            return asked, np.zeros(len(asked), bool)
        if ids.end is None:
            raise ValueError("the vocabulary has no token for the end of an answer.")
        answer = np.concatenate([self.tokenizer.encode(messages[1]["content"]), [ids.end]]).astype(np.int32)
        return np.concatenate([asked, answer]), np.arange(len(asked) + len(answer)) >= len(asked)

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], target: str) -> list[tuple[Inputs, Outputs]]:
        tokens = Tokens(
            vocabularies.size_of(config, "vocab_size", 8000), vocabularies.size_of(config, "max_length", 256)
        )
        return [(tokens, tokens)]

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        tokens = Tokens(len(self.tokenizer), self.max_length)
        return tokens, tokens

    def lengths(self, split: str) -> Tensor | None:
        rows = self._rows[split]
        if isinstance(rows, PreferenceRows):
            return torch.stack([tokens.lengths for tokens, _ in rows.sides]).amax(0)
        return rows.tokens.lengths if isinstance(rows, AnswerRows) else None  # prompts are drawn at random

    def mean_lengths(self) -> tuple[float | None, float | None]:
        lengths = self.lengths("train")
        return (None, None) if lengths is None else (self.padded_mean(lengths), None)

    @property
    def note(self) -> str:
        return self._note

    def state(self) -> dict[str, Any]:
        return {**self.tokenizer.state(), "template": self.template}

    def load_state(self, state: dict[str, Any]) -> None:
        self._loaded = vocabularies.read_state(state, self.name, older=vocabularies.OLDER, most=1)
        self.kind = self._loaded["tokenizer"]

    def restore(self, inputs: Inputs, outputs: Outputs) -> None:
        assert self._loaded is not None
        self.tokenizer = vocabularies.from_state(self._loaded)

    def rows(self, split: str) -> tuple[Dataset[Batch], int]:
        rows = self._rows[split]
        return rows, len(rows.sides[0][0] if isinstance(rows, PreferenceRows) else rows.tokens)


class ConversationData(DialogueData):
    """Conversations whose answers are learned, or whose prompts are answered, from JSON lines, a folder or the Hub; for the
    layouts see `epochal.data.dialogue_rows`.

    Args:
        **options: See `DialogueData`.
    """

    targets: ClassVar = ("answers", "prompts")
    unit: ClassVar = "conversations"


class PreferenceData(DialogueData):
    """A better and a worse answer for each prompt, from JSON lines, a folder or the Hub; for the layouts see
    `epochal.data.dialogue_rows`. The better ones can be learned as the answers of conversations.

    Args:
        **options: See `DialogueData`.
    """

    targets: ClassVar[tuple[str, ...]] = ("preferences", "answers", "prompts")
    unit: ClassVar = "pairs"
    preferences: ClassVar = True


def padded(tokens: Ragged, written: Ragged, rows: Tensor, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (B, T), padded on the right, the same where they are written and else IGNORED (B, T), and lengths (B,)."""
    ids, lengths = tokens.padded(rows, pad)
    return ids, ids.masked_fill(written.padded(rows, 0)[0] == 0, IGNORED), lengths


def widened(rows: Tensor, width: int, value: int) -> Tensor:
    """(B, T) -> (B, width), filled up on the right."""
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=value)


def packed(ids: list[np.ndarray], written: list[np.ndarray], longest: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rows joined to fewer rows of at most `longest` tokens, each whole: the longest first, each where it fits best.

    Best fit, as in Ding et al. 2024 (arXiv 2404.10830).
    """
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # sorted: how many tokens have room in a bin, and its number
    for row in np.argsort([-len(each) for each in ids], kind="stable").tolist():
        size = len(ids[row])
        place = bisect.bisect_left(free, (size, -1))
        room, number = free.pop(place) if place < len(free) else (longest, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(row)
        bisect.insort(free, (room - size, number))
    return [np.concatenate([ids[row] for row in rows]) for rows in bins], [
        np.concatenate([written[row] for row in rows]) for rows in bins
    ]
