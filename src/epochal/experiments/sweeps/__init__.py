"""Searches for good settings: what is asked, what it found, and when a run may stop early. Light to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from epochal.training.run_folder import sweep_folder

if TYPE_CHECKING:
    import pytorch_lightning as pl

JOURNAL = "journal.log"  # the study, in its folder


def pruning(config: DictConfig) -> list[pl.Callback]:
    """What tells the study how a trial goes on and stops it where it is hopeless; nothing for a run of no search."""
    folder = sweep_folder(config)
    if folder is None or config.sweep.trial is None or not (folder / JOURNAL).exists():
        return []
    from epochal.experiments.sweeps.prune import Prune
    from epochal.experiments.sweeps.settings import Settings

    return [Prune(folder, config.sweep.trial, Settings.read(config))]
