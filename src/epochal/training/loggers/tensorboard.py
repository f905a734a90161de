"""TensorBoard."""

from __future__ import annotations

from typing import Any

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger

from epochal.core.errors import ConfigError
from epochal.tasks.artifacts import Artifacts
from epochal.training.loggers.base import ArtifactLogger
from epochal.training.run_folder import Run


class TensorBoard(TensorBoardLogger, ArtifactLogger):
    """Lightning's TensorBoardLogger, with pictures and texts.

    Args:
        run: Its folder is written to.

    Raises:
        ConfigError: If the package tensorboard is missing.
    """

    def __init__(self, *, run: Run) -> None:
        try:
            super().__init__(save_dir=run.folder, name="tensorboard", version="", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise ConfigError("logger=tensorboard needs its package: pip install 'epochal[tensorboard]'.") from error

    def log_artifacts(self, artifacts: Artifacts, step: int, *, final: bool) -> None:
        writer: Any = self.experiment
        for name, picture in artifacts.pictures.items():
            writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        for name, text in artifacts.texts.items():
            writer.add_text(name, text, step)
