"""Where metrics, pictures and texts go: the run's own files, W&B, TensorBoard, or any logger of Lightning."""

from epochal.training.loggers.base import ArtifactLogger, log_artifacts
from epochal.training.loggers.files import CSV, RunLogger
from epochal.training.loggers.tensorboard import TensorBoard
from epochal.training.loggers.wandb import Wandb

__all__ = ["CSV", "ArtifactLogger", "RunLogger", "TensorBoard", "Wandb", "log_artifacts"]
