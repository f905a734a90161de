"""Tiny data sets for the tests, made where they are told to."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Images of noise, each unlike the others."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def image_folder(folder: Path, *, classes: tuple[str, ...] = ("cat", "dog"), each: int = 10, side: int = 8) -> Path:
    """A folder of PNG files for each class."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(pixels(each, side, side, 3, seed=number)):
            Image.fromarray(image).save(folder / name / f"{i}.png")
    return folder


def image_parquet(file: Path, images: np.ndarray, labels: list[Any], *, column: str = "label") -> Path:
    """A parquet file with the features that `datasets` writes for images."""
    encoded = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        encoded.append({"bytes": stream.getvalue(), "path": None})
    import datasets

    file.parent.mkdir(parents=True, exist_ok=True)
    rows = datasets.Dataset.from_dict({"image": encoded, column: labels}).cast_column("image", datasets.Image())
    rows.to_parquet(str(file))
    return file


def image_npz(file: Path, *, count: int = 60, classes: int = 3, side: int = 8) -> Path:
    """Grey images in the form of the packaged digits."""
    np.savez(file, images=pixels(count, side, side), labels=np.arange(count) % classes)
    return file


def text_parquet(file: Path, rows: int = 50) -> Path:
    """A column of text and one of numbers."""
    pq.write_table(pa.table({"text": [f"line {i} of a little text" for i in range(rows)], "n": range(rows)}), file)
    return file


def text_file(file: Path, lines: int = 200) -> Path:
    file.write_text("".join(f"{i}: the quick brown fox jumps over the lazy dog.\n" for i in range(lines)))
    return file


def album(folder: Path, *, count: int = 20, listed: str = "captions.csv", below: str = ".") -> Path:
    """Images whose brightness is their number, with two captions each."""
    (folder / below).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(np.full((9, 12, 3), number, np.uint8)).save(folder / below / f"{number}.png")
    if listed == "metadata.csv":
        lines = [f'{n}.png,"A Dog, number {n}.",dog {n}\n' for n in range(count)]
        (folder / listed).write_text("file_name,caption_0,caption_1\n" + "".join(lines))
    else:
        lines = [f'{n}.png,"A Dog, number {n}."\n{n}.png,dog {n}\n' for n in range(count)]
        (folder / listed).write_text("image,caption\n" + "".join(lines))
    return folder
