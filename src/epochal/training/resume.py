"""The folder of a run: a new one, or that of a run to resume."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.console import Console

from epochal.config.allowlist import ALLOWED, check_targets
from epochal.config.compose import plain
from epochal.config.validate import wrong_roles
from epochal.core.errors import ConfigError
from epochal.core.files import one_at_a_time, relative, write_atomically
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
    not_writable,
    run_name,
    runs_folder,
)
from epochal.training.trainer import settle_rank

NAMED = 4  # edited keys in a sentence
LEASE = 120  # seconds; an NFS server keeps the locks of a machine that crashed for 90


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
        run = newest_unfinished(runs_folder(config), config)
        if run is None:
            return config, None
        claim(run)
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
    claim(run)
    return saved, run


def claim(run: Run) -> None:
    """Locks a run that is to go on, for this process and those that train with it.

    Raises:
        ConfigError: If another process trains it, or it has finished.
    """
    if rank() == 0 and not run.claim():
        _wait(run)
    if run.summary().get("status") == "finished":
        run.release()
        raise ConfigError(f"{relative(run.folder)} is finished: there is nothing to resume.")
    if rank() == 0:
        run.sweep()


def _wait(run: Run) -> None:
    """Waits a little for a run that a process on another machine holds: of one that crashed, the lock ends soon.

    Raises:
        ConfigError: If it is still held then.
    """
    host = run.lock.holder()[1]
    if host == socket.gethostname():
        raise ConfigError(f"{run.in_use()}; it can be resumed when that has ended.")
    say(f"{run.in_use()}; waiting up to {LEASE} seconds, in case that machine has crashed.")
    end = time.monotonic() + LEASE
    while time.monotonic() < end:
        if run.claim():
            return
        time.sleep(1)
    raise ConfigError(
        f"{run.in_use()}; where that machine is no longer running, delete {relative(run.lock.path)} and resume again."
    )


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


def trained_on(run: Run | None, checkpoint: dict[str, Any] | None) -> str | None:
    """The fingerprint of the data that a run learned from, as its checkpoint or else `summary.json` has it."""
    kept = checkpoint["epochal"].get("data_fingerprint") if checkpoint is not None else None  # not in version 0.1
    return kept or (run.summary().get("data_fingerprint") if run is not None else None)


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


def new_run(config: DictConfig, overrides: Sequence[str], *, auto: bool = False) -> Run:
    """A new folder with the config in it; on other ranks a placeholder, until rank zero broadcasts its folder.

    Args:
        config: Resolved.
        overrides: As typed.
        auto: Whether the same run would have been resumed.

    Raises:
        ConfigError: If the folder cannot be written; with `auto`, if the same run has begun meanwhile.
    """
    parent = runs_folder(config)
    if rank() != 0:
        return Run(parent / "of-rank-zero")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(parent / ".new.lock") if auto else nullcontext():
            if auto:
                check_alone(parent, config)
            return _written(Run.create(parent, run_name(config)), config, overrides)
    except OSError as error:
        raise not_writable(parent, error) from error


def check_alone(parent: Path, config: DictConfig) -> None:
    """Raises ConfigError if another process has begun the same run since this one looked for runs to resume."""
    if run := newest_unfinished(parent, config) or newest_finished(parent, config):
        raise ConfigError(
            f"The same run was begun at the same time: {run.in_use()}; it can be resumed when that has ended."
        )


def _written(run: Run, config: DictConfig, overrides: Sequence[str]) -> Run:
    """The new run, locked and with its configs in its folder; the folder is removed again where they cannot be written."""
    try:
        run.lock.acquire()
        write_atomically(run.folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
        write_atomically(run.folder / "config.yaml", OmegaConf.to_yaml(config))  # last: it makes the folder a run's
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
