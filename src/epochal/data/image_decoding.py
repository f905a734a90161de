"""From image files and their labels to the arrays of the cache.

A role is a split as the source has it: "train", "validation" or "test". An item is one encoded image as `datasets`
stores it, a dict with "bytes" or, if they are None, "path".
"""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from epochal.core.errors import ConfigError
from epochal.core.format import say
from epochal.core.specs import Images
from epochal.data import cache, pictures, sources, tables

LABEL_COLUMNS = ("label", "labels", "class", "target", "y")
WAITING = 8  # encoded images in memory for each core, at most
MOST_CLASSES = 100_000  # that labels without names stand for, where there are fewer images
BLOCK = 2**24  # bytes of pixels that are copied at once


class _BrokenImageError(ConfigError):
    """An image that cannot be decoded."""


def decode_labelled(
    source: sources.Source,
    building: Path,
    *,
    image_column: str | None,
    label_column: str | None,
    image_size: int | None,
    skip_broken: bool = False,
    background: str = pictures.WHITE,
) -> dict[str, Any]:
    """Writes `<role>_images.npy`, uint8 (N, C, H, W), and `<role>_labels.npy`, int64 (N,).

    Returns:
        "splits": the roles; "classes": their names; "shape": [C, H, W]; "span": see `survey`, if there is one.

    Raises:
        ConfigError: If the source is not a set of images with a label each.
    """
    if source.local is not None and source.local.suffix == ".npz":
        meta = _decode_npz(source.local, building, image_size)
    else:
        with offering_to_skip():
            meta = _decode_splits(source, building, image_column, label_column, image_size, skip_broken, background)
    shape = np.load(building / "train_images.npy", mmap_mode="r").shape[1:]
    return {**meta, "shape": list(shape)}


@contextmanager
def offering_to_skip() -> Iterator[None]:
    """Adds to the error of an image that cannot be decoded how to leave it out."""
    try:
        yield
    except _BrokenImageError as error:
        raise ConfigError(f"{error} dataset.skip_broken=true leaves out all such images.") from error


def _decode_npz(file: Path, building: Path, image_size: int | None) -> dict[str, Any]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files if name != "images"}
            names = archive.files
        if missing := {"images", "labels"} - set(names):
            raise ConfigError(f"{file} has no array named {' or '.join(sorted(missing))}; it has: {', '.join(names)}.")
        with _stored_images(file) as (shape, dtype, blocks):
            if not _are_images(shape, dtype) or not _are_labels(content["labels"], shape[0]):
                raise ConfigError(
                    f"{file}: images must be uint8 (N, H, W) or (N, 1 or 3, H, W), with one label each, counted from 0."
                )
            found = _npz_meta(file, content)
            sides = (image_size, image_size) if image_size else shape[-2:]
            channels = shape[1] if len(shape) == 4 else 1
            images = cache.create_array(building / "train_images.npy", (shape[0], channels, *sides), np.uint8)
            end = 0
            for block in blocks:
                start, end = end, end + len(block)
                block = block.reshape(len(block), channels, *shape[-2:])
                images[start:end] = [_fit(image, image_size) for image in block] if image_size else block
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # `cache.cached` says that the disk is full
        raise ConfigError(f"{file} is no .npz file of arrays, or it is damaged.") from error
    cache.create_array(building / "train_labels.npy", content["labels"].shape, np.int64)[:] = content["labels"]
    return found


@contextmanager
def _stored_images(file: Path) -> Iterator[tuple[tuple[int, ...], np.dtype, Iterator[np.ndarray]]]:
    """Shape and type of the array `images` of an .npz file, and its rows, some at a time: it may be larger than memory."""
    with np.load(file, allow_pickle=False) as archive, archive.zip.open("images.npy") as stream:
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, by_column, dtype = read.get(np.lib.format.read_magic(stream), lambda _: ((), True, None))(stream)
        if by_column or not shape or dtype != np.uint8:
            whole = archive["images"]
            yield whole.shape, whole.dtype, iter([whole])
            return
        each = int(np.prod(shape[1:]))
        rows = max(1, BLOCK // max(each, 1))

        def blocks() -> Iterator[np.ndarray]:
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                yield np.frombuffer(stream.read(count * each), np.uint8).reshape(count, *shape[1:])
            stream.read()  # compares the checksum

        yield shape, dtype, blocks()


def _npz_meta(file: Path, content: dict[str, np.ndarray]) -> dict[str, Any]:
    """Roles and names of classes, from the arrays beside the images."""
    count = int(content["labels"].max()) + 1
    if "names" not in content and count > max(MOST_CLASSES, len(content["labels"])):
        raise ConfigError(f"{file} has labels up to {count - 1}; they must be numbers of classes, counted from 0.")
    names = content["names"].tolist() if "names" in content else range(count)
    if len(names) < count:
        raise ConfigError(f"{file} names {len(names)} classes, but its labels go up to {count - 1}.")
    return {"splits": ["train"], "classes": [str(n) for n in names]}


def _are_images(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return dtype == np.uint8 and len(shape) in (3, 4) and shape[0] > 0 and (len(shape) == 3 or shape[1] in (1, 3))


def _are_labels(labels: np.ndarray, count: int) -> bool:
    return labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer) and bool(labels.min() >= 0)


def _fit(pixels: np.ndarray, side: int) -> np.ndarray:  # (C, H, W) -> (C, side, side)
    from PIL import Image

    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    return _fitted(image, (side, side))


def _channels_first(pixels: np.ndarray) -> np.ndarray:  # (H, W) or (H, W, 3) -> (C, H, W)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _decode_splits(
    source: sources.Source,
    building: Path,
    image_column: str | None,
    label_column: str | None,
    image_size: int | None,
    skip_broken: bool,
    background: str,
) -> dict[str, Any]:
    import datasets

    splits = tables.open_splits(source, building / "scratch")
    features = splits["train"].features
    image_column = find_image_column(source, features, image_column)
    label_column = sources.find_label_column(source, features, label_column, LABEL_COLUMNS)
    splits = {role: rows.cast_column(image_column, datasets.Image(decode=False)) for role, rows in splits.items()}
    if skip_broken:
        splits = {role: rows.select(readable(source, role, rows, image_column)) for role, rows in splits.items()}
    values = {role: sources.whole_labels(list(rows[label_column])) for role, rows in splits.items()}
    if isinstance(features[label_column], datasets.ClassLabel):  # -1 marks a test split without labels
        values = {r: v for r, v in values.items() if r == "train" or not all(n is None or n < 0 for n in v)}
    for role, found in values.items():
        _check_marked(source, role, found)
    if not all(isinstance(value, int | str) for role in values for value in values[role]):
        raise ConfigError(
            f"The column {label_column} of {source.path} does not hold one label for each image, a word or a whole "
            "number; name the one that does by dataset.label_column."
        )
    labels, names = sources.encode_labels(source, features[label_column], values)
    encoded = {role: splits[role] for role in values}
    size, mode, span = survey(source, encoded, image_column, image_size)
    for role, rows in encoded.items():
        decode_all(source, role, rows, image_column, building / f"{role}_images.npy", size, mode, span, background)
        cache.create_array(building / f"{role}_labels.npy", (len(rows),), np.int64)[:] = labels[role]
    shutil.rmtree(building / "scratch", ignore_errors=True)
    return {"splits": list(encoded), "classes": names, **({"span": span} if span else {})}


def _check_marked(source: sources.Source, role: str, labels: list[Any]) -> None:
    """Refuses -1 among labels that count from 0: it marks an image without a label."""
    if -1 in labels and 0 in labels:
        raise ConfigError(
            f"Image {labels.index(-1)} of {source.path}, split {role}, has the label -1, which marks an image without "
            "a label. Leave it out; if -1 is a class, write the labels as words."
        )


def readable(source: sources.Source, role: str, rows: Any, column: str) -> list[int]:
    """The numbers of the rows whose images can be decoded; says which cannot.

    Raises:
        ConfigError: If none can.
    """
    faults: dict[int, str] = {}

    def read(number: int, item: dict[str, Any]) -> None:
        try:
            with _reading(source, role, number, item), _open(item) as image:
                pictures.plain(image, "RGB")
        except _BrokenImageError as error:
            faults[number] = str(error)

    _in_threads(read, rows, column)
    if not faults:
        return list(range(len(rows)))
    if len(faults) == len(rows):
        raise ConfigError(f"No image of {source.path}, split {role}, can be decoded.")
    for number in sorted(faults)[:3]:
        say(faults[number].partition(" Repair it")[0])
    say(f"Left out {len(faults):,} of {len(rows):,} images of {source.path}, split {role} (dataset.skip_broken=true).")
    return [number for number in range(len(rows)) if number not in faults]


def find_image_column(source: sources.Source, features: Any, given: str | None) -> str:
    """The column with the images: the given one, or the first that holds images.

    Raises:
        ConfigError: If there is none, or the given one holds something else.
    """
    import datasets

    column = given or next((n for n, f in features.items() if isinstance(f, datasets.Image)), None)
    column = sources.check_column(source, "image_column", column, list(features))
    if not isinstance(features[column], datasets.Image):
        raise ConfigError(
            f"The column {column} of {source.path} holds no images; name the one that does by dataset.image_column."
        )
    return column


def _items(rows: Any, column: str) -> Iterator[dict[str, Any]]:
    """The encoded images, read by Arrow in blocks of rows, without a Python object for the other columns."""
    for table in rows.select_columns([column]).with_format("arrow").iter(200):
        for start in range(0, len(table), 25):  # large photos would fill the memory, were a block copied at once
            yield from table.column(column).slice(start, 25).to_pylist()


def _in_threads(work: Callable[[int, dict[str, Any]], None], rows: Any, column: str) -> None:
    """Calls work with the number and the encoded image of each row, in a thread for each core; raises what it raises."""
    threads = os.cpu_count() or 1
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for number, item in enumerate(_items(rows, column)):
            if len(waiting) >= WAITING * threads:
                waiting.popleft().result()
            waiting.append(pool.submit(work, number, item))
        for each in waiting:
            each.result()


def survey(
    source: sources.Source, splits: dict[str, Any], column: str, image_size: int | None
) -> tuple[tuple[int, int], str, tuple[float, float] | None]:
    """(width, height) of the decoded images, their mode, "L" or "RGB", and the values of black and white of images with
    more than 8 bits a channel.

    These values are the same for all images, so that a dark one stays darker than a bright one; such images are decoded
    here. Of others only the headers are read.

    Raises:
        ConfigError: If the images have different sizes and no image_size is given.
    """
    sizes, grey, low, high, floats = set(), True, float("inf"), -float("inf"), False
    for role, rows in splits.items():
        for number, item in enumerate(_items(rows, column)):
            with _reading(source, role, number, item), _open(item) as image:
                sizes.add(pictures.upright_size(image))
                grey = grey and image.mode in pictures.GREY
                if pictures.is_deep(image):
                    least, most = pictures.extremes(image)
                    low, high, floats = min(low, least), max(high, most), floats or image.mode == "F"
    span = pictures.value_range(low, high, floats) if low <= high else None
    if image_size:
        sizes = {(image_size, image_size)}
    if len(sizes) > 1:
        raise ConfigError(
            f"The images of {source.path} are of {len(sizes):,} different sizes, from {min(sizes)} to {max(sizes)} "
            "pixels; give them one with dataset.image_size=64."
        )
    return sizes.pop(), "L" if grey else "RGB", span


def decode_all(
    source: sources.Source,
    role: str,
    rows: Any,
    column: str,
    file: Path,
    size: tuple[int, int],
    mode: str,
    span: tuple[float, float] | None = None,
    background: str = pictures.WHITE,
) -> None:
    """Decodes all images of a role, with a thread for each core, into a new file of uint8 (N, C, H, W).

    Args:
        size, mode: See `survey`.
        span, background: See `pictures.plain`.
    """
    images = cache.create_array(file, (len(rows), len(mode), size[1], size[0]), np.uint8)

    def load(number: int, item: dict[str, Any]) -> None:
        with _reading(source, role, number, item), _open(item) as image:
            images[number] = _fitted(pictures.plain(image, mode, span, background), size)

    _in_threads(load, rows, column)
    images.flush()  # type: ignore[attr-defined]  # np.memmap has it


def _open(item: dict[str, Any]) -> Any:
    return pictures.open_picture(item["bytes"] if item["bytes"] is not None else item["path"])


def _fitted(image: Any, size: tuple[int, int]) -> np.ndarray:
    """A PIL image in mode "L" or "RGB" as uint8 (C, H, W), resized and cropped to size, (width, height)."""
    from PIL import ImageOps

    return _channels_first(np.asarray(image if image.size == size else ImageOps.fit(image, size)))


@contextmanager
def _reading(source: sources.Source, role: str, number: int, item: dict[str, Any] | None) -> Iterator[None]:
    """Names the image in the error that reading it raises."""
    try:
        yield
    except pictures.errors() as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO):
            raise  # not the file's fault
        name = f" ({item['path']})" if item and item.get("path") else ""
        raise _BrokenImageError(
            f"Image {number} of {source.path}, split {role}{name}, {pictures.fault(error)}. Repair it or leave it out."
        ) from error


def to_pixels(
    example: Any, spec: Images, span: tuple[float, float] | None = None, background: str = pictures.WHITE
) -> np.ndarray:
    """One image as pixels of the size that a network reads, uint8 (C, H, W); another size is resized and cropped.

    Args:
        example: The path of a file, a PIL image, or uint8 pixels (H, W), (H, W, 3) or (C, H, W).
        spec: Of the network's inputs.
        span, background: See `pictures.plain`; those of the images that the network was trained on.

    Raises:
        ConfigError: If the example is no image.
    """
    from PIL import Image

    if not isinstance(example, Image.Image | str | os.PathLike):
        pixels = np.asarray(example)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise ConfigError(
                f"An image must be uint8 (H, W), (H, W, 3) or (C, H, W), not {pixels.dtype} {pixels.shape}."
            )
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
            pixels = pixels.transpose(1, 2, 0)
        example = Image.fromarray(pixels.squeeze())
    try:
        image = example if isinstance(example, Image.Image) else pictures.open_picture(example)
        plain = pictures.plain(image, "L" if spec.channels == 1 else "RGB", span, background)
    except pictures.errors() as error:
        raise ConfigError(f"{example} is no image that can be read: it {pictures.fault(error)}.") from error
    return _fitted(plain, (spec.width, spec.height))
