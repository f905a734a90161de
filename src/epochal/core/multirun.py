"""Whether this process runs one of several runs, and what it knows of the others."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from omegaconf import DictConfig

# in the environment of the runs of a grid: the process that they belong to, and the keys in which they differ
GRID = "EPOCHAL_GRID"


@contextmanager
def family(config: DictConfig, varying: Sequence[str]) -> Iterator[None]:
    """Runs started in here know, wherever they run, the process that they belong to, and in which keys they differ."""
    told = json.dumps({"process": os.getpid(), "varying": list(varying)})
    overrides = config.hydra.overrides.hydra  # from which Hydra makes the config of each run
    overrides.append(f"+hydra.job.env_set.{GRID}='{told}'")
    try:
        yield
    finally:
        overrides.pop()


def in_grid() -> bool:
    """Whether this process runs one of several runs."""
    return GRID in os.environ


def end_with_parent() -> None:
    """Ends this process when the grid's is killed: nobody would wait for it, and it would keep its run from being resumed.

    Not on Windows, which does not tell a process that its parent ended.
    """
    parent = json.loads(os.environ.get(GRID, "{}")).get("process")
    if parent in (None, os.getpid()):  # no grid's, or joblib runs one at a time, here
        return

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)  # checkpoints and summaries are written whole or not at all

    if not any(thread.name == "end_with_parent" for thread in threading.enumerate()):
        threading.Thread(target=look, name="end_with_parent", daemon=True).start()
