"""The folder of a run: a new one, or that of a run to resume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.console import Console

from epochal.config.allowlist import ALLOWED, check_targets
from epochal.config.compose import plain
from epochal.config.validate import wrong_roles
from epochal.core.errors import ConfigError, EpochalError
from epochal.core.files import relative
from epochal.core.format import say, verbatim
from epochal.core.multirun import in_grid
from epochal.training.checkpoint_io import read_checkpoint
from epochal.training.run_folder import (
    VOLATILE,
    Run,
    comparable,
    current_layout,
    newest_finished,
    newest_unfinished,
    run_name,
    runs_folder,
)
from epochal.training.trainer import settle_rank

NAMED = 4  # edited keys in a sentence


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
        typed = [
            child._target_
            for group in (config.callbacks, config.logger)
            for child in group.values()
            if isinstance(child, DictConfig)
        ]
        check_saved(run.config(), (*ALLOWED, *config.allow), typed)  # also where the checkpoint's config decides
        saved = trained_config(run)
        if comparable(saved) != comparable(config):
            raise ConfigError(
                f"The run {relative(run.folder)} was trained with another config than its config.yaml says now; "
                f"resume={relative(run.folder)} goes on as it was trained."
            )
        saved.logger = config.logger  # loggers may change
        check_targets(saved, (*ALLOWED, *config.allow), typed)
        if "sweep" in config:
            saved.sweep = config.sweep  # an unfinished run of another trial is taken over by this one
        return saved, run
    run = Run.open(config.resume)
    check_saved(run.config(), (*ALLOWED, *config.allow))
    saved = trained_config(run)
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


def last_checkpoint(run: Run) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from; None where there is none yet.

    Raises:
        ConfigError: If it is damaged, with what to do.
    """
    if not run.last.exists():
        return None
    try:
        return read_checkpoint(run.last)
    except ConfigError as error:
        last, best = relative(run.last), relative(run.best)
        try:
            step = read_checkpoint(run.best)["global_step"]
        except ConfigError:
            remedy = f"Without a whole checkpoint nothing can be resumed; delete {last} to train this run from step 0."
        else:
            remedy = f"{best} is whole: copied over {last}, the run goes on from step {step:,}."
        raise ConfigError(f"{error} {remedy}") from error


def check_saved(config: DictConfig, allowed: tuple[str, ...], trusted: Sequence[str] = ()) -> None:
    """Raises ConfigError if a run's config would make what is not allowed, or a class of the wrong kind."""
    check_targets(config, allowed, trusted)
    if wrong := list(wrong_roles(config)):
        raise ConfigError("\n".join(wrong))


def trained_config(run: Run) -> DictConfig:
    """The config that a run goes on with: its last checkpoint's, where `config.yaml` was edited since; this is said."""
    saved, checkpoint = run.config(), last_checkpoint(run)
    if checkpoint is None:
        return saved
    trained = current_layout(checkpoint["epochal"]["config"])
    edited, known = _leaves(saved), _leaves(trained)
    different = [key for key, value in edited.items() if known.get(key) != value]
    if not different:
        return saved
    named = ", ".join(f"{key}={edited[key]} (trained with {known.get(key)})" for key in different[:NAMED])
    more = f" and {len(different) - NAMED:,} more" if len(different) > NAMED else ""
    say(f"{relative(run.folder / 'config.yaml')} was edited: {named}{more}. The run goes on as it was trained.")
    for key in VOLATILE:
        if key in saved:
            trained[key] = saved[key]
    return trained


def _leaves(config: DictConfig) -> dict[str, Any]:
    """The values by their dotted keys, without those that may differ between processes of one run."""
    found: dict[str, Any] = {}

    def visit(node: Any, key: str) -> None:
        if isinstance(node, dict) and node:
            for name, child in node.items():
                visit(child, f"{key}.{name}" if key else str(name))
        else:
            found[key] = node

    visit({key: value for key, value in plain(config).items() if key not in VOLATILE}, "")
    return found


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
    try:
        run.claim()
        OmegaConf.save(config, run.folder / "config.yaml")
        OmegaConf.save(OmegaConf.create(list(overrides)), run.folder / "overrides.yaml")
    except OSError as error:
        sentence = run.explained(error)
        run.discard()
        if sentence is not None:
            raise sentence from error
        raise
    return run


def rank() -> int:
    """This process's rank, 0 if it trains alone; known before the process group exists."""
    return int(getattr(rank_zero_only, "rank", 0) or 0)
