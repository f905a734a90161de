"""What our loggers offer beyond Lightning's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pytorch_lightning.loggers import Logger

from epochal.tasks.artifacts import Artifacts


class ArtifactLogger(Logger):
    """A logger that also takes pictures and texts, is opened when the first step is done, and closed when the run ends."""

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """Called before any run with the keys of its group, to find what would fail only later.

        Raises:
            ConfigError: If an option is wrong.
        """

    def open_run(self) -> None:
        """Called once after the first step, whose time it does not count to."""

    def log_artifacts(self, artifacts: Artifacts, step: int, *, final: bool) -> None:
        """Pictures, texts and profiles of a validation or, if final, of the test."""

    def close(self, *, failed: bool) -> None:
        """Called when the run has ended, however it did."""


def log_artifacts(loggers: Iterable[Logger], artifacts: Artifacts, step: int, *, final: bool = False) -> None:
    """Sends pictures and texts to every logger that takes them."""
    for logger in loggers:
        if isinstance(logger, ArtifactLogger):
            logger.log_artifacts(artifacts, step, final=final)
