"""Where metrics and pictures go besides the run's own files."""

from __future__ import annotations

import netrc
import os
import socket
from typing import Any
from urllib.parse import urlparse

from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from epochal.errors import ConfigError
from epochal.runs import Run, RunLogger, plain, rank, save_shown
from epochal.tasks.base import Shown


def make_logger(config: DictConfig, run: Run, *, wandb_id: str, resuming: bool) -> Logger | None:
    """The logger of choice beside the run's own files; None for none.

    Raises:
        ConfigError: If its package is missing.
    """
    if config.logger.name == "wandb":
        return _wandb(config, run, wandb_id=wandb_id, resuming=resuming)
    if config.logger.name == "tensorboard":
        try:
            return TensorBoardLogger(save_dir=run.folder, name="tensorboard", version="", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise ConfigError("logger=tensorboard needs its package: pip install -e '.[tensorboard]'.") from error
    return None


def _wandb(config: DictConfig, run: Run, *, wandb_id: str, resuming: bool) -> WandbLogger:
    if rank() != 0:
        return WandbLogger(mode="disabled")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    model, dataset = config.model.name, config.dataset.name
    experiment = wandb.init(
        project=config.logger.project,
        entity=config.logger.entity,
        name=run.folder.name,
        group=config.logger.group or f"{config.experiment or 'runs'}/{model}-{dataset}",
        tags=[model, dataset, config.task.name, *config.logger.tags],
        job_type="train",
        id=wandb_id,
        resume="allow" if resuming else None,
        dir=run.folder,
        mode=wandb_mode(),  # type: ignore[arg-type]
        config=plain(config),  # in the init record, where `wandb leet` can filter by it
        settings=wandb.Settings(console="off"),
    )
    experiment.define_metric("step")
    experiment.define_metric("*", step_metric="step")
    return WandbLogger(experiment=experiment)


def wandb_mode(environment: Any = os.environ) -> str:
    """`WANDB_MODE` if it is set; else online if there is a key and the server answers, else offline.

    W&B itself asks for a login where there is no key, and fails after 26 seconds where there is no network.
    """
    if mode := environment.get("WANDB_MODE"):
        return mode
    url = urlparse(environment.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    if not environment.get("WANDB_API_KEY") and not _has_netrc_key(url.hostname or "", environment.get("NETRC")):
        return "offline"
    if any(environment.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return "online"  # only the proxy can tell
    try:
        socket.create_connection(
            (url.hostname or "", url.port or (80 if url.scheme == "http" else 443)), timeout=3
        ).close()
    except OSError:
        return "offline"
    return "online"


def _has_netrc_key(host: str, file: str | None) -> bool:
    try:
        return netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def log_shown(loggers: list[Logger], shown: Shown, step: int, *, final: bool = False) -> None:
    """Sends pictures and texts to every logger, each in its own way; final ones are of the test."""
    for logger in loggers:
        if isinstance(logger, RunLogger):
            save_shown(shown, logger.run.pictures, stem="test_{}" if final else "{}_" + f"{step:06}")
        elif isinstance(logger, WandbLogger):
            for name, picture in shown.pictures.items():
                logger.log_image(key=f"pictures/{name}", images=[picture], step=step)
            for name, text in shown.texts.items():
                logger.log_text(key=f"texts/{name}", columns=["step", "text"], data=[[str(step), text]], step=step)
        elif isinstance(logger, TensorBoardLogger):
            import numpy as np

            for name, picture in shown.pictures.items():
                logger.experiment.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
            for name, text in shown.texts.items():
                logger.experiment.add_text(name, text, step)
