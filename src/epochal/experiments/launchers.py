"""Launchers, which start runs in other processes or on other machines: what they need, and errors when a run's process dies."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig, OmegaConf

from epochal.core.errors import ConfigError, EpochalError

HERE = ("basic", "joblib")
NAMES = {"submitit_slurm": "slurm"}  # names in conf/launcher for those of Hydra
# raised by submitit, Ray and joblib when a run's process died before it returned an outcome
LOST = (
    "UncompletedJobError",
    *("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "LocalRayletDiedError"),
    "TerminatedWorkerError",
)


def launcher(config: DictConfig) -> str:
    """The chosen launcher: basic, joblib, slurm, submitit_local or ray."""
    chosen = str(config.hydra.runtime.choices["hydra/launcher"])
    return NAMES.get(chosen, chosen)


def elsewhere(config: DictConfig) -> bool:
    """Whether the runs may start on another machine, which may have GPUs and has no terminal."""
    return launcher(config) not in HERE


def check(config: DictConfig) -> None:
    """Checks that the cluster of the launcher can be reached.

    Raises:
        ConfigError: If there is none.
    """
    if launcher(config) == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError(
            "launcher=slurm hands runs to SLURM, and there is no sbatch here; "
            "type the line on a machine of the cluster, or choose launcher=joblib."
        )
    if launcher(config) == "ray":
        _connect(config)


def _connect(config: DictConfig) -> None:
    """Connects this process to the Ray cluster; the launcher uses the connection."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # Ray would take the lines of the runs for repetitions of one line
    import ray

    settings = OmegaConf.to_container(config.hydra.launcher.ray.init, resolve=True)
    assert isinstance(settings, dict)
    address = settings.get("address")
    host, _, port = str(address).rpartition(":")
    try:
        if host and port.isdigit():
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would try for many minutes
        ray.init(**{str(key): value for key, value in settings.items()})
    except OSError as error:
        raise ConfigError(
            f"launcher=ray found no Ray cluster at address={address}; start one with ray start --head, "
            "or name it: hydra.launcher.ray.init.address=<host>:6379"
        ) from error


def check_alone(chosen: str) -> None:
    """Raises ConfigError for a single run with a launcher of grids, which Hydra would ignore."""
    if chosen not in HERE:
        name = NAMES.get(chosen, chosen)
        raise ConfigError(f"launcher={name} starts the runs of a grid: add -m, also for a grid of one run.")


@contextmanager
def lost_runs(config: DictConfig) -> Iterator[None]:
    """Turns errors of a launch into sentences: SLURM refused the runs, or a run's process was killed.

    Raises:
        ConfigError: If SLURM took none.
        EpochalError: If one was killed.
    """
    try:
        yield
    except Exception as error:  # the libraries' own classes, whose packages may be missing; all others are raised again
        lines = str(error).splitlines()
        if lines and lines[0].startswith("sbatch:"):
            raise ConfigError(f"SLURM takes no such run; {lines[0]}") from error
        if type(error).__name__ not in LOST:
            raise
        others = "The others go on" if launcher(config) in ("slurm", "submitit_local") else "The others ended with it"
        again = "" if config.resume == "auto" else ", with resume=auto,"
        raise EpochalError(
            f"A run's process died: {' '.join(lines[:2]).strip()}\n{others}; the same line typed again{again} does what is left then."
        ) from error
