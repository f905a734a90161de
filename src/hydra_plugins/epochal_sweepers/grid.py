"""The sweeper behind `-m` and every experiment: looks at all runs of a grid before the first one starts."""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class GridSweeper(BasicSweeper):
    """Every combination of the choices, in Hydra's own grammar; those of the command line come before those of the config."""

    def sweep(self, arguments: list[str]) -> Any:
        from epochal import grid  # only now, since Hydra imports every plugin at each start

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        jobs = self.split_arguments(overrides, max_batch_size=None)[0]
        configs = [self.hydra_context.config_loader.load_sweep_config(self.config, list(job)) for job in jobs]
        for config in configs:
            with open_dict(config):
                del config["hydra"]
        launcher = self.launcher if len(jobs) > 1 else self._here()
        return grid.run(self.config, jobs, configs, lambda: launcher.launch(jobs, initial_job_idx=0))

    def _here(self) -> BasicLauncher:
        """For one run: in this process, where its bar can be seen."""
        launcher = BasicLauncher()
        launcher.setup(hydra_context=self.hydra_context, task_function=self.task_function, config=self.config)
        return launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.task_function = task_function


# no dataclass: Hydra runs this module before it is in sys.modules, where they look themselves up
GRID = {"_target_": f"{__name__}.GridSweeper", "max_batch_size": None, "params": {}}
ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GRID, provider="epochal")
