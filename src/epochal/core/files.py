"""Files and their names."""

from __future__ import annotations

import os
import re
import secrets
import time
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
    """The absolute path of a file or folder that exists; anything else, such as the id of a data set on the Hub, as it is."""
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
