"""Hyperparameter searches with Optuna: settings, search space, study, pruning, report. Importing it loads no Optuna."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from epochal.training.run_folder import sweep_folder

if TYPE_CHECKING:
    import pytorch_lightning as pl

JOURNAL = "journal.log"  # the file with the study, in its folder


def pruning(config: DictConfig) -> list[pl.Callback]:
    """The callback that reports a trial's validations and prunes it; none for a run that belongs to no search."""
    folder = sweep_folder(config)
    if folder is None or config.sweep.trial is None or not (folder / JOURNAL).exists():
        return []
    from epochal.experiments.sweeps.prune import Prune
    from epochal.experiments.sweeps.settings import Settings

    return [Prune(folder, config.sweep.trial, Settings.read(config))]
