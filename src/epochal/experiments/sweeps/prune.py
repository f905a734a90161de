"""Reports the validations of a trial to its study, and that it diverged; stops it when the pruner says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from epochal.core.errors import ConfigError, DivergedError, PrunedError, did_you_mean
from epochal.experiments.sweeps.settings import Objective, Settings

if TYPE_CHECKING:
    import optuna


class Prune(pl.Callback):
    """Reports each validation to the study; steps are percent of the training, so that trials of any length compare.

    A pruned trial ends before its next training batch, after the checkpoint of the validation has been written.

    Args:
        folder: Of the study.
        trial: Number of the trial in it.
        settings: Of the search.
    """

    def __init__(self, folder: Path, trial: int, settings: Settings) -> None:
        self.folder, self.trial, self.settings = folder, trial, settings
        self._study: optuna.Study | None = None
        self._percent: int | None = None  # of the training, at which it was pruned

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        objectives = self.settings.resolved(pl_module.reports)
        known = [name for name in trainer.callback_metrics if name.startswith("val/")]
        check_measured(objectives, known)
        if len(objectives) == 1 and objectives[0].name in known:
            percent = min(100, 100 * trainer.global_step // pl_module.total_steps)
            prune = trainer.is_global_zero and self._report(percent, trainer.callback_metrics[objectives[0].name])
            if trainer.strategy.broadcast(prune):
                self._percent = percent

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._percent is not None:
            raise PrunedError(f"Pruned after {self._percent} % of the training: other trials were better by then.")

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Notes that the trial diverged: its values are bad, unlike those of a run that found the disk full."""
        from epochal.experiments.sweeps import study

        if isinstance(exception, DivergedError) and trainer.is_global_zero:
            study.mark_diverged(self._opened(), self.trial, str(exception))

    def _report(self, percent: int, value: Any) -> bool:
        """Adds a validation to the study, and returns whether to prune."""
        from epochal.experiments.sweeps import study

        return study.report(self._opened(), self.trial, percent, float(value))

    def _opened(self) -> optuna.Study:
        from epochal.experiments.sweeps import study

        if self._study is None:
            self._study = study.open_study(self.folder, self.settings)
        return self._study


def check_measured(objectives: Sequence[Objective], known: Sequence[str]) -> None:
    """Checks that the validation measures all objectives of validation metrics.

    Raises:
        ConfigError: With one that is missing.
    """
    for objective in objectives:
        if objective.name.startswith("val/") and objective.name not in known:
            near = did_you_mean(objective.name, known)
            raise ConfigError(
                f"sweep.objectives has {objective.name}, which no validation measures.{near} There are: {' '.join(known)}"
            )
