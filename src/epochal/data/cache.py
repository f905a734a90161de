"""Cache of decoded arrays, in folders that are complete or do not exist."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epochal.core.errors import ConfigError
from epochal.core.files import expanded, write_atomically
from epochal.core.format import say

LAYOUT = 3  # version of the files; raise it when their meaning changes, so that older folders are not read
LARGE = 2**30  # bytes of an array that a process does not keep in its memory as a whole
HASHED_ALWAYS = 16_000_000  # bytes of arrays that are hashed at each start, in 20 ms


def cache_root() -> Path:
    """The environment variable `EPOCHAL_CACHE`, or the platform's folder for caches."""
    if named := os.environ.get("EPOCHAL_CACHE"):
        return expanded(named).absolute()
    from platformdirs import user_cache_path

    try:
        return user_cache_path("epochal")
    except (RuntimeError, KeyError) as error:  # no HOME, and a user without a name, as after docker run --user
        raise ConfigError(
            "This user has no home folder for the cache; set HOME, or EPOCHAL_CACHE, to a folder."
        ) from error


def cached(name: str, key: dict[str, Any], make: Callable[[Path], dict[str, Any]]) -> Path:
    """The folder of this name and key, which `make` fills if it does not exist yet.

    Of several processes that start at once, one fills it and the others wait.

    Args:
        name: Prefix of the folder's name.
        key: All that the arrays depend on; must be serialisable as JSON.
        make: Writes `.npy` files into the folder that it is given, and returns the other metadata. It is saved in
            `meta.json` with a hash of the arrays, "fingerprint", and their sizes and times, "files". A folder that is
            damaged is made again.

    Raises:
        ConfigError: If the cache cannot be written, or the disk is full.
    """
    from filelock import FileLock

    text = json.dumps({**key, "layout": LAYOUT}, sort_keys=True)
    root = cache_root()
    folder = root / f"{Path(name).name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if _whole(folder):
        return folder
    building = root / f".building-{folder.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(root, error) from error
    try:
        with FileLock(root / f".{folder.name}.lock"):
            if _whole(folder):
                return folder
            if os.path.lexists(folder):
                say(f"The cache folder {folder} is damaged; it is made again.")
                _remove(folder)
            shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed, as the lock was free
            building.mkdir()
            try:
                meta = make(building)
                for file in building.iterdir():
                    _sync(file)
                meta["fingerprint"] = _hash_arrays(building)
                meta["files"] = _stamps(building)
                (building / "meta.json").write_text(json.dumps(meta))
                _sync(building / "meta.json")
                os.replace(building, folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConfigError(_no_space(root)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            if error.filename and not Path(error.filename).is_relative_to(root):
                raise ConfigError(f"{error.filename} cannot be read ({error.strerror}).") from error
            raise _not_writable(root, error) from error
        raise
    return folder


def _whole(folder: Path) -> bool:
    """Whether the folder holds what was written into it.

    Files whose size and time are those in `meta.json` are taken for unchanged, unless they are so small that hashing
    them costs nothing. Otherwise, and for folders without these numbers, the hash of the arrays decides.
    """
    try:
        meta = read_meta(folder)
        stamps = _stamps(folder)
        if meta.get("files") == stamps and sum(size for size, _ in stamps.values()) > HASHED_ALWAYS:
            return True
        if {name: size for name, (size, _) in meta.get("files", stamps).items()} != {
            n: s for n, (s, _) in stamps.items()
        }:
            return False
        if meta["fingerprint"] != _hash_arrays(folder):
            return False
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ):  # a file is missing, or meta.json is no such thing
        return False
    if meta.get("files") != stamps:
        with contextlib.suppress(OSError):  # another user's cache; it is hashed again at the next start
            write_atomically(folder / "meta.json", json.dumps({**meta, "files": stamps}))
    return True


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size and time of the last change in ns of each array file, by its name."""
    return {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(folder.glob("*.npy"))}


def _remove(path: Path) -> None:
    """Removes a folder, or whatever lies in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def create_array(path: Path, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """A new memory-mapped `.npy` file, for which the disk has room.

    Raises:
        ConfigError: If the disk is too small.
    """
    needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise ConfigError(_no_space(path.parent.parent, needed=needed, free=free))
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        # reserves the disk now: later, a write to a mapped page without room on the disk kills the process (SIGBUS)
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array


def write_parts(path: Path, parts: Iterable[np.ndarray], dtype: np.dtype | type) -> int:
    """Writes arrays (n,), one after the other, as one `.npy` file; returns its length."""
    length, kind = 0, np.dtype(dtype)
    with path.open("wb") as stream:

        def write_head() -> None:  # numpy leaves room in it for the length to grow
            head = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (length,)}
            np.lib.format.write_array_header_1_0(stream, head)

        write_head()
        for part in parts:
            stream.write(part.astype(kind).data)
            length += len(part)
        stream.seek(0)
        write_head()
    return length


def read_meta(folder: Path) -> dict[str, Any]:
    """What `make` returned, and the "fingerprint", see `cached`."""
    return json.loads((folder / "meta.json").read_text())


def remembered(folder: Path, key: str, compute: Callable[[], Any]) -> Any:
    """What was computed from the arrays of a folder of `cached`: at the first call, then kept in its `meta.json`.

    Args:
        folder: Of the arrays.
        key: Names what is computed.
        compute: Returns plain containers.
    """
    if key in (kept := read_meta(folder).get("computed", {})):
        return kept[key]
    value = compute()
    with contextlib.suppress(OSError, ValueError):  # another user's cache, or a full disk: it is computed again
        meta = read_meta(folder)  # another process may have added to it
        meta["computed"] = {**meta.get("computed", {}), key: value}
        write_atomically(folder / "meta.json", json.dumps(meta))
    return value


def read_array(path: Path) -> Any:
    """A memory-mapped torch tensor: pages are loaded when they are read, and processes share them."""
    import torch

    array = np.load(path, mmap_mode="c")  # copy on write: torch warns of read-only arrays
    tensor = torch.from_numpy(array)
    if array.nbytes > LARGE and hasattr(mmap, "MADV_DONTNEED"):
        tensor.pages = _Pages(array._mmap)  # type: ignore[attr-defined]  # for `gather`
    return tensor


def gather(array: Any, rows: Any) -> Any:
    """Rows (M,) of a tensor (N, ...). Of a large one of `read_array`, the process does not keep all pages that it has
    read: the system's cache does, as long as it has room."""
    found = array.index_select(0, rows)  # copies whole rows at a time, plain indexing of uint8 byte by byte
    if (pages := getattr(array, "pages", None)) is not None:
        pages.read += found.nbytes
        if pages.read > LARGE // 8:  # with each page come its neighbours
            pages.mapping.madvise(mmap.MADV_DONTNEED)
            pages.read = 0
    return found


@dataclass
class _Pages:
    mapping: mmap.mmap
    read: int = 0  # bytes since they were last given back


def _not_writable(root: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The cache folder {root} cannot be written ({error.strerror}). Set EPOCHAL_CACHE to one that can."
    )


def _no_space(root: Path, needed: int | None = None, free: int | None = None) -> str:
    sizes = f": {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free" if needed and free is not None else ""
    return f"Not enough disk for the cache in {root}{sizes}. Set EPOCHAL_CACHE to a folder on a larger disk."


def _hash_arrays(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.npy")):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
