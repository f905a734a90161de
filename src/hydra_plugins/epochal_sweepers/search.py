"""The sweeper behind `sweep=<name>`: asks a study what to try, launches it, and tells the study how it went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict

from hydra_plugins.epochal_sweepers.grid import GridSweeper


class SearchSweeper(GridSweeper):
    """Looks for good values of the keys that have a range; `sweep` in the config says how."""

    def sweep(self, arguments: list[str]) -> Any:
        from epochal.sweeps.search import search  # only now, since Hydra imports every plugin at each start

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        loader, config, launcher = self.hydra_context.config_loader, self.config, self.launcher
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])

        def compose(job: Sequence[str]) -> DictConfig:
            composed = loader.load_sweep_config(config, list(job))
            with open_dict(composed):
                del composed["hydra"]
            return composed

        return search(config, overrides, compose, lambda jobs, number: launcher.launch(jobs, initial_job_idx=number))
