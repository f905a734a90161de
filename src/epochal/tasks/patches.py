"""Self-supervised learning from images: predicting the pixels of some patches from others."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from epochal.data.batching import Batch
from epochal.plots.images import image_grid
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task, at_least_single

IMAGES = 8  # in a picture


class PatchPrediction(Task):
    """Mean squared error of the predicted pixels (B, N, C * P * P) of N patches of P x P, over those to be predicted.

    The pixels of each patch are first normalised to mean 0 and standard deviation 1, so that structure counts and not
    brightness (He et al. 2021, MAE, arXiv 2111.06377, section 4). A subclass says in `predict` what the model sees.

    Logs loss; and explained, the fraction of those pixels' variance that the prediction explains: at most 1, and 0 for
    a blank prediction.
    """

    head: ClassVar = "patches"
    target: ClassVar = "images"
    reports: ClassVar = ("val/loss", "min")

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) -> pixels (B, N, C * P * P) of all patches, and a mask (B, N) of those to predict."""
        raise NotImplementedError

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """As `predict`: pixels (B, N, C * P * P) and the mask (B, N) of the patches that are predicted."""
        self._reseed(batch)  # the same mask each time
        return self.predict(batch.inputs)

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        targets, _, _ = standardised(self.model.patches(batch.inputs))
        predicted, mask = self.predict(batch.inputs)
        predicted, targets = at_least_single(predicted), at_least_single(targets)
        loss = (predicted - targets).square().mean(dim=2)[mask].mean()
        variance = targets.square().mean(dim=2)[mask].mean()  # below 1 where patches are of one colour
        explained = 1 - loss.detach() / variance.clamp_min(1e-6)
        return loss, {"loss": loss.detach(), "explained": explained}

    def validation_artifacts(self) -> Artifacts:
        return self._reconstructions("val")

    def test_artifacts(self) -> Artifacts:
        return self._reconstructions("test")

    @torch.no_grad()
    def _reconstructions(self, split: str) -> Artifacts:
        """The first images, what the model sees of them, and its predictions in place of the rest."""
        rows, _ = self.data.rows(split)
        images = self.data.normalise(rows.images[rows.rows[:IMAGES]].to(self.device))
        self._reseed(Batch(images, rows.labels[:0], seed=0))  # the same mask each time
        predicted, mask = self.predict(images)
        patches = self.model.patches(images)
        _, mean, std = standardised(patches)
        mask = mask[:, :, None]  # (B, N, 1)
        visible = patches.masked_fill(mask, 0)  # the mean colour
        reconstruction = torch.where(mask, predicted * std + mean, patches)
        kinds = [patches, reconstruction] if mask.all() else [patches, visible, reconstruction]
        pixels = self.data.pixels(self.model.assemble(torch.cat(kinds)))
        title = "Image, visible patches, prediction" if len(kinds) == 3 else "Image, prediction"
        picture = image_grid(
            pixels.numpy(), columns=len(images), title=f"{title} (each patch in its true mean and contrast)"
        )
        return Artifacts(pictures={"patches": picture})


class NextPatch(PatchPrediction):
    """Predicts each patch from those before it, row by row, as a language model predicts words.

    Chen et al.: Generative Pretraining from Pixels, 2020 (iGPT). El-Nouby et al.: Scalable Pre-training of Large
    Autoregressive Image Models, 2024 (AIM, arXiv 2401.08541), which also regresses the pixels of patches. The first
    patch is predicted from none.
    """

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        predicted = self.model(images, causal=True)
        return predicted, torch.ones(predicted.shape[:2], dtype=torch.bool, device=predicted.device)


class MaskedPatch(PatchPrediction):
    """Predicts masked patches from the visible ones; a learned mask token takes the place of each masked patch.

    Xie et al.: SimMIM: a Simple Framework for Masked Image Modeling, 2021 (arXiv 2111.09886). The masked patches are
    drawn anew for each image of each batch.

    Args:
        mask_ratio: Fraction of the patches that are masked, in (0, 1); at least one patch is masked and one visible.

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
        masked = min(max(round(self.mask_ratio * count), 1), count - 1)
        noise = torch.rand(len(images), count, device=images.device)
        mask = torch.zeros_like(noise, dtype=torch.bool).scatter(1, noise.topk(masked).indices, True)  # (B, N)
        return self.model(images, mask=mask), mask


def standardised(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patches (B, N, D) normalised to mean 0 and standard deviation 1 each, their means and deviations (B, N, 1)."""
    variance, mean = torch.var_mean(patches, dim=2, correction=0, keepdim=True)
    std = (variance + 1e-6).sqrt()  # a patch of one colour becomes 0
    return (patches - mean) / std, mean, std
