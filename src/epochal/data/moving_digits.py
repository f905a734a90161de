"""Films in which a handwritten digit moves, bounces off the walls, and becomes another one now and then."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from epochal.core.errors import ConfigError
from epochal.core.specs import Frames, Inputs, Outputs, StepLabels
from epochal.data.batching import Batch, BatchIndices
from epochal.data.chance import check_count, uniform, whole
from epochal.data.digits import SOURCES, MadeOfDigits

DIGIT = {"mnist": 14, "digits": 16}  # side of a digit in a film: MNIST's halved, the packaged ones doubled
FASTEST = 3  # pixels from frame to frame, in each direction
NOISE = 1 << 16  # numbers that the noise of all frames is cut from


class MovingDigits(MadeOfDigits):
    """Films of one moving digit each; the label of each frame is the digit in it.

    In some frames noise hides it: there only memory helps. It shows in the first frame and never becomes another one while
    it is hidden, so that all labels can be known. All films have `length` frames.

    Args:
        name, batch_size, eval_batch_size, seed: See `Data`.
        source: "mnist", or "digits", which ship with the package.
        length: Frames of a film.
        size: Side of a frame in pixels.
        change: How likely another image takes the digit's place in a frame where it shows; one in ten is of the same kind.
        hidden: Share of the frames, after the first, in which noise hides it.
        train_size, validation, test, fresh, split_seed: See `Synthetic`; counted in films.

    Raises:
        ConfigError: If there is no such source, a size is no whole number or too small, or a share is not in [0, 1).
    """

    tasks: ClassVar = ("sequence_labeling",)
    yields: ClassVar = Frames

    def __init__(
        self,
        *,
        name: str,
        source: str = "mnist",
        length: int = 16,
        size: int = 32,
        change: float = 0.15,
        hidden: float = 0.25,
        train_size: int = 6_400,
        validation: int = 500,
        test: int = 1_000,
        fresh: bool = True,
        split_seed: int = 0,
        batch_size: int = 32,
        eval_batch_size: int = 100,
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
        self.digit = DIGIT[source]
        check_count("size", size, self.digit + 1)  # else it could not move
        for option, share in (("change", change), ("hidden", hidden)):
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
                raise ConfigError(f"dataset.{option}={share} must be a share from 0 up to, not including, 1.")
        self.size, self.change, self.hidden = size, change, hidden

    def prepare(self) -> None:
        super().prepare()
        self._noise = whole(0, torch.zeros(1, dtype=torch.int64), NOISE, 256)[0].to(torch.uint8)

    def _digits(self, split: str) -> tuple[Tensor, Tensor]:
        images, labels = super()._digits(split)
        if self.digit > SOURCES[self.source].side:
            return images.repeat_interleave(2, 1).repeat_interleave(2, 2), labels
        fours = [images[:, row::2, column::2].to(torch.int16) for row in (0, 1) for column in (0, 1)]
        return (sum(fours[1:], fours[0]) // 4).to(torch.uint8), labels

    def specs(self, task: str) -> tuple[Inputs, Outputs]:
        return Frames(self.length, 1, self.size, self.size), StepLabels(self.names)

    def make(self, split: str, batch: BatchIndices) -> Batch:
        images, labels = self.digits[split]
        films, length, size = len(batch.numbers), self.length, self.size
        drawn = uniform(self.chance(split, batch), batch.numbers, 4 * length + 4)
        start, speed, *rest = drawn.split((2, 2, *[length] * 4), dim=1)
        which, changes, hides, noise = rest  # (B, T) each

        hidden = hides < self.hidden
        hidden[:, 0] = False
        scene = ((changes < self.change) & ~hidden)[:, 1:].cumsum(1)  # how many digits there were before
        scene = torch.cat((scene.new_zeros(films, 1), scene), dim=1)  # (B, T)
        image = (which.gather(1, scene) * len(images)).long()  # (B, T)

        room = size - self.digit
        path = start[:, None] * room + (2 * speed[:, None] - 1) * FASTEST * torch.arange(length)[:, None]  # (B, T, 2)
        place = (room - (path.remainder(2 * room) - room).abs()).round().long()  # bounces off 0 and room
        corner = (place[..., 0] * size + place[..., 1]).flatten() + torch.arange(films * length) * size**2
        within = (torch.arange(self.digit)[:, None] * size + torch.arange(self.digit)).flatten()
        frames = torch.zeros(films * length * size**2, dtype=torch.uint8)
        frames[(corner[:, None] + within).flatten()] = images.index_select(0, image.flatten()).flatten()

        frames = frames.view(films, length, size**2)
        cut = (noise[hidden] * (NOISE - size**2)).long()  # where in the noise a frame's begins
        frames[hidden] = self._noise[cut[:, None] + torch.arange(size**2)]
        return Batch(frames.view(films, length, 1, size, size), labels[image], batch.seed)

    def frames(self, split: str, rows: Tensor) -> Tensor:
        """The films of these rows as pixels, uint8 (N, T, 1, H, W)."""
        return self.make(split, BatchIndices(rows, self.split_chance(split))).inputs
