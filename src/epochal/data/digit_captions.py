"""Strips of digits with a caption that names them: synthetic image captions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.specs import BEGIN, END, PAD, UNKNOWN, Images, Inputs, Outputs, Tokens
from epochal.data import tokenizers
from epochal.data.batching import Batch, BatchIndices
from epochal.data.counter_rng import uniform
from epochal.data.digits import ComposedDigits

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FIRST = END + 1  # id of "zero"


class DigitWords:
    """The vocabulary of the ten words."""

    def __len__(self) -> int:
        return FIRST + len(WORDS)

    def decode(self, ids: Iterable[int]) -> str:
        """The words up to END, separated by spaces, without PAD and BEGIN."""
        words = []
        for token in map(int, ids):
            if token == END:
                break
            if token not in (PAD, BEGIN):
                words.append(WORDS[token - FIRST] if token != UNKNOWN else tokenizers.REPLACEMENT)
        return " ".join(words)


class DigitCaptions(ComposedDigits):
    """Strips of one to `length` digits side by side, with the digits in words as the caption: "three one seven".

    The first digit is at a random place, and each is shifted at random by up to a tenth of its size up or down and up
    to a fifth to the left. Captions are padded to one width.

    Args:
        length: Most digits in a strip. All strips are as wide as this many.
        test: Strips to test on.
        **options: See `ComposedDigits`; rows are strips. With source="mnist" they are 28 pixels high, with "digits" 8.
    """

    targets: ClassVar = ("captions",)
    yields: ClassVar = Images
    unit: ClassVar = "images"

    def __init__(self, *, length: int = 5, test: int = 2_000, **options: Any) -> None:
        super().__init__(length=length, test=test, **options)
        self.target_tokenizer = DigitWords()

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        return Images(1, self.side, self.side * self.length), Tokens(len(self.target_tokenizer), self.length + 2)

    def make(self, split: str, batch: BatchIndices) -> Batch:
        images, labels = self.digits[split]
        longest = self.length
        drawn = uniform(self.draw_seed(split, batch), batch.rows, 3 * longest + 2)
        count, start, which, closer, higher = drawn.split((1, 1, longest, longest, longest), dim=1)
        count = (count * longest).long() + 1  # (B, 1) digits in each strip
        image = (which * len(images)).long()  # (B, N) number of each digit's image
        left, top = self._positions(count, start, closer, higher)
        strips = self._compose(images, image, left, top)
        return Batch(strips[:, None], self._captions(FIRST + labels[image], count), batch.seed)

    def _positions(self, count: Tensor, start: Tensor, closer: Tensor, higher: Tensor) -> tuple[Tensor, Tensor]:
        """The left and top edge of each digit in pixels, (B, N) both; digits after the last one are outside the strip.

        Args:
            count: (B, 1) digits in each strip.
            start: (B, 1) in [0, 1), the place of the first digit in the room that is left.
            closer, higher: (B, N) in [0, 1), horizontal and vertical shift of each digit.
        """
        longest, side = self.length, self.side
        # a digit may overlap the one before it by a fifth of its width, where both are usually blank
        step = side - (closer * (side // 5 + 1)).long()
        step[:, 0] = 0
        left = step.cumsum(1)  # (B, N) relative to the first digit
        room = longest * side - left.gather(1, count - 1) - side  # (B, 1) of the strip's width that is left
        left += (start * (room + 1)).long()
        left = left.masked_fill(torch.arange(longest) >= count, longest * side)
        return left, (higher * (2 * (side // 10) + 1)).long() - side // 10

    def _compose(self, images: Tensor, image: Tensor, left: Tensor, top: Tensor) -> Tensor:
        """Strips (B, H, W) uint8 in which each digit (B, N) has its left and top edge at the given pixels."""
        longest, side = self.length, self.side
        x = torch.arange(longest * side)
        margin = (torch.arange(longest)[:, None] > 0) * (side // 10)  # (N, 1): an overlap is divided near its middle
        owner = (x >= left[..., None] + margin).sum(1).sub_(1)  # (B, W) the digit in each column; -1: none
        column = x - left.gather(1, owner.clamp(min=0))  # (B, W) within that digit
        inside = (owner >= 0) & (column >= 0) & (column < side)
        row = torch.arange(side)[:, None] - top.gather(1, owner.clamp(min=0))[:, None]  # (B, H, W) within that digit
        inside = inside[:, None] & (row >= 0) & (row < side)
        first = image.gather(1, owner.clamp(min=0)) * side**2 + column  # (B, W) index into all pixels of all images
        return images.flatten().take((first[:, None] + row * side).masked_fill(~inside, 0)).masked_fill(~inside, 0)

    def _captions(self, words: Tensor, count: Tensor) -> Tensor:  # (B, N), (B, 1) -> (B, N + 2)
        place = torch.arange(words.shape[1] + 1)
        ends = F.pad(words, (0, 1)).masked_fill(place == count, END).masked_fill(place > count, PAD)
        return F.pad(ends, (1, 0), value=BEGIN)

    def references(self, split: str) -> list[str]:
        """The captions, row by row, as text."""
        rows = BatchIndices(torch.arange(self._counts[split]), 0)
        return [self.target_tokenizer.decode(ids) for ids in self.make(split, rows).targets.tolist()]
