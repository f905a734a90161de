"""A forger and a detective that learn from each other."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.seeds import mix
from epochal.data.batching import Batch
from epochal.plots.images import image_grid, to_uint8
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task

SHOWN = 64  # pictures in a grid


class Adversarial(Task):
    """The non-saturating GAN loss (Goodfellow et al. 2014, arXiv 1406.2661, section 3).

    The discriminator learns to tell real from drawn, the generator to be taken for real: each step updates both, the
    discriminator first, on the same drawn images. One step is one batch: only the generator's optimiser counts.

    Logs both losses, and D(real) and D(fake): the probability of being real that the discriminator gives to real and
    to drawn images, 0.5 each when it cannot tell. No metric chooses the best checkpoint: the newest is it.

    Args:
        label_smoothing: How far the target for real images stays below 1.
    """

    example_metric: ClassVar = "generator_loss"

    def __init__(self, *, label_smoothing: float = 0.0, **rest: Any) -> None:
        super().__init__(**rest)
        self.label_smoothing = label_smoothing
        self.automatic_optimization = False  # two optimisers
        self.gradient_clip_val: float | None = None  # of each; Lightning's trainer clips for one optimiser only

    def configure_optimizers(self) -> Any:
        both = [self._make_optimizer(part) for part in (self.model.generator, self.model.discriminator)]
        schedules = [self._make_scheduler(optimizer, self.total_steps) for optimizer in both]
        return both, [{"scheduler": schedule, "interval": "step"} for schedule in schedules]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        generator_optimizer, discriminator_optimizer = self.optimizers()  # type: ignore[attr-defined]  # two
        # Lightning's global_step counts every wrapped optimiser's steps; the bare one does not count
        discriminator_optimizer = discriminator_optimizer.optimizer
        fake = self.model.generator(self.model.sample_noise(len(batch.inputs)))

        discriminator_optimizer.zero_grad()
        loss, metrics = self._judge(batch.inputs, fake.detach())
        self.check(loss)  # before a step: a lost loss must not move the weights
        self.manual_backward(loss)
        self._clip(discriminator_optimizer)
        discriminator_optimizer.step()

        self.toggle_optimizer(generator_optimizer)  # no gradients for the discriminator's parameters
        generator_optimizer.zero_grad()
        generator_loss = self._fool(fake)
        self.manual_backward(generator_loss)
        self.untoggle_optimizer(generator_optimizer)
        self._clip(generator_optimizer)
        metrics |= {"generator_loss": generator_loss.detach(), "loss": (loss + generator_loss).detach()}
        self.note(metrics)
        generator_optimizer.step()
        for schedule in self.lr_schedulers():  # type: ignore[union-attr]  # two
            schedule.step()

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        fake = self.model.generator(self.model.sample_noise(len(batch.inputs)))
        loss, metrics = self._judge(batch.inputs, fake)
        generator_loss = self._fool(fake)
        total = loss + generator_loss
        return total, {**metrics, "generator_loss": generator_loss.detach(), "loss": total.detach()}

    def _judge(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Metrics]:
        on_real, on_fake = self.model.discriminator(real), self.model.discriminator(fake)  # (B)
        wanted = torch.full_like(on_real, 1 - self.label_smoothing)
        loss = F.binary_cross_entropy_with_logits(on_real, wanted)
        loss = loss + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        probabilities = {"d_real": on_real.detach().sigmoid().mean(), "d_fake": on_fake.detach().sigmoid().mean()}
        return loss, {"discriminator_loss": loss.detach(), **probabilities}

    def _fool(self, fake: Tensor) -> Tensor:
        judged = self.model.discriminator(fake)
        return F.binary_cross_entropy_with_logits(judged, torch.ones_like(judged))

    def _clip(self, optimizer: Any) -> None:
        if self.gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val=self.gradient_clip_val, gradient_clip_algorithm="norm")

    @torch.no_grad()
    def show(self) -> Artifacts:

        random = torch.Generator(self.device).manual_seed(mix(self.data.seed, 7))  # the same noise each time
        drawn = self.model.generator(self.model.sample_noise(SHOWN, generator=random))
        pixels = to_uint8(drawn.float().cpu().numpy(), low=-1.0, high=1.0)
        return Artifacts(pictures={"samples": image_grid(pixels, columns=8)})

    def test_artifacts(self) -> Artifacts:
        return self.show()
