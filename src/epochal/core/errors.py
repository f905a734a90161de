"""What went wrong, in one plain sentence for the person at the keyboard."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EpochalError(Exception):
    """Ends a run with its sentence and `exit_status`, without a traceback."""

    exit_status = 1


class ConfigError(EpochalError):
    """A wrong choice, name, path or value: found before any work is done."""

    exit_status = 2


class DivergedError(EpochalError):
    """The loss is no longer a finite number."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean resnet?' or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


class PrunedError(EpochalError):
    """The run need not go on: others of its search were better by now. No failure."""

    exit_status = 0
