"""How one of several runs ended."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from typing import Any, TypedDict

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.text import Text

from epochal.config.messages import sentence
from epochal.core.errors import DivergedError, EpochalError
from epochal.core.format import print_anything, verbatim
from epochal.core.multirun import GRID, end_with_parent

SIGNS = {"finished": ("✓", "green"), "already": ("=", "green"), "pruned": ("✂", "yellow"), "failed": ("✗", "red")}


class Outcome(TypedDict):
    """What a run returns to its grid."""

    overrides: list[str]
    status: str  # finished, already, failed, pruned
    error: str | None
    exit_status: int
    diverged: bool  # failed because a loss or weight was not finite
    folder: str | None
    summary: dict[str, Any]


ended: list[Outcome] = []  # the runs of this process's newest grid


def tell(outcome: Outcome, seconds: float) -> None:
    """Prints the run's line."""
    Console().print(line(outcome, seconds), soft_wrap=True)


def line(outcome: Outcome, seconds: float) -> Text:
    """One line for a run that has ended."""
    from epochal.core.format import duration_text, number_text

    varying = json.loads(os.environ.get(GRID, "{}")).get("varying")
    shown = [o for o in outcome["overrides"] if varying is None or split(o)[0] in varying]
    parts = [SIGNS.get(outcome["status"], SIGNS["failed"]), f" {' '.join(shown)} "]
    metrics = outcome["summary"].get("metrics", {})
    best = outcome["summary"].get("best", {})
    if metrics.get("train/loss") is not None:
        parts += ["  train/loss ", (number_text("train/loss", metrics["train/loss"]), "bold")]
    if best.get("value") is not None:  # the last value is in the table after the grid
        parts += [f"  best {best['metric']} ", (number_text(best["metric"], best["value"]), "bold")]
    if outcome["status"] == "already":
        parts.append(("  finished before", "dim"))
    elif outcome["status"] == "failed":
        parts += [("  failed:", "red"), f" {outcome['error']}"]
    else:
        parts.append((f"  {duration_text(seconds)}", "dim"))
    return verbatim(*parts)


def split(override: str) -> tuple[str, str]:
    """Key and value of an override, without the signs in front of the key."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def one_of_many(function: Callable[[DictConfig], Any], config: DictConfig, overrides: list[str]) -> Any:
    """Runs one run of a grid; prints a line about it and returns its outcome instead of raising."""
    from hydra.core.hydra_config import HydraConfig

    print_anything()
    if HydraConfig.get().runtime.choices["hydra/launcher"] == "joblib":
        end_with_parent()
    outcome: Outcome = {
        "overrides": overrides,
        "status": "failed",
        "error": None,
        "exit_status": 0,
        "diverged": False,
        "folder": None,
        "summary": {},
    }
    started = time.perf_counter()
    try:
        run, before = function(config)
        outcome["folder"], outcome["summary"] = str(run.folder), run.summary()
        outcome["status"] = "already" if before else outcome["summary"].get("status", "failed")
    except Exception as error:  # in the outcome, and a bug's traceback is printed: the other runs go on
        if not isinstance(error, EpochalError | OmegaConfBaseException):
            traceback.print_exception(error)
        outcome["error"], outcome["diverged"] = sentence(error), isinstance(error, DivergedError)
        outcome["exit_status"] = error.exit_status if isinstance(error, EpochalError) else 1
    tell(outcome, time.perf_counter() - started)
    return outcome
