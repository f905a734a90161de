"""The sweeper behind `sweep=<name>`: asks a study what to try, launches it, and tells the study how it went."""

from __future__ import annotations

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.epochal_sweepers.grid import GridSweeper


class SearchSweeper(GridSweeper):
    """Looks for good values of the keys that have a range; `sweep` in the config says how."""

    def sweep(self, arguments: list[str]) -> Any:
        from epochal import launchers  # only now, since Hydra imports every plugin at each start
        from epochal.sweeps.search import search

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        loader, launcher = self.hydra_context.config_loader, self.launcher
        launchers.check(self.config)
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])

        return search(
            self.config, overrides, self.compose, lambda jobs, number: launcher.launch(jobs, initial_job_idx=number)
        )
