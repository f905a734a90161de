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
# of a Transformer that is trained in a moment
TINY = ("model.depth=1", "model.embed_dim=8", "model.num_heads=1", "logger=none", "dataset.batch_size=4")


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


def in_new_process(function: Any, *arguments: Any, seconds: float | None = None) -> int:
    """Its exit code; minus the signal if one ended it. Imports are paid once, by the server that forks.

    Args:
        function, arguments: What the process calls.
        seconds: After which it is killed; None lets it end.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["epochal.training.build", "epochal.cli", "torch.utils.flop_counter"])
    process = context.Process(target=function, args=arguments)
    process.start()
    process.join(seconds)
    if seconds is not None and process.is_alive():
        process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode
