"""Trains, evaluates and compares every milestone architecture of a deep-learning course, from LeNet-5 to ChatGPT.

From a notebook:

    import epochal

    run = epochal.train(["model=lenet"])           # what `epochal train model=lenet` does
    run = epochal.load("outputs/runs/<run>")       # the network in eval mode, with its normalisation or tokenizer
    run.predict(images), run.generate("ROMEO:")
    epochal.compare("outputs/runs")                # table, figures and report
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from epochal.core.errors import EpochalError

if TYPE_CHECKING:
    from pathlib import Path

    from epochal.inference.notebook import LoadedRun

try:
    __version__ = version("epochal")
except PackageNotFoundError:  # the source tree alone, on the path
    __version__ = "0+unknown"

__all__ = ["EpochalError", "__version__", "compare", "load", "train"]


def train(overrides: Sequence[str] = ()) -> Any:
    """Does what `epochal train` does with these arguments.

    Args:
        overrides: Such as `["model=lenet", "duration=2epochs"]`; with `-m`, an experiment or a sweep there are many runs.

    Returns:
        The run, loaded; of several a list of them, those that failed left out.

    Raises:
        EpochalError: What is wrong, in a sentence.
    """
    from epochal.cli import run, train_run
    from epochal.experiments.outcome import ended

    results = run("train", train_run, list(overrides))
    if results:
        return load(results[0][0].folder)
    return [load(outcome["folder"]) for outcome in ended if outcome["folder"] and outcome["status"] != "failed"]


def load(run: str | Path) -> LoadedRun:
    """The network of a run's folder with its best weights, ready to predict or to write.

    Raises:
        ConfigError: If the folder is no run's, or holds no checkpoint.
    """
    from epochal.inference.notebook import load

    return load(run)


def __getattr__(name: str) -> Any:
    if name == "compare":  # both a package and, from a notebook, a function: `epochal.compare("outputs/runs")`
        import importlib

        return importlib.import_module("epochal.compare")
    raise AttributeError(f"module epochal has no attribute {name}")
