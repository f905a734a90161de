"""Sentences with two classes, such as film reviews, as data of post-training: conversations, preferences, and halves for a
reward model and for the judge of what it taught.

The Stanford Sentiment Treebank holds phrases of its sentences too. So rows are held out by sentence: of no phrase is the
sentence that it is from in another part, or what is held out would be known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from epochal.core.errors import ConfigError
from epochal.data import sentences, sources
from epochal.data.conversations import ConversationData, PreferenceData
from epochal.data.datamodule import DataModule, check_count
from epochal.data.dialogue_rows import Row
from epochal.data.sentences import Corpus, SentenceData
from epochal.data.stored import count_of

HALVES = ("first", "second")


class Halved(DataModule):
    """The option `half` of data sets of sentences and their phrases.

    Args:
        half: "first" or "second": only sentences of this half of the training split, and their phrases; None: of both.
        least_words: Shorter texts are left out.
        whole: Leave out phrases of longer sentences.
    """

    test: int | float  # of `StoredExamples`
    split_seed: int

    def __init__(self, *, half: str | None = None, least_words: int = 1, whole: bool = False, **options: Any) -> None:
        super().__init__(**options)
        if half is not None and half not in HALVES:
            raise ConfigError(f"dataset.half={half} must be one of {', '.join(HALVES)}, or null.")
        check_count("least_words", least_words)
        self.half, self.least_words, self.whole = half, least_words, whole

    def _made_from(self) -> dict[str, Any]:
        return {"half": self.half, "least_words": self.least_words, "whole": self.whole}

    def _corpus(self, source: sources.Source, scratch: Path, labelled: bool) -> Corpus:
        """The texts of the half, and of those a test part where the source has none; each role's own sentences."""
        found = sentences.read(source, scratch, None, None, None, labelled=labelled)
        parts = parts_by_sentence(
            found.texts["train"],
            half=self.half,
            test=None if "test" in found.labels else self.test,
            seed=self.split_seed,
        )
        texts = {role: [found.texts["train"][row] for row in rows] for role, rows in parts.items()}
        labels = {role: found.labels["train"][rows] for role, rows in parts.items()}
        texts, labels = {**found.texts, **texts}, {**found.labels, **labels}
        for role in texts:
            longest = whole_rows(texts[role]) if self.whole else np.arange(len(texts[role]))
            rows = [row for row in longest.tolist() if len(texts[role][row].split()) >= self.least_words]
            if not rows:
                raise ConfigError(
                    f"No text of dataset={self.name}, split {role}, has dataset.least_words={self.least_words} words."
                )
            texts[role], labels[role] = [texts[role][row] for row in rows], labels[role][rows]
        return Corpus(texts, None, labels, found.classes)


class SentenceHalf(Halved, SentenceData):
    """Sentences and their phrases with a class each, all held out by sentence.

    Args:
        half, least_words, whole: See `Halved`.
        **options: See `SentenceData`; there are no pairs.
    """

    def _read(self, source: sources.Source, scratch: Path) -> Corpus:
        return self._corpus(source, scratch, labelled=self.learns != "text")


class ReviewConversations(Halved, ConversationData):
    """Sentences as prompts and answers: the first words, and how they went on.

    Args:
        prompt_words: Words of a prompt.
        half, least_words, whole: See `Halved`.
        **options: See `ConversationData`.
    """

    def __init__(self, *, prompt_words: int = 3, least_words: int = 10, whole: bool = True, **options: Any) -> None:
        super().__init__(least_words=least_words, whole=whole, **options)
        check_count("prompt_words", prompt_words)
        if least_words <= prompt_words:
            raise ConfigError(
                f"dataset.least_words={least_words} must be above dataset.prompt_words={prompt_words}, or a text has no answer."
            )
        self.prompt_words = prompt_words

    def _made_from(self) -> dict[str, Any]:
        return {**super()._made_from(), "prompt_words": self.prompt_words}

    def _read(self, source: sources.Source, scratch: Path) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for role, texts in self._corpus(source, scratch, labelled=False).texts.items():
            found[role] = []
            for number, text in enumerate(texts):
                words = text.split()
                begin, end = " ".join(words[: self.prompt_words]), " ".join(words[self.prompt_words :])
                messages = ({"role": "user", "content": begin}, {"role": "assistant", "content": f" {end}"})
                found[role].append(Row(f"Text {number} of {source.path}, split {role}", messages))
        return found


class ReviewPreferences(Halved, PreferenceData):
    """Pairs of sentences or phrases of the two classes, the one of the last class chosen, without a prompt.

    The two of a pair have about the same number of words, so that length tells nothing.

    Args:
        half, least_words, whole: See `Halved`.
        **options: See `PreferenceData`.
    """

    targets: ClassVar[tuple[str, ...]] = ("preferences",)

    def _read(self, source: sources.Source, scratch: Path) -> dict[str, list[Row]]:
        corpus = self._corpus(source, scratch, labelled=True)
        found: dict[str, list[Row]] = {}
        for number, (role, texts) in enumerate(corpus.texts.items()):
            random, words = np.random.default_rng((self.split_seed, number)), [len(text.split()) for text in texts]
            last = len(corpus.classes) - 1
            sides = [np.flatnonzero((corpus.labels[role] == last) == best) for best in (True, False)]
            count = min(map(len, sides))
            if not count:
                raise ConfigError(f"The texts of {source.path}, split {role}, are of one class: there are no pairs.")
            drawn = [random.permutation(side)[:count].tolist() for side in sides]
            pairs = zip(*(sorted(side, key=words.__getitem__) for side in drawn))
            found[role] = [
                Row(
                    f"Pair {n} of {source.path}, split {role}", ({"role": "user", "content": ""},), (texts[a], texts[b])
                )
                for n, (a, b) in enumerate(pairs)
            ]
        return found


def sentences_of(texts: list[str]) -> list[set[int]]:
    """Of each text the rows of the sentences that it is a phrase of: texts that are a part, word by word, of no longer one."""
    words = [tuple(text.split()) for text in texts]
    known, inside = set(words), dict[tuple[str, ...], set[int]]()
    for row in sorted(range(len(words)), key=lambda row: -len(words[row])):
        whole = words[row]
        if whole in inside:
            continue
        for start in range(len(whole)):
            for end in range(start + 1, len(whole) + 1):
                if (phrase := whole[start:end]) in known:
                    inside.setdefault(phrase, set()).add(row)
    return [inside.get(each, set()) for each in words]


def whole_rows(texts: list[str]) -> np.ndarray:
    """The rows that are sentences, see `sentences_of`, ascending."""
    return np.unique([row for rows in sentences_of(texts) for row in rows])


def parts_by_sentence(
    texts: list[str], *, half: str | None, test: int | float | None, seed: int
) -> dict[str, np.ndarray]:
    """Rows of "train", and of "test" if a part is given, so that no sentence of a text is in another part or half.

    A text that is a phrase of sentences in several of them is left out.

    Args:
        texts: Sentences and phrases of them.
        half: "first" or "second", or None for both.
        test: The part of the half's sentences to hold out: a fraction or a count.
        seed: Decides which sentences are where.
    """
    found = sentences_of(texts)
    wholes = np.random.default_rng(seed).permutation(np.unique([row for rows in found for row in rows]))
    middle = len(wholes) // 2
    chosen = {"first": wholes[:middle], "second": wholes[middle:], None: wholes}[half]
    held = 0 if test is None else count_of(test, len(chosen) - 1, "dataset.test")
    parts = {"train": set(chosen[held:].tolist())} | ({"test": set(chosen[:held].tolist())} if held else {})
    return {
        role: np.array([row for row, rows in enumerate(found) if rows and rows <= part], np.int64)
        for role, part in parts.items()
    }
