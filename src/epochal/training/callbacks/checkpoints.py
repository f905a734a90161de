"""The newest and the best weights, written whole or not at all."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from epochal.core.errors import DivergedError
from epochal.training.run_folder import Run


class Checkpoints(pl.callbacks.Checkpoint):
    """Saves `last.ckpt` after each validation and every so many steps, `best.ckpt` after the best validation.

    Args:
        run: Where to.
        every: Steps; None for after validations only.
        reports: The metric that decides what is best, and "max" or "min"; None takes the newest for the best.
        extra: What else a checkpoint holds, as plain containers under the key "epochal".
    """

    def __init__(
        self, run: Run, *, every: int | None, reports: tuple[str, str] | None, extra: Callable[[], dict[str, Any]]
    ) -> None:
        self.run, self.every, self.reports, self.extra = run, every, reports, extra
        self.best: dict[str, Any] = {}  # metric, value, step
        self._saved_at = -1
        self._better = False  # whether the checkpoint that is being written becomes best.ckpt

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        # If a validation follows, it saves: a run resumed from a checkpoint before it would skip it.
        if not self.every:
            return
        step = trainer.global_step
        if step and step % self.every == 0 and step != self._saved_at and not validation_follows(trainer):
            self._save(trainer, pl_module, better=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = None
        if self.reports is not None:
            value = float(trainer.callback_metrics[self.reports[0]])
            old = self.best.get("value")
            better = (
                old is None or not math.isfinite(old) or (value >= old if self.reports[1] == "max" else value <= old)
            )  # of two equals the later one
        else:
            better = True
        if better:
            self.best = {
                "metric": self.reports[0] if self.reports else None,
                "value": value,
                "step": trainer.global_step,
            }
        self._save(trainer, pl_module, better=better)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.global_step != self._saved_at:  # the last steps were not validated
            self._save(trainer, pl_module, better=not self.best or self.reports is None)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["epochal"] = {**self.extra(), "is_best": self._better}

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """After a kill between the writing of `last.ckpt` and the link, makes `best.ckpt` the file that it should be."""
        known = checkpoint["epochal"].get("is_best")
        if known is None:  # checkpoints of older versions: best was set just before it was saved
            known = checkpoint["callbacks"].get(self.state_key, {}).get("step") == checkpoint["global_step"]
        if known and trainer.is_global_zero:
            self._link_best()

    def state_dict(self) -> dict[str, Any]:
        return dict(self.best)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = dict(state)

    def _save(self, trainer: pl.Trainer, pl_module: Any, better: bool) -> None:
        for name, parameter in pl_module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise DivergedError(
                    f"{name.removeprefix('model.')} is no longer finite at step {trainer.global_step:,}. "
                    "Try a smaller optimizer.lr, or trainer.gradient_clip_val=1."
                )
        self._better = better
        trainer.save_checkpoint(self.run.last)
        self._saved_at = trainer.global_step
        if better and trainer.is_global_zero:
            self._link_best()
        trainer.strategy.barrier()  # no rank looks for a checkpoint before it is there

    def _link_best(self) -> None:
        """Makes `best.ckpt` the same file as `last.ckpt`."""
        if self.run.best.exists() and self.run.best.samefile(self.run.last):  # replacing a link by itself leaves both
            return
        link = self.run.best.with_name(".best.ckpt.part")
        link.unlink(missing_ok=True)
        try:
            os.link(self.run.last, link)  # last.ckpt is replaced, never changed, so both may be one file
        except OSError:
            shutil.copyfile(self.run.last, link)
        os.replace(link, self.run.best)


def validation_follows(trainer: pl.Trainer) -> bool:
    """Whether Lightning validates after the batch that just ended."""
    if trainer.limit_val_batches == 0:
        return False
    every = trainer.val_check_batch or float("inf")
    if trainer.check_val_every_n_epoch is None:
        return trainer.should_stop or (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % every == 0
    if (trainer.current_epoch + 1) % trainer.check_val_every_n_epoch:
        return False
    if trainer.should_stop:
        return True
    return trainer.is_last_batch or (trainer.fit_loop.epoch_loop.batch_idx + 1) % every == 0
