"""Errors whose message is one plain sentence for the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EpochalError(Exception):
    """Ends a command with its message and `exit_status`, without a traceback."""

    exit_status = 1


class ConfigError(EpochalError):
    """A wrong choice, name, path or value, found before any work is done."""

    exit_status = 2


class DivergedError(EpochalError):
    """The loss or a weight is not finite."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean resnet?', or an empty string if no known name is similar."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


class PrunedError(EpochalError):
    """The run was stopped early because others of its search were better by then. Not a failure."""

    exit_status = 0
