"""Patches of an image from its other patches: what unlabelled images teach."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from epochal.data.batching import Batch
from epochal.plots.images import image_grid
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task

SHOWN = 8  # images in a picture


class PatchPrediction(Task):
    """Mean squared error of predicted pixels (B, N, C * P * P), patch by patch, where a patch had to be predicted.

    The pixels of each patch are brought to mean 0 and deviation 1 first, so that structure counts and not brightness
    (He et al. 2021, MAE, arXiv 2111.06377, section 4). A subclass says in `predict` what is seen and what is not.

    Logs loss, and explained: the share of those pixels' variance that the prediction accounts for, at most 1; a blank
    prediction has 0.
    """

    reports: ClassVar = ("val/loss", "min")

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, N, C * P * P) of all patches of the images (B, C, H, W), and which (B, N) had to be predicted."""
        raise NotImplementedError  # each objective does

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        targets, _, _ = standardised(self.model.patches(batch.inputs))
        predicted, wanted = self.predict(batch.inputs)
        loss = (predicted - targets).square().mean(dim=2)[wanted].mean()
        variance = targets.square().mean(dim=2)[wanted].mean()  # below 1 where patches are of one colour
        explained = 1 - loss.detach() / variance.clamp_min(1e-6)
        return loss, {"loss": loss.detach(), "explained": explained}

    def show(self) -> Artifacts:
        return self._look("val")

    def test_artifacts(self) -> Artifacts:
        return self._look("test")

    @torch.no_grad()
    def _look(self, split: str) -> Artifacts:
        """The same images each time: as they are, what is seen of them, and with the prediction in place of the rest."""

        rows, _ = self.data.rows(split)
        images = self.data.normalise(rows.images[rows.rows[:SHOWN]].to(self.device))
        self._reseed(Batch(images, rows.labels[:0], seed=0))  # the same patches each time
        predicted, wanted = self.predict(images)
        patches = self.model.patches(images)
        _, mean, deviation = standardised(patches)
        wanted = wanted[:, :, None]
        seen = patches.masked_fill(wanted, 0)  # the mean colour
        guess = torch.where(wanted, predicted * deviation + mean, patches)
        kinds = [patches, guess] if wanted.all() else [patches, seen, guess]
        pixels = self.data.pixels(self.model.assemble(torch.cat(kinds)))
        title = ", ".join(("image", "what is seen", "prediction") if len(kinds) == 3 else ("image", "prediction"))
        picture = image_grid(
            pixels.numpy(),
            columns=len(images),
            title=f"{title.capitalize()} (each patch in its true mean and contrast)",
        )
        return Artifacts(pictures={"patches": picture})


class NextPatch(PatchPrediction):
    """Each patch from those before it, row by row, as a language model does with words.

    Chen et al.: Generative Pretraining from Pixels, 2020 (iGPT). El-Nouby et al.: Scalable Pre-training of Large
    Autoregressive Image Models, 2024 (AIM, arXiv 2401.08541), which also predicts patches by their pixels. The first
    patch is predicted from none.
    """

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        predicted = self.model(images, causal=True)
        return predicted, torch.ones(predicted.shape[:2], dtype=torch.bool, device=predicted.device)


class MaskedPatch(PatchPrediction):
    """Hidden patches from the ones that are seen; a learned token stands in the place of a hidden one.

    Xie et al.: SimMIM: a Simple Framework for Masked Image Modeling, 2021 (arXiv 2111.09886). Which patches are hidden
    is drawn anew for each image of each batch.

    Args:
        mask_ratio: Share of the patches that are hidden, at least one and not all.

    Raises:
        ValueError: If mask_ratio is not between 0 and 1.
    """

    def __init__(self, *, mask_ratio: float = 0.5, **rest: Any) -> None:
        super().__init__(**rest)
        if isinstance(mask_ratio, bool) or not isinstance(mask_ratio, int | float) or not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio={mask_ratio} must be between 0 and 1, e.g. 0.5.")
        self.mask_ratio = mask_ratio

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        count = self.model.grid[0] * self.model.grid[1]
        hidden = min(max(round(self.mask_ratio * count), 1), count - 1)
        chance = torch.rand(len(images), count, device=images.device)
        mask = torch.zeros_like(chance, dtype=torch.bool).scatter(1, chance.topk(hidden).indices, True)  # (B, N)
        return self.model(images, mask=mask), mask


def standardised(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patches (B, N, D) with mean 0 and deviation 1 each, and both, (B, N, 1), as they were."""
    variance, mean = torch.var_mean(patches, dim=2, correction=0, keepdim=True)
    deviation = (variance + 1e-6).sqrt()  # a patch of one colour becomes 0
    return (patches - mean) / deviation, mean, deviation
