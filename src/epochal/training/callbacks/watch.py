"""A training of points that somebody watches on the lab's page: what the network makes of the plane, a few times a second."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.data import Points
from epochal.data.points import grid
from epochal.models.mlp import ACTIVATIONS, MLP

FOLDER = "EPOCHAL_WATCH"  # environment variable: where frames go; the config of a run is the same whether it is watched
SQUARES = 48  # of the plane, along a side
SPARSE = 2  # every second square of the maps of units
MOST_UNITS = 16  # of a layer
CURVE = 400  # points of the curves, at most
SECONDS = 1 / 12  # between two frames, at least
SHARE = 0.05  # of the time that frames may take, at most


class Watch(pl.Callback):
    """Writes `frame.json` into a folder while an MLP learns points, and obeys `controls.json` there.

    It changes nothing of the training unless it is told to, and waits between two frames until they have taken no more than
    SHARE of the time.

    Args:
        folder: Which exists. `controls.json` may have learning_rate, weight_decay and stop.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._next, self._obeyed = 0.0, 0
        self._curve: list[tuple[int, float, float, float]] = []  # step, training loss, validation loss and accuracy
        self._thin = 1  # of so many frames one is kept in the curve
        self._frames = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, Points) and isinstance(pl_module.model, MLP) and trainer.is_global_zero:
            self._show(trainer, pl_module)
        else:
            self._next = float("inf")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        if (began := time.perf_counter()) < self._next:
            return
        self._show(trainer, pl_module)
        now = time.perf_counter()
        self._next = now + max(SECONDS, (now - began) / SHARE)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._next < float("inf"):
            self._show(trainer, pl_module)

    def _show(self, trainer: pl.Trainer, task: Any) -> None:
        self._obey(trainer)
        frame = self._frame(trainer, task)
        part = self.folder / ".frame.json"
        with contextlib.suppress(
            OSError
        ):  # the folder may be gone; on Windows the server may be reading the last frame
            part.write_text(json.dumps(frame, allow_nan=False))
            part.replace(self.folder / "frame.json")  # no fsync: the next frame replaces it anyway

    def _obey(self, trainer: pl.Trainer) -> None:
        """Sets what `controls.json` says, if it has changed."""
        try:
            stamp = (self.folder / "controls.json").stat().st_mtime_ns
            if stamp == self._obeyed:
                return
            told = json.loads((self.folder / "controls.json").read_text())
        except (OSError, ValueError):
            return
        self._obeyed = stamp
        if told.get("stop"):
            os.kill(os.getpid(), signal.SIGTERM)  # as the page stops any run: it saves and ends
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = told.get("learning_rate", group["lr"])
                if any(parameter.dim() >= 2 for parameter in group["params"]):
                    group["weight_decay"] = told.get("weight_decay", group["weight_decay"])
        for config in trainer.lr_scheduler_configs:
            if "learning_rate" in told:
                scheduler: Any = config.scheduler
                scheduler.base_lrs = [told["learning_rate"]] * len(scheduler.base_lrs)

    @torch.no_grad()
    def _frame(self, trainer: pl.Trainer, task: Any) -> dict[str, Any]:
        """What the page draws: probabilities and units as base64 of bytes, losses, and the optimiser's settings."""
        model, data = task.model, task.data
        training = model.training
        model.eval()
        logits, units = _layers(model, grid(SQUARES).to(task.device, data.dtype))
        losses = {split: _measured(model, data, split) for split in ("train", "val")}
        model.train(training)
        step = trainer.global_step
        if self._frames % self._thin == 0:
            self._curve.append((step, losses["train"][0], *losses["val"]))
        if len(self._curve) > CURVE:
            self._curve, self._thin = self._curve[::2], 2 * self._thin
        self._frames += 1
        group = trainer.optimizers[0].param_groups[0]
        probabilities = (255 * logits.float().softmax(1).nan_to_num()).round().to(torch.uint8).T
        return {
            "step": step,
            "frames": self._frames,
            "size": SQUARES,
            "plane": _encoded(probabilities),
            "unit_size": SQUARES // SPARSE,
            "layers": [{"count": values.shape[1], "maps": _encoded(_maps(values))} for values in units],
            "train": losses["train"],
            "val": losses["val"],
            "curve": self._curve,
            "learning_rate": group["lr"],
            "weight_decay": group["weight_decay"],
        }


def _layers(model: MLP, points: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits (N, classes) of points, and the outputs (N, width) of each hidden layer."""
    units = []
    for layer in model.layers:
        points = layer(points)
        if isinstance(layer, tuple(ACTIVATIONS.values())):
            units.append(points)
    return points, units


def _measured(model: MLP, data: Points, split: str) -> tuple[float, float]:
    """Loss and accuracy of all points of a split."""
    rows, _ = data.rows(split)
    device = next(model.parameters()).device
    labels = rows.labels.to(device)
    logits = model(rows.points.to(device, data.dtype)).float()
    loss = F.cross_entropy(logits, labels).nan_to_num(1e9, 1e9)
    return round(loss.item(), 5), round((logits.argmax(1) == labels).float().mean().item(), 4)


def _maps(values: Tensor) -> Tensor:
    """Outputs (squares, width) of a layer as bytes (units, sparse squares): 128 is 0, 1 and 255 are the unit's extreme."""
    maps = (
        values[:, :MOST_UNITS].float().nan_to_num().T.unflatten(1, (SQUARES, SQUARES))[:, ::SPARSE, ::SPARSE].flatten(1)
    )
    scaled = maps / maps.abs().amax(1, keepdim=True).clamp_min(1e-9)
    return (128 + 127 * scaled).round().to(torch.uint8)


def _encoded(values: Tensor) -> str:
    return base64.b64encode(values.cpu().contiguous().numpy().tobytes()).decode()
