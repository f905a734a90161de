"""Searches for good settings: what is asked, what it found, and when a run may stop early. Light to import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

if TYPE_CHECKING:
    import pytorch_lightning as pl

JOURNAL = "journal.log"  # the study, in its folder


def sweep_folder(config: DictConfig) -> Path | None:
    """The folder of the study and its runs, `outputs/sweeps/<study>`; None for a run of no search."""
    from epochal.runs import slug

    sweep = config.get("sweep")
    return Path(config.output_dir).absolute() / "sweeps" / slug(str(sweep.study)) if sweep else None


def pruning(config: DictConfig) -> list[pl.Callback]:
    """What tells the study how a trial goes on and stops it where it is hopeless; nothing for a run of no search."""
    folder = sweep_folder(config)
    if folder is None or config.sweep.trial is None or not (folder / JOURNAL).exists():
        return []
    from epochal.callbacks.prune import Prune
    from epochal.sweeps.settings import Settings

    return [Prune(folder, config.sweep.trial, Settings.read(config))]
