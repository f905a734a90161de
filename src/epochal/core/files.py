"""Files and their names."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from epochal.core.errors import ConfigError

AXES = ("step", "epoch", "examples", "seconds")  # of learning curves: the first columns of a run's metrics.csv
WINDOWS = os.name == "nt"
PATIENCE = 0.5  # seconds to wait for a reader that on Windows keeps a file from being replaced


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, also if the machine stops."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with part.open("wb") as stream:
            stream.write(content if isinstance(content, bytes) else content.encode())
            stream.flush()
            os.fsync(stream.fileno())
        _replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _replace(part: Path, path: Path) -> None:
    """Replaces a file; on Windows it waits for readers of the old one."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            os.replace(part, path)
            return
        except PermissionError:
            if not WINDOWS or time.monotonic() > end:
                raise
            time.sleep(0.02)


class Lock:
    """A lock on a file, released by the kernel when the process that holds it ends, however it ends.

    The file stays, and holds who had it last. Between machines it holds as far as the file system's locks do: on NFS 4
    and on Lustre mounted with `flock`. Where it has none, nobody is kept out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Takes the lock; False if another living process, or another object of this one, holds it.

        Raises:
            OSError: If the file cannot be opened.
        """
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            if not _lock(descriptor):
                os.close(descriptor)
                return False
            try:
                same = os.path.samestat(os.fstat(descriptor), os.stat(self.path))
            except FileNotFoundError:
                same = False
            if not same:  # removed since it was opened
                os.close(descriptor)
                continue
            self._descriptor = descriptor
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
        return True

    def holder(self) -> tuple[str, str]:
        """Process number and machine of who had it last, `?` where that cannot be read."""
        try:
            process, host = self.path.read_text().split()
        except (OSError, ValueError):
            return "?", "?"
        return process, host

    def release(self, *, remove: bool = False) -> None:
        """Gives it back; without effect where it is not held.

        Args:
            remove: Also remove the file.
        """
        if self._descriptor is None:
            return
        if remove and os.name != "nt":  # which removes no open file
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    def __del__(self) -> None:
        try:  # noqa: SIM105  # contextlib may be gone while the interpreter ends
            self.release()
        except Exception:
            pass


def _lock(descriptor: int) -> bool:
    """Locks an open file; False if it is locked. True too where the file system has no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # past the content, which others read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
    return True


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Waits until no other process is in here with the same path, whose file is there as long."""
    lock, end = Lock(path), time.monotonic() + 60  # of a machine that crashed, a file server may keep a lock for good
    while not lock.acquire() and time.monotonic() < end:
        time.sleep(0.02)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.release(remove=True)


def expanded(path: str | Path) -> Path:
    """The path with the home folder in place of `~`.

    Raises:
        ConfigError: If it names the home folder of a user who does not exist.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} is in the home folder of a user who is not there; ./{path} is one here.") from error


def absolute_if_there(path: Any) -> Any:
    """The absolute path of a file or folder that exists; anything else, such as the id of a data set on the Hub, as it is.

    Of a mapping its values."""
    if isinstance(path, Mapping):
        return {name: absolute_if_there(part) for name, part in path.items()}
    if not isinstance(path, str) or not path:
        return path
    found = Path(os.path.expanduser(path))
    return str(found.absolute()) if os.path.exists(found) else path  # os.path: false, not an error, for a name too long


def relative(path: Path) -> str:
    """The path relative to the current folder if it lies below it."""
    here = Path.cwd()
    return str(path.absolute().relative_to(here)) if path.absolute().is_relative_to(here) else str(path)


def slug(text: str) -> str:
    """The text as the name of a folder: other characters than letters, digits, `.`, `_` and `-` become `-`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-") or "run"
