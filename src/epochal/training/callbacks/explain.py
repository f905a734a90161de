"""Pictures of how an image classifier sees, after the test."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from epochal.tasks import Artifacts, Task
from epochal.training.loggers import log_artifacts
from epochal.training.loggers.wandb import Wandb


class Explain(pl.Callback):
    """Logs filters, feature maps, and Grad-CAM or attention of the tested weights; see `epochal.tasks.visuals.explain`.

    They are saved with the other pictures of the test; W&B shows them in a panel of their own.

    Args:
        task: Around the model.

    Raises:
        ConfigError: If there is nothing to show of the model.
    """

    def __init__(self, task: Task) -> None:
        from epochal.tasks.visuals import explain

        explain.check(task, option="callbacks.explain")

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        from epochal.tasks.visuals import explain

        pictures = explain.explain(pl_module.model, pl_module.data, explain.choose_images(pl_module.data))
        others = [logger for logger in trainer.loggers if not isinstance(logger, Wandb)]
        log_artifacts(others, Artifacts(pictures=pictures), trainer.global_step, final=True)
        for logger in trainer.loggers:
            if isinstance(logger, Wandb):
                for name, picture in pictures.items():
                    key = name.replace("explain_", "explain/")
                    logger.open().log_image(key=key, images=[picture], step=trainer.global_step)
