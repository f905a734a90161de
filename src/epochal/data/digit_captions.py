"""Strips of digits, captioned by the digits in words: captions that can be made anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.specs import BEGIN, END, PAD, UNKNOWN, Images, Inputs, Outputs, Tokens
from epochal.data import tokenizers
from epochal.data.batching import Batch, BatchIndices
from epochal.data.chance import uniform
from epochal.data.digits import MadeOfDigits

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FIRST = END + 1  # id of "zero"


class DigitWords:
    """The ids of the ten words."""

    def __len__(self) -> int:
        return FIRST + len(WORDS)

    def decode(self, ids: Iterable[int]) -> str:
        """Up to the END, separated by spaces, without padding."""
        words = []
        for token in map(int, ids):
            if token == END:
                break
            if token not in (PAD, BEGIN):
                words.append(WORDS[token - FIRST] if token != UNKNOWN else tokenizers.REPLACEMENT)
        return " ".join(words)


class DigitCaptions(MadeOfDigits):
    """Strips of one to `length` digits side by side, captioned by the digits in words: "three one seven".

    The strip begins anywhere, and each digit is moved a little, sideways and up or down. Captions of all rows are padded
    to one width.

    Args:
        name, batch_size, eval_batch_size, seed: See `Data`.
        source: "mnist" for strips 28 pixels high, or "digits", which ship with the package, for 8.
        length: Digits in a strip, at most; a strip is as wide as so many.
        train_size, validation, test, fresh, split_seed: See `Synthetic`; counted in strips.

    Raises:
        ConfigError: If there is no such source, or a size is no whole number or too small.
    """

    tasks: ClassVar = ("captioning",)
    yields: ClassVar = Images

    def __init__(
        self,
        *,
        name: str,
        source: str = "mnist",
        length: int = 5,
        train_size: int = 12_800,
        validation: int = 1_000,
        test: int = 2_000,
        fresh: bool = True,
        split_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 250,
        seed: int = 1,
    ) -> None:
        super().__init__(
            name=name,
            source=source,
            length=length,
            train_size=train_size,
            validation=validation,
            test=test,
            fresh=fresh,
            split_seed=split_seed,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
        )
        self.target_tokenizer = DigitWords()

    def specs(self, task: str) -> tuple[Inputs, Outputs]:
        return Images(1, self.side, self.side * self.length), Tokens(len(self.target_tokenizer), self.length + 2)

    def make(self, split: str, batch: BatchIndices) -> Batch:
        images, labels = self.digits[split]
        most, side = self.length, self.side
        drawn = uniform(self.chance(split, batch), batch.numbers, 3 * most + 2)
        count, start, which, closer, higher = drawn.split((1, 1, most, most, most), dim=1)
        count = (count * most).long() + 1  # (B, 1)
        image = (which * len(images)).long()  # (B, N)
        place = torch.arange(most)

        # a digit may come a fifth of its width too close to the one before it, where both are blank
        step = side - (closer * (side // 5 + 1)).long()
        step[:, 0] = 0
        left = step.cumsum(1)  # (B, N), from the first digit's
        room = most * side - left.gather(1, count - 1) - side  # (B, 1): what is left of the strip's width
        left += (start * (room + 1)).long()
        left = left.masked_fill(place >= count, most * side)
        x = torch.arange(most * side)
        owner = (x >= left[..., None] + (place[:, None] > 0) * (side // 10)).sum(1).sub_(1)  # (B, W): which digit's
        column = x - left.gather(1, owner.clamp(min=0))  # (B, W), in that digit
        inked = (owner >= 0) & (column >= 0) & (column < side)
        down = (higher * (2 * (side // 10) + 1)).long() - side // 10  # (B, N)
        row = torch.arange(side)[:, None] - down.gather(1, owner.clamp(min=0))[:, None]  # (B, H, W), in that digit
        inked = inked[:, None] & (row >= 0) & (row < side)
        first = image.gather(1, owner.clamp(min=0)) * side**2 + column  # of the pixel in the array of all digits
        strips = images.flatten().take((first[:, None] + row * side).masked_fill(~inked, 0)).masked_fill(~inked, 0)
        return Batch(strips[:, None], self._captions(FIRST + labels[image], count), batch.seed)

    def _captions(self, words: Tensor, count: Tensor) -> Tensor:  # (B, N), (B, 1) -> (B, N + 2)
        place = torch.arange(words.shape[1] + 1)
        ends = F.pad(words, (0, 1)).masked_fill(place == count, END).masked_fill(place > count, PAD)
        return F.pad(ends, (1, 0), value=BEGIN)

    def references(self, split: str) -> list[str]:
        """The captions, row by row, as text."""
        rows = BatchIndices(torch.arange(self._counts[split]), 0)
        return [self.target_tokenizer.decode(ids) for ids in self.make(split, rows).targets.tolist()]
