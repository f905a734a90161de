"""What a classifier of images shows: guesses, where they come from, and what is left of them on changed images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.plots.images import heat_colors, image_grid
from epochal.tasks.artifacts import Artifacts, Profile
from epochal.tasks.base import Task

SHOWN = 24  # pictures in a grid
SHOWN_ATTENTION = 8


def show(task: Task, artifacts: Artifacts) -> None:
    """Adds the first validation images with their guesses and, of a Transformer, where these come from."""
    rows, _ = task.data.rows("val")
    index = rows.rows[:SHOWN]
    images, labels = rows.images[index], rows.labels[index]
    inputs = task.data.normalise(images.to(task.device))
    artifacts.pictures["predictions"] = class_grid(task, images, task.model(inputs).argmax(1).cpu(), labels)
    if hasattr(task.model, "rollout"):
        artifacts.pictures["attention"] = _attention(task, inputs[:SHOWN_ATTENTION])


def test_artifacts(
    task: Any, artifacts: Artifacts, prediction: Tensor, confidence: Tensor, labels: Tensor, wrong: Tensor
) -> None:
    """Adds mistakes, the first guesses, and tests on changed images.

    Args:
        task: A `Classification`.
        shown: Where to.
        prediction, confidence, labels: Of all test images (N).
        wrong: Numbers of those that are mistaken, the most confident ones first.
    """
    rows, _ = task.data.rows("test")
    wrong = wrong[:SHOWN]
    if len(wrong):
        artifacts.pictures["mistakes"] = class_grid(
            task,
            rows.images[rows.rows[wrong]],
            prediction[wrong],
            labels[wrong],
            confidence[wrong],
            title="Most confident mistakes",
        )
    few = torch.arange(min(SHOWN, len(labels)))
    images = rows.images[rows.rows[few]]
    artifacts.pictures["predictions"] = class_grid(task, images, prediction[few], labels[few])
    task.examples = (images.numpy(), prediction[few].tolist(), labels[few].tolist())
    _test_changed(task, artifacts, clean=(prediction == labels).float().mean().item())


def _attention(task: Task, inputs: Tensor) -> Any:
    """Images as the network reads them, and below each where its answer comes from: yellow most, black least."""

    flow = task.model.rollout(inputs).float().cpu()  # (N, rows, columns)
    least, most = flow.amin((1, 2), keepdim=True), flow.amax((1, 2), keepdim=True)
    flow = F.interpolate(((flow - least) / (most - least).clamp_min(1e-12))[:, None], inputs.shape[2:])[:, 0]
    images = task.data.pixels(inputs).expand(-1, 3, -1, -1).numpy()
    over = images.mean(1, keepdims=True) / 2 + heat_colors(flow.numpy()).transpose(0, 3, 1, 2) / 2
    return image_grid(
        np.concatenate((images, over.astype(np.uint8))),
        columns=len(images),
        title="Attention rollout: where the answer comes from",
    )


@torch.no_grad()
def _test_changed(task: Any, artifacts: Artifacts, clean: float) -> None:
    """How much of its accuracy is left on images that are not quite where, or what, they were."""
    metrics, (rows, _) = {}, task.data.rows("test")
    for name, change, amounts in (("shift", moved, task.shifts), ("noise", noisy, task.noises)):
        errors = []
        for amount in amounts:
            right = 0
            for number, index in enumerate(rows.rows.split(task.data.eval_batch_size)):
                images, labels = (part.index_select(0, index).to(task.device) for part in (rows.images, rows.labels))
                prediction = task.model(task.data.normalise(change(images, amount, seed=number))).argmax(1)
                right += int((prediction == labels).sum())
            metrics[f"{name}_{amount}/accuracy"] = right / len(rows.rows)
            errors.append(1 - right / len(rows.rows))
        if amounts:
            label = {"shift": "pixels moved", "noise": "deviation of the noise"}[name]
            artifacts.profiles[name] = Profile(label, "test error", [1 - clean, *errors], [0, *amounts])
    if metrics:
        task.measured |= {f"test/{name}": value for name, value in metrics.items()}
        task.record("test", metrics)


def moved(images: Tensor, pixels: float, seed: int) -> Tensor:
    """Moves each (C, H, W) up, down, left or right by so many whole pixels, the edge repeated; a quarter each way."""
    pixels = int(pixels)
    padded = F.pad(images.float(), (pixels,) * 4, mode="replicate").to(images.dtype)
    height, width = images.shape[-2:]
    out = torch.empty_like(images)
    for turn, (down, right) in enumerate(((0, 1), (2, 1), (1, 0), (1, 2))):
        part = slice((turn + seed) % 4, None, 4)
        rows, columns = down * pixels, right * pixels
        out[part] = padded[part, :, rows : rows + height, columns : columns + width]
    return out


def noisy(images: Tensor, deviation: float, seed: int) -> Tensor:
    """Adds normal noise to uint8 pixels, the same for every network, and cuts off what leaves 0 to 255."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images.device)
    return (images + 255 * deviation * noise).round().clamp(0, 255).to(torch.uint8)


def class_grid(
    task: Task,
    images: Tensor,
    prediction: Tensor,
    labels: Tensor,
    confidence: Tensor | None = None,
    title: str | None = None,
) -> Any:
    """Images with their guesses below, wrong ones in red."""

    names = task.data.classes.names
    captions = []
    for number, (guess, truth) in enumerate(zip(prediction.tolist(), labels.tolist(), strict=True)):
        caption = names[guess] if guess == truth else f"{names[guess]}, not {names[truth]}"
        captions.append(caption if confidence is None else f"{caption}\n{confidence[number]:.0%} sure")
    return image_grid(images.numpy(), captions, highlight=(prediction != labels).tolist(), title=title)
