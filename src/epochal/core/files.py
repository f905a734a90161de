"""Files and their names, for code that must start fast: nothing here imports torch."""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path

from epochal.core.errors import ConfigError

AXES = ("step", "epoch", "examples", "seconds")  # of learning curves: the first columns of a run's metrics.csv
WINDOWS = os.name == "nt"
PATIENCE = 0.5  # seconds that a reader on Windows may keep a file from being replaced


def write_atomically(path: Path, content: str | bytes) -> None:
    """The whole file or none of it, also if the machine stops."""
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
    """Waits for who reads the old file, which on Windows keeps it in its place."""
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
    """With the home folder for `~`.

    Raises:
        ConfigError: If it is the home folder of nobody.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} is in the home folder of a user who is not there; ./{path} is one here.") from error


def relative(path: Path) -> str:
    """As short as it can be typed from here."""
    here = Path.cwd()
    return str(path.absolute().relative_to(here)) if path.absolute().is_relative_to(here) else str(path)


def slug(text: str) -> str:
    """A name that is fit for a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-") or "run"
