"""What data sets composed of handwritten digits have in common: where the digits come from, and their normalisation."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from epochal.core.errors import ConfigError
from epochal.data.batching import Batch
from epochal.data.datamodule import SPLITS
from epochal.data.images import PACKAGED, ImageData
from epochal.data.synthetic import Synthetic


class Source(NamedTuple):
    """A set of grey, square images of digits."""

    path: str
    side: int  # in pixels


SOURCES = {"mnist": Source("ylecun/mnist", 28), "digits": Source(f"{PACKAGED}digits.npz", 8)}


class ComposedDigits(Synthetic):
    """Synthetic rows composed of images of digits. Each split has digits of its own: test rows are made of test images,
    and validation rows of images held out of the training images.

    Args:
        source: "mnist", or "digits", which ships with the package.
        **options: See `Synthetic`.

    Raises:
        ConfigError: If there is no such source.
    """

    names: ClassVar = tuple("0123456789")

    def __init__(self, *, source: str = "mnist", **options: Any) -> None:
        super().__init__(**options)
        if source not in SOURCES:
            raise ConfigError(f"dataset.source={source} is no source of digits. There are: {' '.join(SOURCES)}")
        self.source, self.side = source, SOURCES[source].side
        self._images = ImageData(name=source, path=SOURCES[source].path, split_seed=self.split_seed, batch_size=1)

    def prepare(self) -> None:
        super().prepare()
        try:
            self._images.prepare()
        except ConfigError as error:
            raise ConfigError(
                f"dataset={self.name} is made of the images of {self.source}. {error} "
                "dataset.source=digits takes those of the package."
            ) from error
        self.fingerprint = f"{self.fingerprint[:8]}{self._images.fingerprint[:8]}"
        self.digits = {split: self._digits(split) for split in SPLITS}

    def _digits(self, split: str) -> tuple[Tensor, Tensor]:
        """Images (N, H, W) uint8 and labels (N,)."""
        rows, _ = self._images.rows(split)
        return rows.images.index_select(0, rows.rows)[:, 0], rows.labels[rows.rows]

    def state(self) -> dict[str, Any]:
        return self._images.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self._images.load_state(state)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch._replace(inputs=self.normalise(batch.inputs))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 pixels (..., 1, H, W) to a model's inputs, by mean and standard deviation of the digits."""
        return self._images.normalise(images).to(self.dtype)

    def pixels(self, inputs: Tensor) -> Tensor:
        """The inverse of `normalise`: uint8 pixels of the same shape, on the CPU."""
        return self._images.pixels(inputs)
