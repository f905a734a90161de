"""Tells a search how its trial goes on, and ends the trial where it is hopeless."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from epochal.core.errors import ConfigError, PrunedError, did_you_mean
from epochal.experiments.sweeps.settings import Settings

if TYPE_CHECKING:
    import optuna


class Prune(pl.Callback):
    """Reports each validation to the study; the step is the percent of the training, the same in trials of any length.

    A hopeless trial ends before its next batch, when the checkpoint of the validation is written.

    Args:
        folder: Of the study.
        trial: Its number.
        settings: Of the search.
    """

    def __init__(self, folder: Path, trial: int, settings: Settings) -> None:
        self.folder, self.trial, self.settings = folder, trial, settings
        self._study: optuna.Study | None = None
        self._percent: int | None = None  # at which it is hopeless

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        objectives = self.settings.resolved(pl_module.reports)
        known = [name for name in trainer.callback_metrics if name.startswith("val/")]
        for objective in objectives:
            if objective.name.startswith("val/") and objective.name not in known:
                near = did_you_mean(objective.name, known)
                raise ConfigError(
                    f"sweep.objectives has {objective.name}, which no validation measures.{near} There are: {' '.join(known)}"
                )
        if len(objectives) == 1 and objectives[0].name in known:
            percent = min(100, 100 * trainer.global_step // pl_module.total_steps)
            hopeless = trainer.is_global_zero and self._report(percent, trainer.callback_metrics[objectives[0].name])
            if trainer.strategy.broadcast(hopeless):
                self._percent = percent

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._percent is not None:
            raise PrunedError(f"Pruned after {self._percent} % of the training: other trials were better by then.")

    def _report(self, percent: int, value: Any) -> bool:
        from epochal.experiments.sweeps import study

        if self._study is None:
            self._study = study.open_study(self.folder, self.settings)
        return study.report(self._study, self.trial, percent, float(value))
