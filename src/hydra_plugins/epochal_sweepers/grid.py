"""The sweeper behind `-m` and every experiment: checks all runs of a grid before the first one starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class GridSweeper(BasicSweeper):
    """Every combination of the choices, in Hydra's own grammar; the command line takes precedence over the config.

    Args:
        max_batch_size, params: As of Hydra's own sweeper.
        before: Further grids, whose runs end before the others start, which may start from their weights; or lists of such
            grids, each of which ends before the next.
        along: Overrides that a choice adds, e.g. `{model=vgg: [model.width=0.25]}`.
        tune: `space`, `seed` and `metric`: each combination is first tried with each setting of the space, and takes the best;
            those of a grid in `before` too, unless it sets such a key itself.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None = None,
        before: list[Any] | None = None,
        along: dict[str, list[str]] | None = None,
        tune: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, params=params)
        self.before, self.along, self.tune = before or [], along or {}, tune

    def sweep(self, arguments: list[str]) -> Any:
        from epochal.experiments import grid, launchers

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        launchers.check(self.config)
        deciding = [*self.earlier(arguments), self.jobs(self.choices(arguments))]
        stages = [stage for runs in deciding for stage in (self.trials(arguments, runs), runs) if stage]
        jobs = [job for stage in stages for job in stage]
        configs = [self.compose(job) for job in jobs]
        launcher = self.launcher if len(jobs) > 1 or launchers.elsewhere(self.config) else self._here()

        def launch() -> list[Any]:
            returns: list[Any] = []
            for stage in stages:  # later runs may start from weights of earlier ones
                if self.tune and stage in deciding:
                    stage = grid.tuned(self.tune, stage, [r.return_value["folder"] for r in returns])
                returns += launcher.launch(stage, initial_job_idx=len(returns))
            return returns

        return grid.run(self.config, jobs, configs, launch)

    def jobs(self, choices: list[Override]) -> list[list[str]]:
        """Every combination, with the overrides that `along` adds to its choices unless their keys are chosen or tuned."""
        chosen = {override.get_key_element().lstrip("+") for override in choices} | {
            *(self.tune or {}).get("space", ())
        }
        return [
            [*job, *(o for choice in job for o in self.along.get(choice, ()) if o.partition("=")[0] not in chosen)]
            for job in self.split_arguments(choices, max_batch_size=None)[0]
        ]

    def earlier(self, arguments: list[str]) -> list[list[list[str]]]:
        """The runs of the grids in `before`, stage by stage.

        Of what is typed, data set and seed concern them all; other keys only where no grid gives them a value. A grid of
        another model than the one that is typed is left out; where none of the later runs starts from weights, so is one
        that has another value of any key that is typed.
        """
        from epochal.core.multirun import stages

        found: list[list[list[str]]] = []
        given = {key.lstrip("+"): value for key, _, value in (argument.partition("=") for argument in arguments)}
        peers = "init_from" not in (self.params or {})
        for number, grid in ((number, grid) for number, stage in enumerate(stages(self.before)) for grid in stage):
            typed = {key: value for key, value in given.items() if key in grid and key not in ("dataset", "seed")}
            others = {key for key, value in typed.items() if value not in str(grid[key]).split(",")}
            if "model" in others or (peers and others):
                continue
            fixed = ({*(self.params or {}), *grid} - {"dataset", "seed"} - ({*typed} if peers else set())) | {
                "init_from"
            }
            kept = [argument for argument in arguments if argument.partition("=")[0].lstrip("+") not in fixed]
            jobs = self.jobs(self.choices(kept, [f"{key}={value}" for key, value in grid.items()]))
            found += [[] for _ in range(number + 1 - len(found))]
            found[number] += jobs
        return found

    def trials(self, arguments: list[str], deciding: list[list[str]]) -> list[list[str]]:
        """The runs that try every setting of `tune` for each of these; none for those that have a key of its space set.

        Raises:
            ConfigError: If `tune` is wrong, or its seed is one of those that decide.
        """
        from epochal.compare.tuning import Tuning
        from epochal.core.errors import ConfigError

        tuning = Tuning.of(self.tune)
        if tuning is None:
            return []
        typed = {argument.partition("=")[0].lstrip("+") for argument in arguments}
        if not typed & {*tuning.space} and any(f"seed={tuning.seed}" in job for job in deciding):
            raise ConfigError(f"seed={tuning.seed} is that of the tuning, whose runs do not decide; choose another.")
        written = OverridesParser.create().parse_overrides([f"{key}={values}" for key, values in tuning.space.items()])
        settings = self.split_arguments(written, max_batch_size=None)[0]
        points = dict.fromkeys(tuning.point(job) for job in deciding if not tuning.is_set(job))
        return [[*point, *setting, f"seed={tuning.seed}"] for point in points for setting in settings]

    def choices(self, arguments: list[str], params: list[str] | None = None) -> list[Override]:
        """One override per key; the command line takes precedence over the config.

        Raises:
            ConfigError: If the grid itself is to be several.
        """
        from epochal.core.errors import ConfigError

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = {
            o.get_key_element().lstrip("+"): o
            for o in parser.parse_overrides([*(self._parse_config() if params is None else params), *arguments])
        }
        for key in ("experiment", "budget", "sweep"):
            if key in overrides and overrides[key].is_sweep_override():
                raise ConfigError(f"{overrides[key].input_line} is several; type a line for each.")
        return list(overrides.values())

    def compose(self, job: Sequence[str]) -> DictConfig:
        """The config of a run, to be checked before it starts."""
        from epochal.experiments.launchers import elsewhere

        assert self.config is not None and self.hydra_context is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(job))
        with open_dict(config):
            del config["hydra"]
            if elsewhere(self.config):
                config.trainer.accelerator = "auto"  # this machine does not know whether the other has a GPU
        return config

    def _here(self) -> BasicLauncher:
        """The launcher for a single run: in this process, so that its progress bar is shown."""
        assert self.config is not None and self.hydra_context is not None
        launcher = BasicLauncher()
        launcher.setup(hydra_context=self.hydra_context, task_function=self.task_function, config=self.config)
        return launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.task_function = task_function


# no dataclass, which would look itself up in sys.modules: Hydra runs this module before it is there
GRID: dict[str, Any] = {
    "_target_": f"{__name__}.GridSweeper",
    "max_batch_size": None,
    "params": {},
    "before": [],
    "along": {},
    "tune": None,
}
ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GRID, provider="epochal")
