"""Synthetic videos of a handwritten digit that moves, bounces off the edges, changes, and is hidden at times."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from epochal.core.errors import ConfigError
from epochal.core.specs import Frames, Inputs, Outputs, StepLabels
from epochal.data.batching import Batch, BatchIndices
from epochal.data.counter_rng import integers, uniform
from epochal.data.datamodule import check_count
from epochal.data.digits import SOURCES, ComposedDigits

DIGIT = {"mnist": 14, "digits": 16}  # side of a digit in a frame: MNIST's halved, the packaged ones' doubled
FASTEST = 3  # pixels from frame to frame, in each direction
NOISE = 1 << 16  # pixels of the strip of noise that all hidden frames are cut from


class MovingDigits(ComposedDigits):
    """Videos of one moving digit; the label of each frame is the digit in it.

    Some frames show noise instead of the digit, so that only a model with memory can label them. The first frame is
    never hidden, and a digit does not change while it is hidden: every label can be inferred from the frames so far.

    Args:
        length: Frames of each video.
        size: Height and width of a frame in pixels.
        change: Probability in [0, 1) that a visible frame has a new image of a digit; in one of ten cases it is of the
            same class.
        hidden: Probability in [0, 1) that a frame, except the first, is hidden by noise.
        train_size, validation, test: See `Synthetic`.
        **options: See `ComposedDigits`; rows are videos.

    Raises:
        ConfigError: If the digit cannot move in a frame of this size, or a probability is not in [0, 1).
    """

    targets: ClassVar = ("step_classes",)
    yields: ClassVar = Frames
    unit: ClassVar = "videos"

    def __init__(
        self,
        *,
        length: int = 16,
        size: int = 32,
        change: float = 0.15,
        hidden: float = 0.25,
        train_size: int = 6_400,
        validation: int = 500,
        test: int = 1_000,
        **options: Any,
    ) -> None:
        super().__init__(length=length, train_size=train_size, validation=validation, test=test, **options)
        self.digit = DIGIT[self.source]
        check_count("size", size, self.digit + 1)  # one pixel more than the digit, which could not move otherwise
        for option, probability in (("change", change), ("hidden", hidden)):
            number = isinstance(probability, int | float) and not isinstance(probability, bool)
            if not number or not 0 <= probability < 1:
                raise ConfigError(
                    f"dataset.{option}={probability} must be a probability from 0 up to, not including, 1."
                )
        self.size, self.change, self.hidden = size, change, hidden

    def prepare(self) -> None:
        super().prepare()
        self._noise = integers(0, torch.zeros(1, dtype=torch.int64), NOISE, 256)[0].to(torch.uint8)

    def _digits(self, split: str) -> tuple[Tensor, Tensor]:
        images, labels = super()._digits(split)
        if self.digit > SOURCES[self.source].side:
            return images.repeat_interleave(2, 1).repeat_interleave(2, 2), labels
        quarters = [images[:, row::2, column::2].to(torch.int16) for row in (0, 1) for column in (0, 1)]
        return (sum(quarters[1:], quarters[0]) // 4).to(torch.uint8), labels  # means of 2x2 pixels

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        return Frames(self.length, 1, self.size, self.size), StepLabels(self.names)

    def make(self, split: str, batch: BatchIndices) -> Batch:
        images, labels = self.digits[split]
        videos, length, size = len(batch.rows), self.length, self.size
        drawn = uniform(self.draw_seed(split, batch), batch.rows, 4 * length + 4)
        start, speed, which, changes, hides, noise = drawn.split((2, 2, length, length, length, length), dim=1)

        hidden = hides < self.hidden  # (B, T)
        hidden[:, 0] = False
        changed = ((changes < self.change) & ~hidden)[:, 1:].cumsum(1)  # how often so far
        changed = torch.cat((changed.new_zeros(videos, 1), changed), dim=1)  # (B, T)
        image = (which.gather(1, changed) * len(images)).long()  # (B, T) number of the image in each frame

        room = size - self.digit
        path = start[:, None] * room + (2 * speed[:, None] - 1) * FASTEST * torch.arange(length)[:, None]  # (B, T, 2)
        place = (room - (path.remainder(2 * room) - room).abs()).round().long()  # bounces off 0 and room
        corner = (place[..., 0] * size + place[..., 1]).flatten() + torch.arange(videos * length) * size**2
        within = (torch.arange(self.digit)[:, None] * size + torch.arange(self.digit)).flatten()
        frames = torch.zeros(videos * length * size**2, dtype=torch.uint8)
        frames[(corner[:, None] + within).flatten()] = images.index_select(0, image.flatten()).flatten()

        frames = frames.view(videos, length, size**2)
        cut = (noise[hidden] * (NOISE - size**2)).long()  # where in the strip of noise each hidden frame begins
        frames[hidden] = self._noise[cut[:, None] + torch.arange(size**2)]
        return Batch(frames.view(videos, length, 1, size, size), labels[image], batch.seed)

    def frames(self, split: str, rows: Tensor) -> Tensor:
        """Pixels of the videos of these rows (N,): uint8 (N, T, 1, H, W)."""
        return self.make(split, BatchIndices(rows, self.fixed_seed(split))).inputs
