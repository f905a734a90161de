"""The folder of a run: a new one, or that of a run to resume."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.console import Console

from epochal.config.allowlist import ALLOWED, check_targets
from epochal.core.errors import ConfigError, EpochalError
from epochal.core.files import relative
from epochal.core.format import verbatim
from epochal.core.multirun import in_grid
from epochal.training.run_folder import (
    Run,
    newest_finished,
    newest_unfinished,
    run_name,
    runs_folder,
)
from epochal.training.trainer import settle_rank


def resumed(config: DictConfig, overrides: Sequence[str]) -> tuple[DictConfig, Run | None]:
    """The saved config and the run that `resume` names; without one the config as it is, and None.

    Raises:
        ConfigError: If there is nothing to resume there, or the run is another one than asked for.
    """
    if config.resume in (None, "auto"):
        settle_rank(config)
    if config.resume is None:
        return config, None
    if config.resume == "auto":
        run = newest_unfinished(runs_folder(config), config, claim=rank() == 0)
        if run is None:
            if in_grid() and (held := newest_unfinished(runs_folder(config), config, claim=False)):
                raise EpochalError(f"{relative(held.folder)} is being trained by another process.")
            return config, None
        saved = run.config()
        saved.logger = config.logger  # loggers may change
        typed = [child._target_ for child in config.callbacks.values() if isinstance(child, DictConfig)]
        typed += [child._target_ for child in config.logger.values() if isinstance(child, DictConfig)]
        check_targets(saved, (*ALLOWED, *config.allow), typed)
        if "sweep" in config:
            saved.sweep = config.sweep  # an unfinished run of another trial is taken over by this one
        return saved, run
    run = Run.open(config.resume)
    saved = run.config()
    check_targets(saved, (*ALLOWED, *config.allow))
    settle_rank(saved)
    others = [o for o in overrides if not o.startswith(("resume=", "allow=", "hydra."))]
    if others:
        raise ConfigError(f"resume={config.resume} goes on with that run as it was; leave out {' '.join(others)}.")
    if run.summary().get("status") == "finished":
        raise ConfigError(f"{config.resume} is finished: there is nothing to resume.")
    if rank() == 0 and not run.claim():
        raise ConfigError(f"{config.resume} is being trained by another process.")
    return saved, run


def finished_before(config: DictConfig) -> Run | None:
    """With `resume=auto`, the finished run of the same config; else None."""
    run = newest_finished(runs_folder(config), config) if config.resume == "auto" else None
    if run is not None:
        Console(quiet=in_grid()).print(verbatim(f"Finished before: {relative(run.folder)}"), soft_wrap=True)
    return run


def new_run(config: DictConfig, overrides: Sequence[str]) -> Run:
    """A new folder with the config in it; on other ranks a placeholder, until rank zero broadcasts its folder."""
    parent = runs_folder(config)
    if rank() != 0:
        return Run(parent / "of-rank-zero")
    run = Run.create(parent, run_name(config))
    run.claim()
    OmegaConf.save(config, run.folder / "config.yaml")
    OmegaConf.save(OmegaConf.create(list(overrides)), run.folder / "overrides.yaml")
    return run


def rank() -> int:
    """This process's rank, 0 if it trains alone; known before the process group exists."""
    return int(getattr(rank_zero_only, "rank", 0) or 0)
