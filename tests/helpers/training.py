"""Runs for the tests: composed as the command line composes them, in this process or in one that may be killed."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

CONF = Path(__file__).parents[2] / "conf"


def composed(*overrides: str) -> DictConfig:
    """What `python train.py <overrides>` runs."""
    from epochal.config.compose import compose

    return compose(overrides)


def train(*overrides: str, callbacks: tuple[Any, ...] = ()) -> Any:
    """`python train.py <overrides>`, without the command line."""
    from epochal.training.build import build

    with build(composed(*overrides), overrides=list(overrides), console=Console(file=io.StringIO())) as job:
        job.trainer.callbacks.extend(callbacks)
        job.fit()
        job.test()
        job.report()
    return job


def train_until_killed(overrides: tuple[str, ...], kill_after: int | None, where: str) -> None:
    """Trains in this process, which kills itself when it comes to the hook `where` after so many steps of its own.

    Without a number of steps it may finish.
    """
    import pytorch_lightning as pl
    import torch

    torch.set_num_threads(1)

    class Killer(pl.Callback):
        steps = 0

        def on_train_batch_start(self, *_: Any) -> None:
            self.steps += 1

    def die(self: Any, *_: Any) -> None:
        if where == "on_train_batch_start":
            Killer.on_train_batch_start(self)
        if kill_after is not None and self.steps > kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    killer = type("KillerHere", (Killer,), {where: die})()
    train(*overrides, callbacks=(killer,))


def in_new_process(function: Any, *arguments: Any) -> int:
    """Its exit code; minus the signal if one ended it. Imports are paid once, by the server that forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["epochal.training.build", "epochal.cli", "torch.utils.flop_counter"])
    process = context.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


# moments around the saving of a pair of checkpoints: before last.ckpt is there, before the link and before best.ckpt is
# replaced, and after it
SAVING = {
    "before last": ("replace", "last.ckpt", 0),
    "before link": ("link", "", 0),
    "before best": ("replace", "best.ckpt", 0),
    "after best": ("replace", "best.ckpt", 1),
}


def train_until_killed_saving(overrides: tuple[str, ...], moment: str, saves: int) -> None:
    """Trains in this process, which kills itself at this moment (see `SAVING`) of its so many-th better checkpoint."""
    import torch

    torch.set_num_threads(1)
    name, target, after = SAVING[moment]
    real, left = getattr(os, name), [saves]

    def dying(source: Any, destination: Any, *rest: Any, **named: Any) -> Any:
        ours = Path(destination).parent.name == "checkpoints" and Path(destination).name.endswith(target)
        left[0] -= ours
        if after and ours:
            real(source, destination, *rest, **named)
        if ours and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return None if after and ours else real(source, destination, *rest, **named)

    setattr(os, name, dying)
    train(*overrides)
