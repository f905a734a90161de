"""Predictions of a classifier: grids of images, lists of texts, attention rollout, a table of the classes."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from epochal.core.protocols import AttentionRollout
from epochal.plots.images import heat_colors, image_grid
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Task

IMAGES = 24  # in a grid
ATTENTION_IMAGES = 8


def add_validation_images(task: Task, artifacts: Artifacts) -> None:
    """Adds the first validation images with their predictions and, if the model has it, their attention rollout."""
    rows, _ = task.data.rows("val")
    index = rows.rows[:IMAGES]
    images, labels = rows.images[index], rows.labels[index]
    inputs = task.data.normalise(images.to(task.device))
    artifacts.pictures["predictions"] = prediction_grid(task, images, task.model(inputs).argmax(1).cpu(), labels)
    if isinstance(task.model, AttentionRollout):
        artifacts.pictures["attention"] = _rollout_grid(task, inputs[:ATTENTION_IMAGES])


def add_mistakes(
    task: Task, artifacts: Artifacts, wrong: Tensor, prediction: Tensor, confidence: Tensor, labels: Tensor
) -> None:
    """Adds the first of the test images that are classified wrongly, if there are any.

    Args:
        task: Whose data is tested.
        artifacts: To which they are added.
        wrong: Numbers (M,) of the images.
        prediction, confidence, labels: Of all test images (N,).
    """
    rows, _ = task.data.rows("test")
    wrong = wrong[:IMAGES]
    if len(wrong):
        artifacts.pictures["mistakes"] = prediction_grid(
            task,
            rows.images[rows.rows[wrong]],
            prediction[wrong],
            labels[wrong],
            confidence[wrong],
            title="Most confident mistakes",
        )


def prediction_grid(
    task: Task,
    images: Tensor,
    prediction: Tensor,
    labels: Tensor,
    confidence: Tensor | None = None,
    title: str | None = None,
) -> Image.Image:
    """Images, uint8 (N, C, H, W), with their predicted classes (N,) below, wrong ones in red."""
    names = task.data.classes.names
    captions = []
    for number, (predicted, truth) in enumerate(zip(prediction.tolist(), labels.tolist(), strict=True)):
        caption = names[predicted] if predicted == truth else f"{names[predicted]}, not {names[truth]}"
        captions.append(caption if confidence is None else f"{caption}\n{confidence[number]:.0%} sure")
    return image_grid(images.numpy(), captions, highlight=(prediction != labels).tolist(), title=title)


def prediction_texts(
    task: Task, split: str, numbers: Tensor, prediction: Tensor, confidence: Tensor, labels: Tensor
) -> str:
    """The texts of these rows (N,) with their predicted classes, and whether these are right."""
    names, blocks = task.data.classes.names, []
    rows = zip(numbers.tolist(), prediction.tolist(), confidence.tolist(), labels.tolist(), strict=True)
    for number, predicted, probability, truth in rows:
        verdict = "right" if predicted == truth else f"wrong: it is {names[truth]}"
        blocks.append(f"{names[predicted]}, {probability:.0%} sure, {verdict}\n    {task.data.text(split, number)}")
    return "\n\n".join(blocks)


def class_table(counts: np.ndarray, names: tuple[str, ...], examples: str) -> list[tuple[str, ...]]:
    """Precision, recall and the most frequent mistake of each class.

    Args:
        counts: Confusion matrix (K, K), counts[truth, prediction].
        names: The K classes.
        examples: What is classified, in the plural.
    """
    table: list[tuple[str, ...]] = [("class", examples, "precision", "recall", "most often taken for")]
    for number, name in enumerate(names):
        right, truth, guessed = counts[number, number], counts[number].sum(), counts[:, number].sum()
        others = counts[number].copy()
        others[number] = 0
        mistake = f"{names[int(others.argmax())]} ({others.max():,})" if others.max() else ""
        precision = f"{right / guessed:.1%}" if guessed else "never"
        table.append((name, f"{truth:,}", precision, f"{right / truth:.1%}" if truth else "none", mistake))
    return table


def overlay_heat(images: np.ndarray, heat: Tensor) -> np.ndarray:
    """Lays heat maps over images in grey, half and half.

    Args:
        images: uint8 (N, 3, H, W), or (1, 3, H, W) for all maps.
        heat: (N, H, W) in [0, 1].

    Returns:
        uint8 (N, 3, H, W).
    """
    over = images.mean(1, keepdims=True) / 2 + heat_colors(heat.numpy()).transpose(0, 3, 1, 2) / 2
    return over.astype(np.uint8)


def _rollout_grid(task: Task, inputs: Tensor) -> Image.Image:
    """Images as the network reads them, and below each its attention rollout: yellow most, black least."""
    flow = task.model.rollout(inputs).float().cpu()  # (N, rows, columns)
    least, most = flow.amin((1, 2), keepdim=True), flow.amax((1, 2), keepdim=True)
    heat = F.interpolate(((flow - least) / (most - least).clamp_min(1e-12))[:, None], inputs.shape[2:])[:, 0]
    images = task.data.pixels(inputs).expand(-1, 3, -1, -1).numpy()
    return image_grid(
        np.concatenate((images, overlay_heat(images, heat))),
        columns=len(images),
        title="Attention rollout: where the answer comes from",
    )
