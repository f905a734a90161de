"""Small tasks over letters, as text: do a language model's weights know how to copy, to turn round, to look up, to close?"""

from __future__ import annotations

import string
from typing import Any, ClassVar

import torch
from torch import Tensor

from epochal.core.errors import ConfigError
from epochal.core.specs import IGNORED, PAD, Inputs, Outputs, Tokens
from epochal.data import vocabularies
from epochal.data.batching import Batch, BatchIndices
from epochal.data.counter_rng import uniform
from epochal.data.synthetic import Synthetic
from epochal.data.tokenizers import Bytes, Tokenizer

SMALL, CAPITAL = string.ascii_lowercase, string.ascii_uppercase
ALPHABET = SMALL + CAPITAL + ": \n"
COLON, SPACE, NEWLINE = (ALPHABET.index(sign) for sign in ": \n")
NONE = -1  # where a row has ended
KINDS = ("copy", "reverse", "lookup", "nesting")
CLOSES = 0.4  # probability that a bracket is closed rather than another opened


class LetterTasks(Synthetic):
    """Language modelling of questions with one right answer, in letters that any text has; only the answer is asked for, of
    nesting with the newline that ends it.

        copy     abcde:abcde        the letters again
        reverse  abcde:edcba        from the last to the first
        lookup   akbxcf b:x         the letter that stands behind the one that is asked for, which stands there once
        nesting  abcCd:DBA          letters open and their capitals close: what closes those that are still open

    Args:
        kind: One of them.
        length: Letters before the colon; of lookup those of the pairs.
        **options: See `Synthetic`.

    Raises:
        ConfigError: If there is no such kind, or length is odd or above 52 for lookup.
    """

    targets: ClassVar = ("text",)
    yields: ClassVar = Tokens
    unit: ClassVar = "texts"
    asks_some_tokens = True
    asks_questions: ClassVar = True

    def __init__(self, *, kind: str = "copy", length: int = 12, **options: Any) -> None:
        super().__init__(length=length, **options)
        if kind not in KINDS:
            raise ConfigError(f"dataset.kind={kind} must be one of {', '.join(KINDS)}.")
        if kind == "lookup" and (length % 2 or length >= 2 * len(SMALL)):
            raise ConfigError(
                f"dataset.length={length} must be even for dataset.kind=lookup, and below {2 * len(SMALL)}: letters come in "
                "pairs, whose first ones differ from each other and from all second ones."
            )
        self.kind = kind
        self.tokenizer: Tokenizer = Bytes()
        signs, _ = self._text(self._drawn(0, torch.zeros(1, dtype=torch.long)))
        self.prompt = "".join(ALPHABET[sign] for sign in signs[0]).partition(":")[0] + ":"

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        tokens = Tokens(len(self.tokenizer), self._width - 1)
        return tokens, tokens

    @property
    def _width(self) -> int:
        """Characters of the longest row."""
        return self.length + {"lookup": 5}.get(self.kind, self.length + 2)

    def state(self) -> dict[str, Any]:
        return self.tokenizer.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Reads the letters as another run did.

        Raises:
            ConfigError: If its tokens are not single characters, or it does not know the letters.
        """
        found = vocabularies.from_state(vocabularies.read_state(state, self.name, older=0, most=1))
        if found.kind not in ("byte", "character") or found.missing(ALPHABET):
            raise ConfigError(
                f"dataset={self.name} is read letter by letter, but the other run's tokenizer ({found.kind}) has no token for each "
                "letter; it must be one with dataset.tokenizer=byte or character."
            )
        self.tokenizer = found

    def make(self, split: str, batch: BatchIndices) -> Batch:
        signs, asked = self._text(self._drawn(self.draw_seed(split, batch), batch.rows))
        ids = torch.as_tensor(self.tokenizer.encode(ALPHABET).astype("int64"))
        tokens = ids[signs.clamp(min=0)].masked_fill(signs == NONE, self.tokenizer.ids.pad or PAD)
        return Batch(tokens[:, :-1], tokens[:, 1:].masked_fill(~asked[:, 1:], IGNORED), batch.seed)

    def _drawn(self, seed: int, rows: Tensor) -> Tensor:
        return uniform(seed, rows, len(SMALL) + 2 * self.length)

    def _text(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Rows as places in ALPHABET (B, W), NONE after the end, and which of them are asked for, from numbers in [0, 1)."""
        parts, answer = getattr(self, f"_{self.kind}")(drawn)
        rows = len(drawn)
        colon, end = torch.full((rows, 1), COLON), torch.full((rows, 1), NEWLINE)
        signs = torch.cat((*parts, colon, answer, end), dim=1)
        asked = torch.arange(signs.shape[1]) > sum(part.shape[1] for part in parts)
        asked = asked & (signs != NONE) & ((signs != NEWLINE) | (self.kind == "nesting"))
        order = (signs == NONE).int().argsort(dim=1, stable=True)  # the end stands right behind a shorter answer
        return signs.gather(1, order), asked.gather(1, order)

    def _letters(self, drawn: Tensor) -> Tensor:
        return (drawn[:, : self.length] * len(SMALL)).long()

    def _copy(self, drawn: Tensor) -> tuple[list[Tensor], Tensor]:
        return [self._letters(drawn)], self._letters(drawn)

    def _reverse(self, drawn: Tensor) -> tuple[list[Tensor], Tensor]:
        return [self._letters(drawn)], self._letters(drawn).flip(1)

    def _lookup(self, drawn: Tensor) -> tuple[list[Tensor], Tensor]:
        count = self.length // 2
        order = drawn[:, : len(SMALL)].argsort(dim=1)
        keys = order[:, :count]
        values = order.gather(1, count + (drawn[:, len(SMALL) : len(SMALL) + count] * (len(SMALL) - count)).long())
        chosen = (drawn[:, -1:] * count).long()
        pairs = torch.stack((keys, values), dim=2).flatten(1)
        return [pairs, torch.full_like(chosen, SPACE), keys.gather(1, chosen)], values.gather(1, chosen)

    def _nesting(self, drawn: Tensor) -> tuple[list[Tensor], Tensor]:
        opened, closes = self._letters(drawn), drawn[:, self.length : 2 * self.length] < CLOSES
        rows, depth = torch.arange(len(drawn)), torch.zeros(len(drawn), dtype=torch.long)
        stack, signs = torch.full((len(drawn), self.length), NONE), torch.empty_like(opened)
        for place in range(self.length):
            closing, last = closes[:, place] & (depth > 1), (depth - 1).clamp(min=0)  # one is left open
            signs[:, place] = torch.where(closing, stack[rows, last] + len(SMALL), opened[:, place])
            changed = torch.where(closing, last, depth)
            stack[rows, changed] = torch.where(closing, NONE, opened[:, place])
            depth = depth + torch.where(closing, -1, 1)
        answer = stack.flip(1)  # the empty places come first, and are moved behind the end
        return [signs], torch.where(answer == NONE, NONE, answer + len(SMALL))
