"""Images: read from the cache, gathered by the batch, augmented and normalised on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError
from epochal.core.specs import Classes, ImageRange, Images, Inputs, Outputs
from epochal.data import cache, pictures, sources
from epochal.data.batching import Batch, BatchIndices
from epochal.data.image_decoding import decode_labelled, to_pixels
from epochal.data.stored import StoredExamples, stratified_order

PACKAGED = "package:"  # a path that begins like this names a file in the folder of this module
AT_ONCE = 2**28  # bytes of floats that statistics are taken of at once; larger sets are counted in parts


class ImageRows(Dataset[Batch]):
    """Some rows (M,) of the images, uint8 (N, C, H, W), with their labels (N,)."""

    def __init__(self, images: Tensor, labels: Tensor, rows: Tensor) -> None:
        self.images, self.labels, self.rows = images, labels, rows

    def __getitem__(self, batch: BatchIndices) -> Batch:
        index = self.rows[batch.rows]
        return Batch(cache.gather(self.images, index), self.labels.index_select(0, index), batch.seed)


class StoredImages(StoredExamples):
    """Images of one shape, normalised and augmented on the device; a subclass adds the targets.

    Args:
        image_column: The column with the images; None: the first that holds images.
        image_size: Height and width in pixels, to which all images are resized and cropped; None keeps their size,
            which must be the same for all.
        background: The colour that transparent images are laid on, by its name in CSS, or "#rrggbb".
        crop_padding: Augmentation: black pixels to pad on each side before a random crop to the old size; 0 for none.
        flip: Augmentation: mirror images left to right with probability 1/2.
        cutout: Augmentation: side in pixels of a square at a random place to fill with black; 0 for none.
        **options: See `StoredExamples`.

    Raises:
        ConfigError: If there is no such colour.
    """

    yields: ClassVar = Images
    unit: ClassVar = "images"
    inputs: Images  # set by `prepare`

    def __init__(
        self,
        *,
        image_column: str | None = None,
        image_size: int | None = None,
        background: str = pictures.WHITE,
        crop_padding: int = 0,
        flip: bool = False,
        cutout: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        pictures.check_color("dataset.background", background)
        self.image_column, self.image_size, self.background = image_column, image_size, background
        self.crop_padding, self.flip, self.cutout = crop_padding, flip, cutout
        self.image_range: ImageRange = "normalised"
        self._loaded_statistics: tuple[Tensor, Tensor] | None = None  # mean and std, see `load_state`

    def use_image_range(self, image_range: ImageRange) -> None:
        self.image_range = image_range

    def fit_normalisation(self, train: ImageRows, folder: Path) -> None:
        """Sets the mean and standard deviation to those of the training images, or to those of `load_state`.

        They are computed once and kept in the folder of the cache that the images are in.
        """
        if self._loaded_statistics is not None:
            return self._normalise_by(*self._loaded_statistics)
        rows = hashlib.sha256(train.rows.numpy().tobytes()).hexdigest()[:16]
        kept = cache.remembered(
            folder, f"statistics of {rows}", lambda: [values.tolist() for values in statistics(train)]
        )
        self._normalise_by(*map(torch.tensor, kept))

    def _normalise_by(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean, std
        self._scale = (1 / (255 * self.std)).view(-1, 1, 1)
        self._shift = (-self.mean / self.std).view(-1, 1, 1)

    @classmethod
    def example_images(cls, config: Mapping[str, Any]) -> list[Images]:
        """Plausible input specs, see `example_specs`."""
        size = config.get("image_size")
        sides = [size] if isinstance(size, int) and size > 0 else [32, 28, 64, 224, 8]
        return [Images(3, side, side) for side in sides]

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        self._loaded_statistics = torch.tensor(state["mean"]), torch.tensor(state["std"])

    def restore(self, inputs: Inputs, outputs: Outputs) -> None:
        assert isinstance(inputs, Images) and self._loaded_statistics is not None
        self.inputs = inputs
        self._normalise_by(*self._loaded_statistics)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments (in training) and normalises the whole batch at once, on its device."""
        images = batch.inputs  # (B, C, H, W) uint8
        if self.trainer is not None and self.trainer.training:
            images = augment(
                images,
                batch.seed,
                crop_padding=self.crop_padding,
                flip=self.flip,
                cutout=self.cutout,
                rank=self.trainer.global_rank,
                world=self.trainer.world_size,
            )
        return Batch(self.normalise(images), batch.targets, batch.seed)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 pixels (..., C, H, W) to the floats that a model reads, same shape; see `use_image_range`."""
        if self.image_range == "symmetric":
            return images.to(torch.float32).div_(127.5).sub_(1).to(self.dtype)
        if self._scale.device != images.device:
            self._scale, self._shift = self._scale.to(images.device), self._shift.to(images.device)
        return images.to(torch.float32).mul_(self._scale).add_(self._shift).to(self.dtype)

    def pixels(self, inputs: Tensor) -> Tensor:
        """The inverse of the normalisation: a model's inputs (..., C, H, W) to uint8 pixels, same shape, on the CPU."""
        inputs = inputs.float().cpu()
        if self.image_range == "symmetric":
            pixels = (inputs + 1) / 2
        else:
            pixels = inputs * self.std.view(-1, 1, 1) + self.mean.view(-1, 1, 1)
        return (255 * pixels).round().clamp(0, 255).to(torch.uint8)


class ImageData(StoredImages):
    """Images with a class each, from the Hub, a folder, or an `.npz` file with the arrays `images` and `labels`.

    Held-out rows and those of a smaller `train_size` have the classes in the proportions of the training split.

    Args:
        label_column: The column with the classes; None: the first of type ClassLabel, or one of a usual name.
        test: See `StoredData`.
        permuted: Shuffle the pixels of every image in the same way, drawn from `split_seed`, after the augmentation:
            keeps the information in an image and destroys its spatial structure.
        skip_broken: Leave out images that cannot be decoded, and say which; False: they are an error.
        **options: See `StoredImages`.
    """

    targets: ClassVar = ("classes", "images")

    def __init__(
        self,
        *,
        label_column: str | None = None,
        test: int | float = 0.2,
        permuted: bool = False,
        skip_broken: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(test=test, **options)
        self.label_column, self.permuted, self.skip_broken = label_column, permuted, skip_broken
        self.span: tuple[float, float] | None = None  # black and white of images with more than 8 bits a channel

    def prepare(self) -> None:
        folder = self._decoded()
        meta = cache.read_meta(folder)
        self.fingerprint = meta["fingerprint"]
        self.inputs = Images(*meta["shape"])
        self.span = tuple(meta["span"]) if "span" in meta else None
        self.classes = Classes(tuple(meta["classes"]))
        if self.learns == "classes" and self.classes.count < 2:
            raise ConfigError(f"All images of {self.path} have the same label: there is nothing to tell apart.")
        arrays = {
            role: (cache.read_array(folder / f"{role}_images.npy"), cache.read_array(folder / f"{role}_labels.npy"))
            for role in meta["splits"]
        }
        order = stratified_order(arrays["train"][1].numpy(), self.split_seed)
        splits = self.split_rows({role: len(labels) for role, (_, labels) in arrays.items()}, order)
        self._splits = {s: ImageRows(*arrays[role], torch.from_numpy(rows)) for s, (role, rows) in splits.items()}
        self.fit_normalisation(self._splits["train"], folder)
        self._draw_order()
        self.check_batch_size(len(self._splits["train"].rows))

    def check_typed(self, typed: Set[str]) -> None:
        if self.path is None or self.path.startswith(PACKAGED):
            return
        super().check_typed(typed)
        if self.locate().path.endswith(".npz") and (columns := sorted(typed & {"image_column", "label_column"})):
            raise ConfigError(
                f"dataset.{columns[0]} is of tables, and {self.path} holds the arrays images and labels: leave it out."
            )

    def _draw_order(self) -> None:
        """Sets the order of the pixels of `permuted` images."""
        pixels = self.inputs.height * self.inputs.width
        self._order = torch.randperm(pixels, generator=torch.Generator().manual_seed(self.split_seed))

    def _decoded(self) -> Path:
        """The folder of the cache with the arrays of the source."""
        key: dict[str, Any]
        if self.path and self.path.startswith(PACKAGED):
            file = Path(__file__).with_name(self.path.removeprefix(PACKAGED))
            source = sources.Source(self.name, self.path, None, None, file)
            key = {"package": file.name, "bytes": file.stat().st_size}
        else:
            source = self.locate()
            key = source.fingerprint()
        key |= {"image": self.image_column, "label": self.label_column, "size": self.image_size}
        if self.image_size and source.local is not None and source.local.suffix == ".npz":
            key["fitted"] = True  # not in caches of an older version, which ignored image_size here
        if self.skip_broken:
            key["skip_broken"] = True
        if self.background != pictures.WHITE:
            key["background"] = self.background
        return cache.cached(
            self.name,
            key,
            lambda folder: decode_labelled(
                source,
                folder,
                image_column=self.image_column,
                label_column=self.label_column,
                image_size=self.image_size,
                skip_broken=self.skip_broken,
                background=self.background,
            ),
        )

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], target: str) -> list[tuple[Inputs, Outputs]]:
        classes = Classes(tuple(map(str, range(10))))
        return [
            (images, classes if target == "classes" else replace(images, classes=classes.count))
            for images in cls.example_images(config)
        ]

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        return self.inputs, self.classes if target == "classes" else replace(self.inputs, classes=self.classes.count)

    def state(self) -> dict[str, Any]:
        return {**super().state(), **({"span": self.span} if self.span else {})}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.span = state.get("span")

    def restore(self, inputs: Inputs, outputs: Outputs) -> None:
        super().restore(inputs, outputs)
        if isinstance(outputs, Classes):
            self.classes = outputs
        self._draw_order()

    def encode(self, examples: Sequence[Any]) -> tuple[Tensor, None]:
        images = [to_pixels(example, self.inputs, self.span, self.background) for example in examples]
        return self.normalise(torch.from_numpy(np.stack(images))), None

    def rows(self, split: str) -> tuple[ImageRows, int]:
        rows = self._splits[split]
        return rows, len(rows.rows)

    def normalise(self, images: Tensor) -> Tensor:
        if self.permuted:  # after the augmentation, whose crops and flips depend on the spatial structure
            self._order = self._order.to(images.device)
            images = images.flatten(2).index_select(2, self._order).view(images.shape)
        return super().normalise(images)


def augment(
    images: Tensor, seed: int, *, crop_padding: int, flip: bool, cutout: int, rank: int = 0, world: int = 1
) -> Tensor:
    """Random crop after padding, random mirroring, and cutout, drawn for each image.

    DeVries, Taylor: Improved Regularization of Convolutional Neural Networks with Cutout, 2017 (arXiv 1708.04552).

    Args:
        images: (B, C, H, W), this rank's part of the batch; not changed.
        seed: The random numbers depend on it alone.
        crop_padding, flip, cutout: See `StoredImages`.
        rank, world: Each rank draws for the global batch and takes its part, so that world does not change the result.

    Returns:
        Images of the same shape.
    """
    count, _, height, width = images.shape
    device = images.device
    random = torch.Generator(device).manual_seed(seed)

    def draw(end: int) -> Tensor:  # (B, 1) in [0, end)
        return torch.randint(end, (count * world, 1), generator=random, device=device)[rank::world]

    if crop_padding:
        padded = F.pad(images, (crop_padding,) * 4)
        rows = draw(2 * crop_padding + 1) + torch.arange(height, device=device)  # (B, H)
        columns = draw(2 * crop_padding + 1) + torch.arange(width, device=device)  # (B, W)
        each = torch.arange(count, device=device)[:, None, None]
        # channels last, so that one index takes a whole pixel
        images = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if flip:
        images = torch.where(draw(2)[:, :, None, None].bool(), images.flip(3), images)
    if cutout:
        rows = (torch.arange(height, device=device) - draw(height) + cutout // 2).clamp(-1, cutout)  # (B, H)
        columns = (torch.arange(width, device=device) - draw(width) + cutout // 2).clamp(-1, cutout)  # (B, W)
        blank_rows, blank_columns = (rows >= 0) & (rows < cutout), (columns >= 0) & (columns < cutout)
        images = images.masked_fill((blank_rows[:, :, None] & blank_columns[:, None, :])[:, None], 0)
    return images


def statistics(train: ImageRows) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of each channel, of pixels in [0, 1].

    Taken over evenly spaced training images, every k-th for the k that leaves 10,000 or somewhat more.
    """
    rows = train.rows[:: max(1, len(train.rows) // 10_000)]
    each = train.images[0].numel()
    if 4 * each * len(rows) > AT_ONCE:
        return _counted_statistics(train.images, rows.split(max(1, AT_ONCE // (16 * each))))
    images = train.images.index_select(0, rows).to(torch.float32).div_(255)  # (N, C, H, W)
    return images.mean((0, 2, 3)), images.std((0, 2, 3)).clamp_(min=1e-3)


def _counted_statistics(images: Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """As `statistics`, of the rows of all parts together, from how often each of the 256 values occurs."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
    for rows in parts:
        for count, channel in zip(counts, cache.gather(images, rows).unbind(1)):  # channel: (N, H, W)
            count += torch.bincount(channel.flatten(), minlength=256)
    values, total = torch.arange(256, dtype=torch.float64) / 255, counts.sum(1)
    mean = counts @ values / total
    std = ((counts * (values - mean[:, None]) ** 2).sum(1) / (total - 1)).sqrt()
    return mean.float(), std.float().clamp_(min=1e-3)
