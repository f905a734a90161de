"""The decision boundary of a classifier of points: the plane in the colours of its classes, and the points."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from epochal.data.points import SPAN, grid
from epochal.plots.images import titled_sheet
from epochal.tasks.base import Task

# Colours of the classes, told apart also by the colour-blind (Okabe, Ito 2008); the page of the lab has the same
COLOURS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (190, 178, 30),
    (90, 90, 90),
)
SQUARES = 60  # along a side, for each of which the network is asked
SIDE = 480  # pixels
DOT = 4  # radius in pixels
SHOWN = 500  # points


@torch.no_grad()
def boundary(task: Task, split: str) -> Image.Image:
    """The classes' probabilities in the plane, white where they are equal, and points of a split, ringed in red if wrong."""
    rows, _ = task.data.rows(split)
    points, labels = rows.points[:SHOWN], rows.labels[:SHOWN]
    dtype = task.data.dtype
    plane, found = (
        task.model(inputs.to(task.device, dtype)).float().softmax(1).cpu() for inputs in (grid(SQUARES), points)
    )
    picture = Image.fromarray(plane_colours(plane.reshape(SQUARES, SQUARES, -1)))
    picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    places = ((points[:, 0] * torch.tensor([1, -1]) / SPAN + 1) * SIDE / 2).tolist()
    for (x, y), label, right in zip(places, labels.tolist(), (found.argmax(1) == labels).tolist(), strict=True):
        around = (x - DOT, y - DOT, x + DOT, y + DOT)
        draw.ellipse(
            around, fill=COLOURS[label], outline=(255, 255, 255) if right else (200, 0, 0), width=1 if right else 2
        )
    right = (found.argmax(1) == labels).float().mean().item()
    names = {"train": "training", "val": "validation", "test": "test"}
    return titled_sheet(picture, f"Decision boundary: {right:.1%} of {len(labels):,} {names[split]} points are right")


def plane_colours(probabilities: Tensor) -> np.ndarray:
    """Colours uint8 (..., 3) of probabilities (..., classes): pale where the network is unsure, never as full as a point."""
    best, label = probabilities.max(-1)
    even = 1 / probabilities.shape[-1]
    sure = 0.1 + 0.5 * ((best - even) / (1 - even)).clamp(0, 1).numpy()[..., None]
    return ((1 - sure) * 255 + sure * np.array(COLOURS)[label.numpy()]).round().astype(np.uint8)
