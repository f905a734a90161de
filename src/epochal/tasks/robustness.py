"""Tests of an image classifier on shifted and noisy images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.tasks.artifacts import Artifacts, Profile
from epochal.tasks.sequences import tested_rows


@torch.no_grad()
def measure_robustness(task: Any, artifacts: Artifacts, clean_accuracy: float) -> None:
    """Logs the accuracy on shifted and noisy test images, and adds a profile of the error by the amount of each.

    Args:
        task: With `shifts` in pixels and `noises` as standard deviations, for pixels in [0, 1].
        artifacts: To which the profiles are added.
        clean_accuracy: On the unchanged test images, in [0, 1].
    """
    metrics, (rows, _) = {}, task.data.rows("test")
    tested = rows.rows[tested_rows(task)]
    for name, change, amounts in (("shift", shifted, task.shifts), ("noise", noisy, task.noises)):
        errors = []
        for amount in amounts:
            right = 0
            for number, index in enumerate(tested.split(task.data.eval_batch_size)):
                images, labels = (part.index_select(0, index).to(task.device) for part in (rows.images, rows.labels))
                prediction = task.model(task.data.normalise(change(images, amount, seed=number))).argmax(1)
                right += int((prediction == labels).sum())
            metrics[f"{name}_{amount}/accuracy"] = right / len(tested)
            errors.append(1 - right / len(tested))
        if amounts:
            label = {"shift": "shift in pixels", "noise": "standard deviation of the noise"}[name]
            artifacts.profiles[name] = Profile(label, "test error", [1 - clean_accuracy, *errors], [0, *amounts])
    if metrics:
        task.measured |= {f"test/{name}": value for name, value in metrics.items()}
        task.record("test", metrics)


def shifted(images: Tensor, pixels: float, seed: int) -> Tensor:
    """Shifts images (N, C, H, W) by whole pixels, repeating the edge: a quarter each up, down, left and right."""
    pixels = int(pixels)
    padded = F.pad(images.float(), (pixels,) * 4, mode="replicate").to(images.dtype)
    height, width = images.shape[-2:]
    out = torch.empty_like(images)
    for turn, (down, right) in enumerate(((0, 1), (2, 1), (1, 0), (1, 2))):
        part = slice((turn + seed) % 4, None, 4)
        rows, columns = down * pixels, right * pixels
        out[part] = padded[part, :, rows : rows + height, columns : columns + width]
    return out


def noisy(images: Tensor, std: float, seed: int) -> Tensor:
    """Adds Gaussian noise to uint8 images and clips to [0, 255]; std is that for pixels in [0, 1].

    The noise depends on the seed and the shape alone, so every network is tested on the same images.
    """
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images.device)
    return (images + 255 * std * noise).round().clamp(0, 255).to(torch.uint8)
