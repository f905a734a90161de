"""Files and their names, for code that must start fast: nothing here imports torch."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """The whole file or none of it, also if the machine stops."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with part.open("wb") as stream:
            stream.write(content if isinstance(content, bytes) else content.encode())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def slug(text: str) -> str:
    """A name that is fit for a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-") or "run"
