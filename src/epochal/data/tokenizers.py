"""Tokenizers: text to ids and back, by character, byte, word or byte pair, or as a file of Hugging Face's says.

The first ids of every vocabulary are reserved, see `core.specs`, so that all text data can be read with the vocabulary of
any other, and weights travel. `decode` leaves the reserved ids out, except UNKNOWN.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from epochal.core.errors import ConfigError
from epochal.core.specs import BEGIN, END, RESERVED, UNKNOWN, ReservedIds

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # stands for the space before a word in pieces as Llama's
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # stands for unknown tokens
AT_ONCE = 10_000  # most texts that are encoded together, and most characters of a piece of a long text
LETTERS = "".join(map(chr, range(33, 127)))  # that a tokenizer that keeps all of a text has
LONG_PIECE = 1_000_000  # most characters of a piece where lines are not encoded by themselves
# what `str.splitlines` takes for the end of a line
LINE_END = r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x{85}\x{2028}\x{2029}]"
# words, punctuation marks, and English contractions as the Penn Treebank splits them: do n't, it 's
WORD = re.compile(r"\w+?(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|\w+|[^\w\s]")
# Han, kana, Bopomofo, Thai, Lao, Burmese and Khmer, which have no spaces between words
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f\u3005-\u3007\u3040-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)


class Tokenizer:
    """The base class of all tokenizers.

    Args:
        vocabulary: All that was learned, as one string that a checkpoint can hold.
        reserved: Number of reserved ids, which come first: RESERVED, in older runs OLDER or 0.
    """

    kind: ClassVar[str]  # the option dataset.tokenizer
    keeps_text: bool = True  # whether what it decodes is the text again, as far as its tokens are known
    adds_special: bool = False  # whether it is meant to put single texts between BEGIN and END

    def __init__(self, vocabulary: str = "", reserved: int = RESERVED) -> None:
        self.vocabulary, self.reserved = vocabulary, reserved

    @property
    def ids(self) -> ReservedIds:
        """The ids that are no text."""
        return ReservedIds.first(self.reserved)

    def state(self) -> dict[str, Any]:
        """All that is needed to make it again, for a checkpoint; `from_state` is the inverse."""
        return {"tokenizer": self.kind, "vocabulary": self.vocabulary, "reserved": self.reserved}

    def __len__(self) -> int:
        """Size of the vocabulary, reserved ids included."""
        raise NotImplementedError

    def encode(self, text: str) -> np.ndarray:
        """Ids (T,) of a text, without BEGIN and END."""
        raise NotImplementedError

    def encode_running(self, parts: Iterable[str]) -> Iterator[np.ndarray]:
        """Ids of one long text in parts, which together are those of `encode`."""
        return map(self.encode, parts)

    def encode_all(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of N texts, concatenated, and the number of ids of each text (N,)."""
        values, lengths = [np.zeros(0, np.int32)], list[int]()
        for start in range(0, len(texts), AT_ONCE):  # small arrays would take more memory than what is in them
            ids = [self.encode(text) for text in texts[start : start + AT_ONCE]]
            values.append(np.concatenate(ids).astype(np.int32))
            lengths += map(len, ids)
        return np.concatenate(values), np.array(lengths, np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, without the reserved ones."""
        raise NotImplementedError

    def as_decoded(self, text: str) -> str:
        """The text as it would be decoded if all of its tokens were known."""
        return text

    def word_starts(self) -> np.ndarray:
        """Whether a word, a space or a mark begins with each token, bool (V,); other tokens go on with a word.

        A byte that is no character by itself goes on with one: it is mostly a part of a letter.
        """
        first = (self.decode([token])[:1] for token in range(len(self)))
        return np.array([not (letter.isalnum() or letter == REPLACEMENT) for letter in first])

    def missing(self, text: str) -> str:
        """The characters of a text that are not in the vocabulary, each once, in the order of the text."""
        return ""


class Characters(Tokenizer):
    """One token per character that the training text has."""

    kind = "character"

    def __init__(self, vocabulary: str, reserved: int = RESERVED) -> None:
        super().__init__(vocabulary, reserved)
        self._codes = np.array([ord(c) for c in vocabulary], np.uint32)  # sorted
        # older runs on running text have REPLACEMENT in their vocabulary if an unknown character could occur
        self._unknown = UNKNOWN if reserved else vocabulary.find(REPLACEMENT)

    @classmethod
    def learn(cls, texts: Iterable[str]) -> Characters:
        """Learns the characters of the texts."""
        return cls("".join(sorted(set[str]().union(*map(set, texts)))))

    def __len__(self) -> int:
        return self.reserved + len(self.vocabulary)

    def encode(self, text: str) -> np.ndarray:
        """Ids (T,), one per character; unknown ones become UNKNOWN, and in older runs may be left out."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        known = self._codes[ids] == codes
        ids += self.reserved
        return np.where(known, ids, self._unknown) if self._unknown >= 0 else ids[known]

    def decode(self, ids: Iterable[int]) -> str:
        first = self.reserved
        return "".join(self.vocabulary[i - first] if i >= first else REPLACEMENT for i in ids if _is_text(i, first))

    def missing(self, text: str) -> str:
        return "".join(dict.fromkeys(c for c in text if c not in self.vocabulary))


class Bytes(Tokenizer):
    """One token per byte of UTF-8, for any text; nothing is learned."""

    kind = "byte"

    def __len__(self) -> int:
        return self.reserved + 256

    def encode(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
        return codes + np.uint16(self.reserved) if self.reserved else codes

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(i - self.reserved for i in ids if i >= self.reserved).decode("utf-8", "replace")


class Words(Tokenizer):
    """One token per lower-case word or punctuation mark. Spaces and capitals are lost, and words that are not in the
    vocabulary become UNKNOWN: for texts that a model reads rather than writes.

    A vocabulary learned from texts with combining marks, or in scripts without spaces, begins with a newline: then
    marks stay with their letters, and each letter of such a script is a token. Others, and those of version 0.1, are
    split at marks.
    """

    kind = "word"
    keeps_text = False

    def __init__(self, vocabulary: str, reserved: int = RESERVED) -> None:
        super().__init__(vocabulary, reserved)
        self.pattern = _unicode_patterns()[0] if vocabulary.startswith("\n") else WORD
        words = vocabulary.removeprefix("\n")
        self.words = words.split("\n") if words else []
        self._ids = {word: number for number, word in enumerate(self.words, start=reserved)}

    @classmethod
    def learn(cls, texts: Iterable[str], *, vocab_size: int, min_count: int) -> Words:
        """Learns the most frequent of the words that occur at least min_count times."""
        lower = [text.lower() for text in texts]
        needed = any(not text.isascii() and _unicode_patterns()[1].search(text) for text in lower)
        pattern, mark = (_unicode_patterns()[0], "\n") if needed else (WORD, "")
        counts = Counter(word for text in lower for word in pattern.findall(text))
        frequent = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        return cls(mark + "\n".join(word for _, word in frequent[: max(vocab_size - RESERVED, 0)]))

    def __len__(self) -> int:
        return self.reserved + len(self.words)

    def encode_running(self, parts: Iterable[str]) -> Iterator[np.ndarray]:
        return map(self.encode, pieces(parts))  # no word is in two lines

    def encode(self, text: str) -> np.ndarray:
        known = self._ids
        return np.array([known.get(word, UNKNOWN) for word in self.pattern.findall(text.lower())], np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        first = self.reserved
        return " ".join(self.words[i - first] if i >= first else REPLACEMENT for i in ids if _is_text(i, first))

    def word_starts(self) -> np.ndarray:
        return np.ones(len(self), bool)

    def as_decoded(self, text: str) -> str:
        return " ".join(self.pattern.findall(text.lower()))


class BytePairs(Tokenizer):
    """Byte-pair encoding (Sennrich et al. 2016) over bytes (Radford et al. 2019): frequent words are one token, rare
    ones several, and there are no unknown ones. No token spans two lines."""

    kind = "bpe"

    def __init__(self, vocabulary: str, reserved: int = RESERVED) -> None:
        super().__init__(vocabulary, reserved)
        self._engine = _library().Tokenizer.from_str(vocabulary)
        self._size = self._engine.get_vocab_size()

    @classmethod
    def learn(cls, texts: Iterable[str], *, vocab_size: int) -> BytePairs:
        """Merges the most frequent pairs until there are vocab_size tokens, or no pair occurs twice.

        Raises:
            ConfigError: If vocab_size is too small for the single bytes.
        """
        if vocab_size <= 256 + RESERVED:
            raise ConfigError(
                f"dataset.vocab_size={vocab_size} is too small for dataset.tokenizer=bpe: {256 + RESERVED} are taken "
                "before the first pair is learned; give a few thousand."
            )
        library = _library()
        engine = library.Tokenizer(library.models.BPE())
        split = library.pre_tokenizers
        engine.pre_tokenizer = split.Sequence(
            [split.Split(library.Regex(LINE_END), "merged_with_previous"), split.ByteLevel(add_prefix_space=False)]
        )
        engine.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size - RESERVED,
            min_frequency=2,
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        engine.train_from_iterator((piece for text in texts for piece in pieces([text])), trainer)
        return cls(engine.to_str())

    def __len__(self) -> int:
        return self.reserved + self._size

    def encode(self, text: str) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int32), *self.encode_running([text])])

    def encode_running(self, parts: Iterable[str]) -> Iterator[np.ndarray]:
        lines = pieces(parts)
        while some := list(islice(lines, AT_ONCE)):
            yield self.encode_all(some)[0]

    def encode_all(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        values, lengths = [np.zeros(0, np.int32)], list[int]()
        for start in range(0, len(texts), AT_ONCE):
            found = self._engine.encode_batch_fast([_clean(text) for text in texts[start : start + AT_ONCE]])
            lengths += map(len, found)
            values.append(np.fromiter(chain.from_iterable(each.ids for each in found), np.int32))
        return np.concatenate(values) + np.int32(self.reserved), np.array(lengths, np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        return self._engine.decode([i - self.reserved for i in ids if i >= self.reserved], skip_special_tokens=False)


class HuggingFace(Tokenizer):
    """A tokenizer of the library `tokenizers`, e.g. GPT-2's byte pairs, BERT's word pieces or Llama's: its vocabulary is the
    text of its tokenizer.json. It has ids of its own, which are reserved where the usual names of special tokens say so; a
    text that contains such a name is text.
    """

    kind = "huggingface"
    NAMES: ClassVar = {  # the first that there is
        "pad": ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"),
        "unknown": ("<unk>", "[UNK]"),
        "begin": ("<s>", "[CLS]", "<|begin_of_text|>", "<bos>", "<|endoftext|>"),
        "end": ("</s>", "[SEP]", "<|end_of_text|>", "<eos>", "<|endoftext|>"),
        "mask": ("<mask>", "[MASK]"),
        "system": ("<|system|>",),
        "user": ("<|user|>",),
        "assistant": ("<|assistant|>",),
    }

    def __init__(self, vocabulary: str, reserved: int = 0) -> None:
        super().__init__(vocabulary, 0)
        self._engine = _library().Tokenizer.from_str(vocabulary)
        self._engine.no_padding()
        self._engine.no_truncation()
        self._engine.encode_special_tokens = True  # as the text that they are
        self.adds_special = self._engine.num_special_tokens_to_add(False) > 0
        normal = self._engine.normalizer
        self.keeps_text = normal is None or "É" in unicodedata.normalize("NFC", normal.normalize_str("É"))
        known = self._engine.get_vocab(with_added_tokens=True)
        self._size = 1 + max(known.values())
        found = {role: (known[name] for name in names if name in known) for role, names in self.NAMES.items()}
        self._ids = ReservedIds(**{role: next(numbers, None) for role, numbers in found.items()})
        if self._ids.unknown is None:  # it refuses what it lacks, or leaves it out
            with contextlib.suppress(ConfigError):
                self.keeps_text &= self.decode(self.encode(LETTERS)).replace(" ", "") == LETTERS

    @classmethod
    def open(cls, path: Path) -> HuggingFace:
        """The tokenizer of a file, or of the file tokenizer.json in a folder.

        Raises:
            ConfigError: If there is none, or it cannot be read.
        """
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            return cls(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(
                f"{path} has no tokenizer.json; save the tokenizer there with save_pretrained."
            ) from error
        except ImportError:
            raise
        except Exception as error:  # the library's own errors have no class
            raise ConfigError(f"{file} cannot be read as a tokenizer: {error}.") from error

    def with_size(self, size: int) -> HuggingFace:
        """This tokenizer, with unused ids up to a size: the rows of an embedding are often rounded up."""
        if size <= len(self):
            return self
        engine, library = _library().Tokenizer.from_str(self.vocabulary), _library()
        names = [f"<unused_{number}>" for number in range(len(self), size)]
        engine.add_special_tokens([library.AddedToken(name, normalized=False, special=True) for name in names])
        return HuggingFace(engine.to_str())

    @property
    def ids(self) -> ReservedIds:
        return self._ids

    def __len__(self) -> int:
        return self._size

    def encode(self, text: str) -> np.ndarray:
        with _refusals():
            return np.array(self._engine.encode(_clean(text), add_special_tokens=False).ids, np.int32)

    def encode_running(self, parts: Iterable[str]) -> Iterator[np.ndarray]:
        return map(self.encode, _long_pieces(parts))

    def encode_all(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        values, lengths = [np.zeros(0, np.int32)], list[int]()
        for start in range(0, len(texts), AT_ONCE):
            some = [_clean(text) for text in texts[start : start + AT_ONCE]]
            with _refusals():
                found = self._engine.encode_batch_fast(some, add_special_tokens=False)
            lengths += map(len, found)
            values.append(np.fromiter(chain.from_iterable(each.ids for each in found), np.int32))
        return np.concatenate(values), np.array(lengths, np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        reserved = {*self.ids.known()}
        return self._engine.decode([int(number) for number in ids if number not in reserved], skip_special_tokens=True)

    def word_starts(self) -> np.ndarray:
        described = json.loads(self.vocabulary)
        model = described["model"]
        names = [self._engine.id_to_token(token) or "" for token in range(len(self))]
        if model.get("type") == "WordPiece":  # as BERT's
            further = model.get("continuing_subword_prefix") or "##"
            return np.array([not name.startswith(further) for name in names])
        if model.get("type") == "WordLevel" and described.get("decoder") is None:  # whole words, see `to_huggingface`
            return np.ones(len(self), bool)
        # a space before a word is decoded with GPT-2's tokens, but not with Llama's
        return super().word_starts() | np.array([name.startswith(SPACE) for name in names])


KINDS: dict[str, type[Tokenizer]] = {kind.kind: kind for kind in (Characters, Bytes, Words, BytePairs, HuggingFace)}
# of the reserved ids, in their order, in a tokenizer.json
RESERVED_NAMES = ("<pad>", "<unk>", "<s>", "</s>", "<mask>", "<|system|>", "<|user|>", "<|assistant|>")


def to_huggingface(tokenizer: Tokenizer, *, special_tokens: bool = False) -> str:
    """The text of a tokenizer.json that gives the same ids, for `transformers.PreTrainedTokenizerFast(tokenizer_file=...)`.

    A text that contains the name of a reserved token, such as `<s>`, has that token's id there, and is text here. The lower
    case of words is that of single letters there: a sigma at the end of a word is another here.

    Args:
        tokenizer: Of any kind.
        special_tokens: Whether texts stand between BEGIN and END, and pairs as BEGIN, first, END, second, END.
    """
    if isinstance(tokenizer, HuggingFace):
        return tokenizer.vocabulary
    library, first = _library(), tokenizer.reserved
    split, lines = library.pre_tokenizers, library.Regex(LINE_END)
    if isinstance(tokenizer, BytePairs):
        model = json.loads(tokenizer.vocabulary)["model"]
        own, merges = model["vocab"], [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
        by = split.Sequence([split.Split(lines, "merged_with_previous"), split.ByteLevel(add_prefix_space=False)])
    elif isinstance(tokenizer, Bytes):
        own, merges = {letter: number for number, letter in enumerate(_byte_letters())}, []
        by = split.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        whole = tokenizer.words if isinstance(tokenizer, Words) else tokenizer.vocabulary
        own, merges = {text: number for number, text in enumerate(whole)}, []
        by = split.Split(library.Regex(r"[\s\S]"), "isolated")
    names = [name + "_" * next(n for n in range(9) if name + "_" * n not in own) for name in RESERVED_NAMES[:first]]
    vocabulary = {name: number for number, name in enumerate(names)} | {k: first + n for k, n in own.items()}
    if isinstance(tokenizer, Characters | Words):
        engine = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token=(names[1:2] or [REPLACEMENT])[0]))
        if isinstance(tokenizer, Words):  # by default words are decoded with a space between them
            engine.normalizer = library.normalizers.Lowercase()
            by = split.Split(library.Regex(_for_library(tokenizer.pattern)), "removed", invert=True)
        else:
            engine.decoder = library.decoders.Fuse()
    else:
        engine = library.Tokenizer(library.models.BPE(vocabulary, merges))
        engine.decoder = library.decoders.ByteLevel()
    engine.pre_tokenizer = by
    engine.add_special_tokens([library.AddedToken(name, normalized=False, special=True) for name in names])
    if special_tokens:
        begin, end = names[BEGIN], names[END]
        engine.post_processor = library.processors.TemplateProcessing(
            single=f"{begin} $A {end}",
            pair=f"{begin} $A {end} $B:1 {end}:1",
            special_tokens=[(begin, BEGIN), (end, END)],
        )
    return engine.to_str()


def _for_library(pattern: re.Pattern[str]) -> str:
    """A pattern of words in the grammar of the library `tokenizers`, whose \\w also takes combining marks."""
    word = r"\p{L}\p{N}_"
    text = pattern.pattern.replace(r"[^\w\s]", rf"[^{word}\s]").replace(r"\w", f"[{word}]")
    return text.replace(r"\b", rf"(?![{word}])")


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Raises ConfigError where a tokenizer.json refuses a text: it lacks a letter or word, and names no token for such."""
    try:
        yield
    except Exception as error:  # the library's own errors have no class
        raise ConfigError(f"The tokenizer cannot read the text: {error}. Take one that knows all of it.") from error


def _is_text(number: int, reserved: int) -> bool:
    return number >= reserved or number == UNKNOWN


@functools.cache
def _unicode_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """As WORD, but with combining marks, joiners and skin tones as a part of what they follow, and with each letter of
    an unspaced script by itself; and a pattern of the characters for which this makes a difference."""
    codes = [*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)]
    marks = "".join(chr(c) for c in codes if unicodedata.category(chr(c)).startswith("M"))
    marks += "\u200c\u200d\U0001f3fb-\U0001f3ff"
    letters = rf"(?:(?![{UNSPACED}])\w[{marks}]*)+"
    symbol = rf"[^\w\s](?:[{marks}]|(?<=\u200d)[^\w\s])*"
    contractions = rf"{letters}?(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b"
    return (
        re.compile(rf"[{UNSPACED}][{marks}]*|{contractions}|{letters}|{symbol}"),
        re.compile(rf"[{UNSPACED}{marks}]"),
    )


def pieces(parts: Iterable[str]) -> Iterator[str]:
    """The lines of a text in parts, and the pieces of very long lines: the library copies what it encodes several times
    in memory. They do not depend on how the text is parted."""
    rest = ""  # the beginning of a line that may go on in the next part
    for part in parts:
        *lines, rest = (rest + part).splitlines(keepends=True) or [""]
        for line in lines:
            yield from (line[start : start + AT_ONCE] for start in range(0, len(line), AT_ONCE))
        while len(rest) > AT_ONCE:
            yield rest[:AT_ONCE]
            rest = rest[AT_ONCE:]
    if rest:
        yield rest


def _long_pieces(parts: Iterable[str]) -> Iterator[str]:
    """A text in parts as pieces of about LONG_PIECE characters that end with a line, if there are such."""
    held = ""
    for part in parts:
        held += part
        while len(held) > LONG_PIECE:
            end = held.rfind("\n", 0, LONG_PIECE) + 1 or LONG_PIECE
            yield held[:end]
            held = held[end:]
    if held:
        yield held


@functools.cache
def _byte_letters() -> tuple[str, ...]:
    """The letter that stands for each byte in byte pairs: itself if it is printed, else one from U+0100 on (GPT-2)."""
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printed else next(others)) for byte in range(256))


def _clean(text: str) -> str:
    """The text with a question mark for each lone surrogate, which a command line or a damaged file may contain."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _library() -> Any:
    # unless this is set, it warns at each fork after it has used threads
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import tokenizers

    return tokenizers
