"""The sweeper behind `sweep=<name>`: asks a study what to try, launches it, and tells the study how it went."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from hydra_plugins.epochal_sweepers.grid import GridSweeper


class SearchSweeper(GridSweeper):
    """Searches good values of the keys that have a range, with the settings in the config's `sweep`."""

    def sweep(self, arguments: list[str]) -> Any:
        from epochal.core.errors import ConfigError
        from epochal.experiments import launchers  # only now, since Hydra imports every plugin at each start

        if importlib.util.find_spec("optuna") is None:
            raise ConfigError("A search needs Optuna: pip install 'epochal[sweep]'.")
        from epochal.experiments.sweeps.search import search

        if self.before or self.along:
            raise ConfigError(
                "This experiment's runs come in stages or bring settings along, which a search cannot keep."
            )
        assert self.config is not None and self.launcher is not None
        launcher = self.launcher
        launchers.check(self.config)

        def launch(jobs: Sequence[Sequence[str]], number: int) -> Sequence[Any]:
            return launcher.launch(jobs, initial_job_idx=number)

        return search(self.config, self.choices(arguments), self.compose, launch)
