"""A generator and a discriminator, trained against each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from epochal.core.checks import check_number
from epochal.core.seeds import mix
from epochal.data.batching import Batch
from epochal.plots.images import image_grid, to_uint8
from epochal.tasks.alternating import Alternating
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics

SAMPLES = 64  # images in a grid


class Adversarial(Alternating):
    """The non-saturating GAN loss (Goodfellow et al. 2014, arXiv 1406.2661, section 3).

    The discriminator learns to distinguish real from generated images, the generator to have its images classified as
    real. Each step updates both, the discriminator first, on the same generated images.

    Logs both losses, each network's gradient norm before clipping, and D(real) and D(fake): the mean probability of
    being real that the discriminator gives to real and to generated images, 0.5 each if it cannot distinguish them. In
    validation and test, too, batch norm takes the statistics of each batch: with the running ones, which mix real and
    generated images, the discriminator would be another one than the generator learns from. No metric chooses the best
    checkpoint: it is the newest.

    Args:
        label_smoothing: The target for real images is 1 minus this, that for generated ones stays 0.

    Raises:
        ValueError: If label_smoothing is not in [0, 0.5].
    """

    head: ClassVar = "adversarial"
    target: ClassVar = "images"
    progress_metric: ClassVar = "generator_loss"
    image_range: ClassVar = "symmetric"  # the generator's last layer is a tanh

    def __init__(self, *, label_smoothing: float = 0.0, **rest: Any) -> None:
        super().__init__(**rest)
        check_number("label_smoothing", label_smoothing, 0, most=0.5)
        self.label_smoothing = label_smoothing

    def parts(self) -> dict[str, nn.Module]:
        return {"generator": self.model.generator, "discriminator": self.model.discriminator}

    def train_parts(self, batch: Batch) -> Metrics:
        fake = self.model.generator(self.model.sample_noise(len(batch.inputs)))
        self.update("discriminator", lambda: self._discriminator_loss(batch.inputs, fake.detach()))
        self.update("generator", lambda: (self._generator_loss(fake), {}))
        return {}

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        with batch_statistics(self.model):
            fake = self.model.generator(self.model.sample_noise(len(batch.inputs)))
            loss, metrics = self._discriminator_loss(batch.inputs, fake)
            generator_loss = self._generator_loss(fake)
        total = loss + generator_loss
        return total, {**metrics, "generator_loss": generator_loss.detach(), "loss": total.detach()}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As many generated images (B, C, H, W), in [-1, 1], as the batch has rows."""
        self._reseed(batch)
        return self.model.generator(self.model.sample_noise(len(batch.inputs)))

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Metrics]:
        """Real and generated images (B, C, H, W) -> the loss and metrics of the discriminator."""
        on_real, on_fake = self.model.discriminator(real), self.model.discriminator(fake)  # (B,)
        target = torch.full_like(on_real, 1 - self.label_smoothing)
        loss = F.binary_cross_entropy_with_logits(on_real, target)
        loss = loss + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        probabilities = {"d_real": on_real.detach().sigmoid().mean(), "d_fake": on_fake.detach().sigmoid().mean()}
        return loss, {"discriminator_loss": loss.detach(), **probabilities}

    def _generator_loss(self, fake: Tensor) -> Tensor:
        on_fake = self.model.discriminator(fake)  # (B,)
        return F.binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))

    @torch.no_grad()
    def validation_artifacts(self) -> Artifacts:
        random = torch.Generator(self.device).manual_seed(mix(self.data.seed, 7))  # the same noise each time
        samples = self.model.generator(self.model.sample_noise(SAMPLES, generator=random))  # (64, C, H, W)
        pixels = to_uint8(samples.float().cpu().numpy(), low=-1.0, high=1.0)
        return Artifacts(pictures={"samples": image_grid(pixels, columns=8)})

    def test_artifacts(self) -> Artifacts:
        return self.validation_artifacts()


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norm normalises by each batch's own statistics, as in training, and leaves its running ones as they are."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, (training, tracking) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracking
