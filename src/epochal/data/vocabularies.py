"""The vocabulary of text data: which tokenizer is chosen, how it is learned or taken from another run, and its state."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from epochal.core.checks import OnlyWith
from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.files import expanded
from epochal.core.specs import RESERVED
from epochal.data.tokenizers import KINDS, UNSPACED, BytePairs, Bytes, Characters, HuggingFace, Tokenizer, Words

LEARNED = {  # what is read only by tokenizers that are learned
    "vocab_size": (OnlyWith("tokenizer", ("word", "bpe")),),
    "min_count": (OnlyWith("tokenizer", ("word",)),),
}
OLDER = 4  # number of ids that older runs reserve where texts are padded; in running text they reserve none
MOST_UNKNOWN = 0.05  # share of unknown tokens above which the user is warned


def learn(kind: str, texts: Sequence[str], *, vocab_size: int, min_count: int = 1) -> Tokenizer:
    """Learns a tokenizer of this kind.

    Args:
        kind: "word", "bpe", "character" or "byte".
        texts: To learn from.
        vocab_size: Largest size of the vocabulary, for "word" and "bpe".
        min_count: How often a word must occur.

    Raises:
        ConfigError: If vocab_size is too small for its kind.
    """
    if kind == "word":
        return Words.learn(texts, vocab_size=vocab_size, min_count=min_count)
    if kind == "bpe":
        return BytePairs.learn(texts, vocab_size=vocab_size)
    return Bytes() if kind == "byte" else Characters.learn(texts)


def read_state(state: Mapping[str, Any], name: str, *, older: int, pads: bool = False, most: int = 2) -> dict[str, Any]:
    """The state of a tokenizer, see `Tokenizer.state`, in the state of another run's data, whatever data that was.

    Args:
        state: Of the other run's data.
        name: The data set that is to be read with it, for messages.
        older: How many ids an older run of this data reserves, where the state does not say.
        pads: Whether texts are written with PAD, BEGIN and END, so that these ids must be those of `core.specs`.
        most: How many vocabularies the data can have; the state is that of the first.

    Raises:
        ConfigError: If it holds no vocabulary, or none that can read such data.
    """
    vocabularies = vocabularies_of(state)
    if not vocabularies or "tokenizer" not in state:
        raise ConfigError(
            f"dataset={name} is text, but the other run has no vocabulary to read it with; it must be a run on text."
        )
    if len(vocabularies) > most:
        raise ConfigError(
            f"dataset={name} has one vocabulary, but the other run has one for each of two languages; it must be one "
            "with dataset.joint=true."
        )
    kind = state["tokenizer"]
    if kind not in KINDS:
        raise ConfigError(f"The other run's tokenizer is {kind}, which there is not. There are: {' '.join(KINDS)}.")
    reserved = int(state.get("reserved", older))
    if pads and reserved < OLDER:
        raise ConfigError(
            f"dataset={name} writes texts from BEGIN to END, and the other run's vocabulary ({kind}) has no such ids of "
            "its own; it must be one that was learned here."
        )
    return {"tokenizer": kind, "vocabulary": vocabularies[0], "reserved": reserved}


def vocabularies_of(state: Mapping[str, Any]) -> list[str]:
    """The vocabularies that the state of a run's data holds: two of pairs of texts where each side has its own."""
    if "vocabularies" in state:  # of pairs of texts in older runs
        return list(state["vocabularies"])
    return [state[key] for key in ("vocabulary", "target_vocabulary") if key in state]


def reserves_others(state: Mapping[str, Any]) -> bool:
    """Whether the state of a run's data holds a vocabulary with other reserved ids than one that is learned today."""
    return bool(vocabularies_of(state)) and state.get("reserved") != RESERVED


def from_state(state: Mapping[str, Any]) -> Tokenizer:
    """The inverse of `Tokenizer.state`.

    Raises:
        ConfigError: If the vocabulary is damaged.
    """
    try:
        return KINDS[state["tokenizer"]](state["vocabulary"], state["reserved"])
    except ImportError:
        raise
    except Exception as error:  # the library's own errors have no class
        raise ConfigError(f"The vocabulary of the tokenizer {state['tokenizer']} cannot be read: {error}") from error


def cache_key(kind: str, loaded: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the key of a cache says of the tokenizer: the state of one that was loaded, else which kind is learned."""
    return {"tokenizer": kind, "vocabulary": loaded, "reserved": RESERVED}


def learn_or_restore(
    kind: str, loaded: Mapping[str, Any] | None, texts: Sequence[str], *, vocab_size: int, min_count: int = 1
) -> Tokenizer:
    """The tokenizer that was loaded, see `read_state`, else one that is learned from the texts.

    Where most letters are of scripts without spaces between words, "bpe" takes the place of "word".
    """
    if loaded is not None:
        return from_state(loaded)
    if kind == "word" and have_no_spaces(texts):
        kind = "bpe"
        if vocab_size <= 256 + RESERVED:
            raise ConfigError(
                "Most texts have no spaces between words, so dataset.tokenizer=bpe takes the place of word, and "
                f"dataset.vocab_size={vocab_size} is too small for it: {256 + RESERVED} are taken before the first "
                "pair is learned. Give a few thousand, or dataset.tokenizer=character."
            )
    return learn(kind, texts, vocab_size=vocab_size, min_count=min_count)


def have_no_spaces(texts: Sequence[str]) -> bool:
    """Whether most letters are of scripts without spaces between words."""
    if all(text.isascii() for text in texts):
        return False
    unspaced, letters = re.compile(f"[{UNSPACED}]"), re.compile(r"\w")
    return 2 * sum(len(unspaced.findall(text)) for text in texts) > sum(len(letters.findall(text)) for text in texts)


def note(asked: str, tokenizer: Tokenizer, ids: Iterable[np.ndarray]) -> str:
    """What the user should know before a run: that there is another kind of tokenizer than was asked for, or that it
    knows too few of the tokens; else empty."""
    if tokenizer.kind != asked:
        return (
            f"most texts have no spaces between words, so dataset.tokenizer={tokenizer.kind} takes the place of {asked}"
        )
    if (reserved := tokenizer.ids.unknown) is None:
        return ""
    counts = [(int((values == reserved).sum()), len(values)) for values in ids]
    share = sum(unknown for unknown, _ in counts) / max(sum(total for _, total in counts), 1)
    if share <= MOST_UNKNOWN:
        return ""
    return (
        f"{share:.0%} of the tokens are unknown; dataset.tokenizer=bpe would know all, a smaller dataset.min_count more"
    )


def chosen(option: str, allowed: Sequence[str]) -> tuple[str, dict[str, Any] | None]:
    """The kind of the option dataset.tokenizer, and the state of the tokenizer if it names a tokenizer.json.

    Raises:
        ConfigError: If it is no kind that is allowed, and no such file or folder with one.
    """
    path = str(option)
    if option not in allowed and (os.sep in path or "/" in path or path.endswith(".json")):
        if not expanded(path).exists():
            raise ConfigError(
                f"dataset.tokenizer={path} does not exist. Give the path of a tokenizer.json, or its folder."
            )
        return HuggingFace.kind, HuggingFace.open(expanded(path)).state()
    check_kind(option, allowed)
    return option, None


def check_kind(kind: str, allowed: Sequence[str]) -> None:
    """Raises ConfigError if the kind of tokenizer is not allowed."""
    if kind not in allowed:
        raise ConfigError(
            f"dataset.tokenizer={kind} is no tokenizer.{did_you_mean(str(kind), allowed)} "
            f"There are: {' '.join(allowed)}"
        )


def size_of(config: Mapping[str, Any], key: str, default: int) -> int:
    """config[key] if it is a positive integer, else the default."""
    size = config.get(key)
    return size if isinstance(size, int) and size > 0 else default
