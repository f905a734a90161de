"""Sets of images with a label each: decoded once, gathered by the batch, augmented on the device."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError
from epochal.core.specs import Classes, Images, Inputs, Outputs
from epochal.data import cache, sources
from epochal.data.batching import Batch, BatchIndices
from epochal.data.datamodule import DataModule, count_of, stratified_order

PACKAGED = "package:"  # a path of this kind names a file beside this one


class ImageRows(Dataset[Batch]):
    """Rows of a uint8 array (N, C, H, W) and their labels."""

    def __init__(self, images: Tensor, labels: Tensor, rows: Tensor) -> None:
        self.images, self.labels, self.rows = images, labels, rows

    def __getitem__(self, batch: BatchIndices) -> Batch:
        index = self.rows[batch.numbers]
        # index_select copies whole images at a time, plain indexing byte by byte
        return Batch(self.images.index_select(0, index), self.labels.index_select(0, index), batch.seed)


class ImageData(DataModule):
    """Images of one shape in classes, from the Hub, a folder, or a `.npz` file with `images` and `labels`.

    Without a test split of its own, part of train becomes it; the same for validation. What is held out depends
    on `split_seed` alone, so that runs with unlike seeds are tested on the same images.

    Args:
        name, batch_size, eval_batch_size, seed: See `Data`.
        path: Id on the Hub, folder or file.
        config, revision: Which part and version of a set on the Hub.
        image_column, label_column: Guessed from the features where None.
        image_size: Side in pixels to which every image is resized and cropped; None keeps them, if they are alike.
        validation, test: Count or fraction of train to hold out where the set has no such split.
        train_size: Count or fraction of train to learn from, classes in proportion; None is all.
        split_seed: Decides which rows are held out and which are left.
        crop_padding: Pixels to pad before a random crop back to the size; 0 for none.
        flip: Mirror every second image.
        cutout: Side of a square to blank at a random place; 0 for none.
        permuted: Shuffle the pixels of every image in one and the same way, drawn from `split_seed`: all that an
            image says is kept, its shape is lost.
    """

    tasks: ClassVar = ("classification", "adversarial", "next_patch", "masked_patch")
    yields: ClassVar = Images

    def __init__(
        self,
        *,
        name: str,
        path: str | None,
        config: str | None = None,
        revision: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        image_size: int | None = None,
        validation: int | float = 0.1,
        test: int | float = 0.2,
        train_size: int | float | None = None,
        split_seed: int = 0,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        crop_padding: int = 0,
        flip: bool = False,
        cutout: int = 0,
        permuted: bool = False,
        seed: int = 1,
    ) -> None:
        super().__init__(name=name, batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed)
        self.path, self.config, self.revision = None if path is None else str(path), config, revision
        self.image_column, self.label_column, self.image_size = image_column, label_column, image_size
        self.validation, self.test, self.train_size, self.split_seed = validation, test, train_size, split_seed
        self.crop_padding, self.flip, self.cutout, self.permuted = crop_padding, flip, cutout, permuted
        self._adopted: tuple[Tensor, Tensor] | None = None  # another run's mean and deviation
        self.symmetric = False  # pixels from -1 to 1, as a GAN draws them, instead of mean 0 and deviation 1

    def prepare(self) -> None:
        if self.path and self.path.startswith(PACKAGED):
            file = Path(__file__).with_name(self.path.removeprefix(PACKAGED))
            source = sources.Source(self.name, self.path, None, None, file)
            key: dict[str, Any] = {"package": file.name, "bytes": file.stat().st_size}
        else:
            source = sources.locate(self.name, self.path, config=self.config, revision=self.revision)
            key = source.fingerprint()
        key |= {"image": self.image_column, "label": self.label_column, "size": self.image_size}
        if self.image_size and source.local is not None and source.local.suffix == ".npz":
            key["fitted"] = True  # caches made before these were brought to one size are not used
        folder = cache.cached(self.name, key, lambda building: decode(source, building, self))
        meta = cache.read_meta(folder)
        self.fingerprint = meta["fingerprint"]
        self.inputs = Images(*meta["shape"])
        self.classes = Classes(tuple(meta["classes"]))
        self._splits = self._split(
            {
                split: (
                    cache.read_array(folder / f"{split}_images.npy"),
                    cache.read_array(folder / f"{split}_labels.npy"),
                )
                for split in meta["splits"]
            }
        )
        self.normalise_by(self._splits["train"])
        pixels = self.inputs.height * self.inputs.width
        self._order = torch.randperm(pixels, generator=torch.Generator().manual_seed(self.split_seed))
        self.check_batch_size(len(self._splits["train"].rows))

    def normalise_by(self, train: ImageRows) -> None:
        """Takes the mean and the deviation of these images, or those of another run that were adopted."""
        self.mean, self.std = self._adopted or statistics(train)
        self._scale = (1 / (255 * self.std)).view(-1, 1, 1)
        self._shift = (-self.mean / self.std).view(-1, 1, 1)

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], task: str) -> list[tuple[Inputs, Outputs]]:
        size = config.get("image_size")
        sides = [size] if isinstance(size, int) and size > 0 else [32, 28, 64, 224, 8]
        images = [Images(3, side, side) for side in sides]
        return [(i, Classes(tuple(map(str, range(10)))) if task == "classification" else i) for i in images]

    def _split(self, arrays: dict[str, tuple[Tensor, Tensor]]) -> dict[str, ImageRows]:
        images, labels = arrays["train"]
        order = torch.from_numpy(stratified_order(labels.numpy(), self.split_seed))
        splits = {}
        for split, role, share in (("test", "test", self.test), ("val", "validation", self.validation)):
            if role in arrays:
                splits[split] = ImageRows(*arrays[role], torch.arange(len(arrays[role][1])))
            else:
                held = count_of(share, len(order) - 1, f"dataset.{role}")
                splits[split] = ImageRows(images, labels, order[:held].sort().values)
                order = order[held:]
        kept = count_of(self.train_size, len(order), "dataset.train_size")
        splits["train"] = ImageRows(images, labels, order[:kept].sort().values)
        return splits

    def specs(self, task: str) -> tuple[Inputs, Outputs]:
        return self.inputs, self.classes if task == "classification" else self.inputs

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        self._adopted = torch.tensor(state["mean"]), torch.tensor(state["std"])

    def rows(self, split: str) -> tuple[ImageRows, int]:
        rows = self._splits[split]
        return rows, len(rows.rows)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments and normalises the whole batch at once, on its device."""
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
        """uint8 pixels to the floats that a model reads, same shape."""
        if self.permuted:  # after the augmentation, so that a network blind to shape sees no difference
            self._order = self._order.to(images.device)
            images = images.flatten(2).index_select(2, self._order).view(images.shape)
        if self.symmetric:
            return images.to(torch.float32).div_(127.5).sub_(1)
        if self._scale.device != images.device:
            self._scale, self._shift = self._scale.to(images.device), self._shift.to(images.device)
        return images.to(torch.float32).mul_(self._scale).add_(self._shift)

    def pixels(self, inputs: Tensor) -> Tensor:
        """The uint8 pixels that a model's inputs (B, C, H, W) were made of, same shape, on the CPU."""
        pixels = inputs.float().cpu() * self.std.view(-1, 1, 1) + self.mean.view(-1, 1, 1)
        return (255 * pixels).round().clamp(0, 255).to(torch.uint8)


def augment(
    images: Tensor, seed: int, *, crop_padding: int, flip: bool, cutout: int, rank: int = 0, world: int = 1
) -> Tensor:
    """Random crop after padding with black, mirroring, and a blanked square, drawn anew for each image.

    Args:
        images: (B, C, H, W), this rank's part of the batch; not changed.
        seed: What is drawn depends on it alone.
        rank, world: Every rank draws for the whole batch and takes its part, so that more ranks draw the same.
    """
    count, _, height, width = images.shape
    device = images.device
    random = torch.Generator(device).manual_seed(seed)

    def draw(end: int) -> Tensor:
        return torch.randint(end, (count * world, 1), generator=random, device=device)[rank::world]

    if crop_padding:
        padded = F.pad(images, (crop_padding,) * 4)
        rows = draw(2 * crop_padding + 1) + torch.arange(height, device=device)  # (B, H)
        columns = draw(2 * crop_padding + 1) + torch.arange(width, device=device)  # (B, W)
        each = torch.arange(count, device=device)[:, None, None]
        # the channels come last out of this indexing, so one index takes a whole pixel
        images = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if flip:
        images = torch.where(draw(2)[:, :, None, None].bool(), images.flip(3), images)
    if cutout:
        rows = (torch.arange(height, device=device) - draw(height) + cutout // 2).clamp(-1, cutout)  # (B, H)
        columns = (torch.arange(width, device=device) - draw(width) + cutout // 2).clamp(-1, cutout)
        blank_rows, blank_columns = (rows >= 0) & (rows < cutout), (columns >= 0) & (columns < cutout)
        images = images.masked_fill((blank_rows[:, :, None] & blank_columns[:, None, :])[:, None], 0)
    return images


def decode(source: sources.Source, building: Path, data: ImageData) -> dict[str, Any]:
    """Writes `<split>_images.npy` and `<split>_labels.npy` and tells what they are."""
    if source.local is not None and source.local.suffix == ".npz":
        meta = _decode_npz(source.local, building, data)
    else:
        meta = _decode_splits(source, building, data)
    shape = np.load(building / "train_images.npy", mmap_mode="r").shape[1:]
    return {**meta, "shape": list(shape)}


def statistics(train: ImageRows) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, pixels from 0 to 1, of up to 10,000 evenly spaced training images."""
    rows = train.rows[:: max(1, len(train.rows) // 10_000)]
    images = train.images.index_select(0, rows).to(torch.float32).div_(255)  # (N, C, H, W)
    return images.mean((0, 2, 3)), images.std((0, 2, 3)).clamp_(min=1e-3)


def _decode_npz(file: Path, building: Path, data: ImageData) -> dict[str, Any]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            content = dict(archive)
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{file} is no .npz file of arrays, or it is damaged.") from error
    if missing := {"images", "labels"} - set(content):
        raise ConfigError(f"{file} has no array named {' or '.join(sorted(missing))}; it has: {', '.join(content)}.")
    images, labels = content["images"], content["labels"]
    images = images[:, None] if images.ndim == 3 else images
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[1] not in (1, 3)
        or labels.shape != (len(images),)
        or not np.issubdtype(labels.dtype, np.integer)
        or not len(images)
        or labels.min() < 0
    ):
        raise ConfigError(
            f"{file}: images must be uint8 (N, H, W) or (N, 1 or 3, H, W), with one label each, counted from 0."
        )
    count = int(labels.max()) + 1
    names = content["names"].tolist() if "names" in content else range(count)
    if len(names) < count:
        raise ConfigError(f"{file} names {len(names)} classes, but its labels go up to {count - 1}.")
    if data.image_size:
        images = np.stack([_fitted(image, data.image_size) for image in images])
    cache.create_array(building / "train_images.npy", images.shape, np.uint8)[:] = images
    cache.create_array(building / "train_labels.npy", labels.shape, np.int64)[:] = labels
    return {"splits": ["train"], "classes": [str(n) for n in names]}


def _fitted(pixels: np.ndarray, side: int) -> np.ndarray:  # (C, H, W) -> (C, side, side)
    from PIL import Image, ImageOps

    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    fitted = np.asarray(ImageOps.fit(image, (side, side)))
    return fitted[None] if fitted.ndim == 2 else fitted.transpose(2, 0, 1)


def _decode_splits(source: sources.Source, building: Path, data: ImageData) -> dict[str, Any]:
    import datasets

    splits = sources.open_splits(source, building / "scratch")
    features = splits["train"].features
    image_column = data.image_column or next((n for n, f in features.items() if isinstance(f, datasets.Image)), None)
    label_column = data.label_column or next(
        (n for n, f in features.items() if isinstance(f, datasets.ClassLabel)),
        next((n for n in ("label", "labels", "class", "target", "y") if n in features), None),
    )
    for option, column in (("image_column", image_column), ("label_column", label_column)):
        sources.check_column(source, option, column, list(features))
    assert image_column is not None and label_column is not None  # the check has refused None
    if not isinstance(features[image_column], datasets.Image):
        raise ConfigError(
            f"The column {image_column} of {source.path} holds no images; name the one that does by dataset.image_column."
        )
    # a test split without labels, marked by -1 as is the custom, is no use
    splits = {
        s: rows
        for s, rows in splits.items()
        if s == "train"
        or not isinstance(rows.features[label_column], datasets.ClassLabel)
        or min(rows[label_column]) >= 0
    }
    label_feature = features[label_column]
    if not isinstance(label_feature, datasets.ClassLabel) and not all(
        isinstance(value, int | str) for rows in splits.values() for value in rows[label_column]
    ):
        raise ConfigError(
            f"The column {label_column} of {source.path} does not hold one label for each image, a word or a whole "
            "number; name the one that does by dataset.label_column."
        )
    if isinstance(label_feature, datasets.ClassLabel):
        values, names = list(range(label_feature.num_classes)), list(label_feature.names)
    else:
        values = sorted(set(splits["train"][label_column]))
        names = [str(v) for v in values]
    number = {value: n for n, value in enumerate(values)}
    encoded = {s: rows.cast_column(image_column, datasets.Image(decode=False)) for s, rows in splits.items()}
    size, mode = common_shape(source, encoded, image_column, data)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split, rows in encoded.items():
            images = cache.create_array(
                building / f"{split}_images.npy", (len(rows), len(mode), size[1], size[0]), np.uint8
            )
            labels = cache.create_array(building / f"{split}_labels.npy", (len(rows),), np.int64)
            unknown = set(rows[label_column]) - set(values)
            if unknown:
                raise ConfigError(f"{source.path} has labels in {split} that train has not: {sorted(unknown)[:3]}.")
            labels[:] = [number[v] for v in rows[label_column]]

            def load(item: tuple[int, dict[str, Any]], split: str = split, images: np.ndarray = images) -> None:
                images[item[0]] = decode_one(source, split, item[0], item[1], size, mode)

            for _ in pool.map(load, enumerate(encoded_images(rows, image_column))):
                pass
            images.flush()  # type: ignore[attr-defined]  # np.memmap has it
    shutil.rmtree(building / "scratch", ignore_errors=True)
    return {"splits": list(encoded), "classes": names}


def encoded_images(rows: Any, column: str) -> Iterator[dict[str, Any]]:
    """The files' bytes or paths, without one Python object a row for the rest."""
    for table in rows.select_columns([column]).with_format("arrow").iter(1000):
        yield from table.column(column).to_pylist()


def common_shape(
    source: sources.Source, splits: dict[str, Any], column: str, data: ImageData
) -> tuple[tuple[int, int], str]:
    """Width and height of every image, and "L" or "RGB"; reads the files' heads only."""
    sizes, grey = set(), True
    for split, rows in splits.items():
        for number, item in enumerate(encoded_images(rows, column)):
            with _open(source, split, number, item) as image:
                sizes.add(image.size)
                grey = grey and image.mode in ("1", "L", "I;16", "I", "LA")
    if data.image_size:
        return (data.image_size, data.image_size), "L" if grey else "RGB"
    if len(sizes) > 1:
        raise ConfigError(
            f"The images of {source.path} are of {len(sizes):,} different sizes, from {min(sizes)} to {max(sizes)} pixels; "
            "give them one with dataset.image_size=64."
        )
    return sizes.pop(), "L" if grey else "RGB"


def _open(source: sources.Source, split: str, number: int, item: dict[str, Any]) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(item["bytes"]) if item["bytes"] is not None else item["path"])
    except (UnidentifiedImageError, OSError, TypeError) as error:
        raise _corrupted(source, split, number, item) from error


def decode_one(
    source: sources.Source, split: str, number: int, item: dict[str, Any], size: tuple[int, int], mode: str
) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with _open(source, split, number, item) as image:
            if image.mode in ("I;16", "I"):  # 16 bits a pixel, of which convert would keep the lower ones
                image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
            image = image.convert(mode)
            if image.size != size:
                image = ImageOps.fit(image, size)
            pixels = np.asarray(image)  # (H, W) or (H, W, 3)
    except (OSError, SyntaxError, ValueError) as error:
        raise _corrupted(source, split, number, item) from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _corrupted(source: sources.Source, split: str, number: int, item: dict[str, Any]) -> ConfigError:
    name = f" ({item['path']})" if item.get("path") else ""
    return ConfigError(
        f"Image {number} of {source.path}, split {split}{name}, cannot be decoded. Repair it or leave it out."
    )
