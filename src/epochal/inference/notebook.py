"""A trained network in a notebook: predictions, texts and metrics of a run."""

from __future__ import annotations

from pathlib import Path


def load(run: str | Path):
    raise NotImplementedError


class LoadedRun: ...
