"""Folders with a folder of pictures for each class, found by their names alone, links followed.

`datasets` takes each file or folder with train, test or val in its name for a split, and does not follow links.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from epochal.core.errors import ConfigError
from epochal.core.format import say

VERSION = 2  # of what pictures are decoded to; raise it when that changes, so that older caches are not read
SUFFIXES = re.compile(
    r"\.(apng|avifs?|bmp|cur|dds|dib|gif|icns|ico|j2[ck]|jfif|jp[2cfx]|jpe|jpe?g|mpo|p[bgnp]m|pcx|pfm|png|psd|qoi|sgi|tga"
    r"|tiff?|webp)",
    re.IGNORECASE,
)
UNREADABLE = re.compile(r"\.(arw|cr[23]|dng|eps|hei[cf]|jxl|nef|orf|pdf|raf|raw|rw2|svgz?)", re.IGNORECASE)
TABLES = re.compile(r"\.(arrow|csv|jsonl?|parquet|tar|tsv|txt|zip)", re.IGNORECASE)
ROLES = {
    role: re.compile(rf"({names})([^a-z].*)?", re.IGNORECASE)
    for role, names in {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test"}.items()
}


def files_in(folder: Path) -> list[Path]:
    """All files below the folder, sorted; links to folders are followed, but never back to where they are in."""
    found = []
    seen = {folder: {os.path.realpath(folder)}}  # by folder, the real paths of it and the folders that it is in
    for name, below, files in os.walk(folder, followlinks=True):
        here = Path(name)
        for child in list(below):
            real = os.path.realpath(here / child)
            if real in seen[here]:
                below.remove(child)
            else:
                seen[here / child] = seen[here] | {real}
        found += [file for n in files if (file := here / n).is_file()]
    return sorted(found)


def is_picture(file: Path) -> bool:
    return SUFFIXES.fullmatch(file.suffix) is not None


def open_folder(folder: Path) -> dict[str, Any] | None:
    """Rows of "image", not decoded, and "label", the name of the folder that an image is in, by role.

    Returns:
        None if it is no folder of images in folders of classes.

    Raises:
        ConfigError: See `_splits`.
    """
    paths = [file.relative_to(folder) for file in files_in(folder)]
    paths = [path for path in paths if not any(part.startswith((".", "__")) for part in path.parts)]
    images = [path for path in paths if is_picture(path)]
    tables = sum(TABLES.fullmatch(path.suffix) is not None for path in paths)
    # `datasets` takes the kind that most of the files are of, and reads images with a table called metadata
    if not images or tables > len(images) or any(path.stem == "metadata" for path in paths):
        return None
    if any(len(path.parts) == 1 for path in images):
        return None
    if lost := [path for path in paths if UNREADABLE.fullmatch(path.suffix)]:
        kinds = ", ".join(sorted({path.suffix.lower() for path in lost}))
        say(f"Left out {len(lost):,} files of {folder} ({kinds}), which Pillow cannot read; save them as PNG or JPEG.")
    return {role: _rows(folder, found) for role, found in _splits(folder, images).items()}


def _splits(folder: Path, images: list[Path]) -> dict[str, list[Path]]:
    """Images by role.

    The folders of the top are splits if they are all named like splits, one of them like train, and hold folders of
    classes; a split without these has no labels and is left out. Otherwise all is "train".

    Raises:
        ConfigError: If there are splits, but no classes, or some folders are splits, and others are not.
    """
    deep = {path.parts[0] for path in images if len(path.parts) > 2}  # hold folders
    role_of = {top: _role(top) for top in {path.parts[0] for path in images}}
    if not deep and all(role_of.values()):
        raise ConfigError(
            f"{folder} has splits ({', '.join(sorted(role_of))}), but no classes: a split must have a folder in it for "
            "each class, e.g. train/cat."
        )
    if not any(role_of[top] == "train" for top in deep):
        return {"train": images}
    if others := sorted(top for top, role in role_of.items() if role is None or (role == "train" and top not in deep)):
        raise ConfigError(
            f"{folder} has splits, each with a folder for each class, and beside them {', '.join(others[:3])}: move "
            "what is no split elsewhere."
        )
    splits: dict[str, list[Path]] = {}
    for path in images:
        if len(path.parts) > 2:
            splits.setdefault(str(role_of[path.parts[0]]), []).append(path)
    return splits


def _rows(folder: Path, paths: list[Path]) -> Any:
    import datasets

    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"The name of the file {os.fsencode(path)!r} in {folder} is not UTF-8; rename it."
            ) from error
    images = [{"bytes": None, "path": str(folder / path)} for path in paths]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    return datasets.Dataset.from_dict({"image": images, "label": [p.parts[-2] for p in paths]}, features=features)


def _role(name: str) -> str | None:
    return next((role for role, pattern in ROLES.items() if pattern.fullmatch(name)), None)
