"""Where metrics and pictures go besides the run's own files."""

from __future__ import annotations

from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, TensorBoardLogger

from epochal.core.errors import ConfigError
from epochal.tasks.artifacts import Artifacts
from epochal.training.loggers.files import RunLogger, save_artifacts
from epochal.training.loggers.wandb import Wandb
from epochal.training.run_folder import Run


def make_logger(config: DictConfig, run: Run, *, wandb_id: str | None, resuming: bool) -> Logger | None:
    """The logger of choice beside the run's own files; None for none.

    Raises:
        ConfigError: If its package is missing.
    """
    if config.logger.name == "wandb":
        return Wandb(config, run, wandb_id=str(wandb_id), resuming=resuming)
    if config.logger.name == "tensorboard":
        try:
            return TensorBoardLogger(save_dir=run.folder, name="tensorboard", version="", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise ConfigError("logger=tensorboard needs its package: pip install -e '.[tensorboard]'.") from error
    return None


def log_artifacts(loggers: list[Logger], artifacts: Artifacts, step: int, *, final: bool = False) -> None:
    """Sends pictures and texts to every logger, each in its own way; final ones are of the test."""
    for logger in loggers:
        if isinstance(logger, RunLogger):
            save_artifacts(artifacts, logger.run.pictures, stem="test_{}" if final else "{}_" + f"{step:06}")
        elif isinstance(logger, Wandb):
            wandb_logger = logger.open()
            for name, picture in artifacts.pictures.items():
                wandb_logger.log_image(key=f"pictures/{name}", images=[picture], step=step)
            for name, text in artifacts.texts.items():
                wandb_logger.log_text(
                    key=f"texts/{name}", columns=["step", "text"], data=[[str(step), text]], step=step
                )
        elif isinstance(logger, TensorBoardLogger):
            import numpy as np

            for name, picture in artifacts.pictures.items():
                logger.experiment.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
            for name, text in artifacts.texts.items():
                logger.experiment.add_text(name, text, step)
