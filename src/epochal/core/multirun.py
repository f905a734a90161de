"""What one of several runs knows of the grid that it belongs to."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig

from epochal.core.errors import ConfigError

# environment variable of the runs of a grid: the grid's process and the keys in which the runs differ, as JSON
GRID = "EPOCHAL_GRID"


@contextmanager
def family(config: DictConfig, varying: Sequence[str]) -> Iterator[None]:
    """Runs started within it find the grid's process and the keys in which they differ in their environment."""
    told = json.dumps({"process": os.getpid(), "varying": list(varying)})
    overrides = config.hydra.overrides.hydra  # part of the config of each run
    overrides.append(f"+hydra.job.env_set.{GRID}='{told}'")
    try:
        yield
    finally:
        overrides.pop()


def typed_alone(overrides: Sequence[str]) -> set[str]:
    """The keys that were typed with a value of their own for this run alone.

    In a grid, a search or a sweep of W&B there are none: there an option is typed for all runs, also for those that have no use
    for it; nor does null or auto ask for anything.
    """
    if in_grid() or "WANDB_SWEEP_ID" in os.environ:
        return set()
    pairs = (override.lstrip("+").partition("=") for override in overrides if not override.startswith("~"))
    return {key for key, _, value in pairs if value not in ("", "null", "auto")}


def stages(before: Sequence[Any]) -> list[list[Any]]:
    """The grids of `hydra.sweeper.before` by stage: each list in it is one, or all of it, where it lists grids.

    Raises:
        ConfigError: If lists stand beside grids.
    """
    lists = [not isinstance(entry, Mapping | DictConfig) for entry in before]
    if any(lists) and not all(lists):
        raise ConfigError("hydra.sweeper.before must be a list of grids, or of lists of grids, not both.")
    return [list(stage) for stage in before] if any(lists) else [list(before)]


def in_grid() -> bool:
    """Whether this process runs one of several runs of a grid."""
    return GRID in os.environ


def end_with_parent() -> None:
    """Ends this process when the grid's process is killed, so that its run can be resumed.

    Not on Windows, where a process does not learn that its parent ended.
    """
    parent = json.loads(os.environ.get(GRID, "{}")).get("process")
    if parent in (None, os.getpid()):  # not in a grid, or joblib runs one at a time in this process
        return

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)  # safe at any time: files are written whole or not at all

    if not any(thread.name == "end_with_parent" for thread in threading.enumerate()):
        threading.Thread(target=look, name="end_with_parent", daemon=True).start()
