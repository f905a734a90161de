"""Run folders as training leaves them, without training."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from epochal.compare.comparison import Comparison
from epochal.compare.design import Design
from epochal.compare.request import Request
from epochal.config.compose import compose, flat, plain

METRICS = (
    "train/loss",
    "train/accuracy",
    "train/gradient_norm",
    "val/loss",
    "val/accuracy",
    "test/loss",
    "test/accuracy",
)

ERRORS = {  # training errors by seed: plain networks get worse with depth, residual ones better
    ("plain", 8): [0.2, 0.21, 0.22],
    ("plain", 44): [0.4, 0.41, 0.43],
    ("resnet", 8): [0.2] * 3,
    ("resnet", 44): [0.1] * 3,
}


def compare(folder: Path, **choices: Any) -> Comparison:
    """The runs in a folder, with what a person might choose; its report would go beside it."""
    return Request(paths=(str(folder),), to=str(folder.parent / "report"), **choices).compare()


def run_folder(
    parent: Path,
    name: str,
    *,
    model: str = "mlp",
    seed: int = 1,
    status: str = "finished",
    metrics: Mapping[str, float | None] | None = None,
    config: Mapping[str, Any] | None = None,
    typed: Sequence[str] = (),
    rows: int = 5,
    **summary: Any,
) -> Path:
    """A run folder with `rows` logged rows that lead to `metrics`.

    Args:
        parent: Is made where it is missing.
        name: Of the folder.
        model: Its name.
        seed: Of the run.
        status: As summary.json says.
        metrics: Last values; None leaves a cell empty. Default: a loss of 0.5 and an accuracy of 0.9.
        config: Further dotted keys.
        typed: As they stand in overrides.yaml.
        rows: Of metrics.csv.
        summary: Further entries of summary.json.
    """
    folder = parent / name
    (folder / "pictures").mkdir(parents=True)
    last = dict(metrics or {"val/loss": 0.5, "val/accuracy": 0.9})
    keys: dict[str, Any] = {
        "seed": seed,
        "output_dir": "outputs",
        "experiment": None,
        "duration": "5epochs",
        "model.name": model,
        "model._target_": f"epochal.models.{model}.for_data",
        "dataset.name": "digits",
        "dataset.batch_size": 64,
        "optimizer.name": "adamw",
        "optimizer.lr": 0.001,
        **(config or {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(nested(keys)))
    (folder / "overrides.yaml").write_text(yaml.safe_dump(list(typed)))
    described = {
        "status": status,
        "error": "The loss is nan at step 2." if status == "failed" else None,
        "model": model,
        "seed": seed,
        "metrics": last,
        "best": {"metric": "val/accuracy", "value": last.get("val/accuracy"), "step": 40}
        if "val/accuracy" in last
        else {},
        "parameters": 1000,
        "flops": 2000,
        "examples_per_second": 500.0,
        "seconds": 12.5,
        "steps": 10 * rows,
        "total_steps": 50,
        "epochs": 5.0,
        **summary,
    }
    (folder / "summary.json").write_text(json.dumps(described))
    lines = [",".join(["step", "epoch", "examples", "seconds", *last])]
    for row in range(1, rows + 1):
        values = ["" if value is None else repr(value * (1 + (rows - row) / rows)) for value in last.values()]
        lines.append(",".join([str(10 * row), str(float(row)), str(640 * row), f"{0.5 * row}", *values]))
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def nested(keys: Mapping[str, Any]) -> dict[str, Any]:
    """{"model.name": 1} as {"model": {"name": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in keys.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def grid(parent: Path, errors: Mapping[tuple[str, int], Sequence[float]], **config: Any) -> Path:
    """A run for each model, depth and seed, with these training errors in order of the seeds 1, 2, 3 ..."""
    for (model, depth), values in errors.items():
        _seeds(
            parent, model, depth, values, {"model.depth": depth, **config}, [f"model={model}", f"model.depth={depth}"]
        )
    return parent


def claim_grid(
    parent: Path, experiment: str, budget: str | None, errors: Mapping[tuple[str, int], Sequence[float]]
) -> Path:
    """The same at every point of an experiment's grid that has these models and depths, with the configs it composes."""
    for (model, depth), values in errors.items():
        chosen = (f"model={model}", f"model.depth={depth}")
        points = [tuple(point) for point in Design(experiment, budget).points if {*chosen} <= {*point}] or [chosen]
        for number, point in enumerate(dict.fromkeys(points)):
            typed, config = designed(experiment, budget, point)
            _seeds(parent, model, depth, values, config, typed, f"-{number}" if number else "")
    return parent


def _seeds(
    parent: Path,
    model: str,
    depth: int,
    errors: Sequence[float],
    config: Mapping[str, Any],
    typed: Sequence[str],
    suffix: str = "",
) -> None:
    for seed, error in enumerate(errors, start=1):
        run_folder(
            parent,
            f"{model}-{depth}-{seed}{suffix}",
            model=model,
            seed=seed,
            metrics={"train/accuracy": 1 - error, "val/accuracy": 0.9 - error / 2, "val/loss": error},
            config={**config, "seed": seed},
            typed=[*typed, f"seed={seed}"],
            parameters=1000 * depth,
        )


@lru_cache(maxsize=64)
def designed(experiment: str, budget: str | None, chosen: tuple[str, ...]) -> tuple[list[str], dict[str, Any]]:
    """The overrides of the experiment's grid that include `chosen`, or those alone if none does, and the config of these."""
    points = [point for point in Design(experiment, budget).points if {*chosen} <= {*point}]
    typed = [*points[0]] if points else [*chosen]
    given = [f"experiment={experiment}", *([f"budget={budget}"] if budget else [])]
    config = plain(compose([*given, *typed]))
    return typed, {key: value for key, value in flat(config).items() if key.split(".")[0] not in ("claim", "budgets")}


def many(parent: Path, runs: int, rows: int) -> Path:
    """Runs with ten columns of metrics and every cell filled in, for measuring how fast they are read."""
    chance = random.Random(0)
    names = (*METRICS, "train/learning_rate", "train/examples_per_second", "val/top5_accuracy")
    values = np.random.default_rng(0).random((rows, len(names))).tolist()
    lines = [
        ",".join([str(10 * row), str(row / 5), str(640 * row), str(round(0.11 * row, 3)), *map(repr, cells)])
        for row, cells in enumerate(values, start=1)
    ]
    text = "\n".join([",".join(["step", "epoch", "examples", "seconds", *names]), *lines]) + "\n"
    for number in range(runs):
        depth, seed = 8 + 6 * (number // 5), number % 5
        metrics = {"val/accuracy": chance.random(), "train/accuracy": chance.random()}
        folder = run_folder(parent, f"run-{number:04}", seed=seed, config={"model.depth": depth}, metrics=metrics)
        (folder / "metrics.csv").write_text(text)
    return parent
