"""A generator and a discriminator, trained against each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from epochal.core.checks import OnlyWith, check_choice, check_number, check_whole
from epochal.core.errors import ConfigError
from epochal.core.files import relative
from epochal.core.seeds import mix
from epochal.data.batching import Batch, BatchIndices
from epochal.plots.images import image_grid, to_uint8
from epochal.tasks import sample_quality
from epochal.tasks.alternating import Alternating
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics
from epochal.tasks.sample_quality import FeatureNetwork, Features, RealImages

OBJECTIVES = ("non_saturating", "minimax", "wasserstein_gp")
CRITIC_STEPS = 5  # of the discriminator for one of the generator with wasserstein_gp, as in the paper
SAMPLES = 64  # images in a grid
COLUMNS = 8
SPLITS = {"val": "validation_images", "test": "test_images"}  # what says how many images are compared


class Adversarial(Alternating):
    """The losses of a GAN: D learns to distinguish real from generated images, the generator G to prevent that.

    Of D's logits, whose sigmoid is the probability of being real, or scores:

        non_saturating    D: -log D(x) - log(1 - D(G(z)))    G: -log D(G(z))          Goodfellow et al. 2014, section 3
        minimax           D: the same                        G: log(1 - D(G(z)))      Goodfellow et al. 2014, equation 1
        wasserstein_gp    D: D(G(z)) - D(x) + weight * (|gradient of D at x'| - 1)^2    G: -D(G(z))

    The last (Gulrajani et al. 2017, arXiv 1704.00028) has no probabilities. Its gradient is taken at a random point x'
    between a real and a generated image; it is that of one image, so that D may have no batch norm.

    A step is one batch, from which D learns. G takes a step in every `discriminator_steps`-th, on newly drawn images, or
    where it takes one in each, on those that D has just seen. With a conditional network the generated images are of the
    classes of the batch's real ones.

    Logs both losses, each network's gradient norm before clipping, and D(real) and D(fake): the mean probability of
    being real that the discriminator gives to real and to generated images, 0.5 each if it cannot distinguish them; with
    wasserstein_gp instead the difference of the mean scores, which estimates the Wasserstein distance, and the penalty. In
    validation and test, too, batch norm takes the statistics of each batch: with the running ones, which mix real and
    generated images, the discriminator would be another one than the generator learns from.

    With a network of features, validations and the test also compare generated with real images (FID and the classes
    covered, the test also KID, precision and recall, see `sample_quality`), and the best checkpoint is that of the lowest
    FID in a validation. The FID of as many other real images stands beside it: nothing drawn can be much better. Images
    are drawn with batch norm's running statistics, as they are after the training. Without one no metric chooses the best
    checkpoint: it is the newest.

    Args:
        objective: "non_saturating", "minimax" or "wasserstein_gp".
        discriminator_steps: Of the discriminator for one of the generator; None: 5 with wasserstein_gp, else 1.
        gradient_penalty: Its weight in wasserstein_gp.
        label_smoothing: The target for real images is 1 minus this, that for generated ones stays 0.
        features: The network in whose features generated images are compared with real ones, or the name of its run, which
            then only stands for one.
        validation_images, test_images: How many of each kind are compared, at most as many as the part, and the training
            part, has.

    Raises:
        ValueError: If an argument is out of range, or the objective does not go with label_smoothing or with batch norm in
            the discriminator.
    """

    head: ClassVar = "adversarial"
    target: ClassVar = "images"
    only_with: ClassVar = {"gradient_penalty": (OnlyWith("objective", ("wasserstein_gp",)),)}
    image_range: ClassVar = "symmetric"  # the generator's last layer is a tanh
    animated: ClassVar = ("samples",)

    def __init__(
        self,
        *,
        objective: str = "non_saturating",
        discriminator_steps: int | None = None,
        gradient_penalty: float = 10.0,
        label_smoothing: float = 0.0,
        features: FeatureNetwork | str | None = None,
        validation_images: int = 2000,
        test_images: int = 10_000,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        check_choice("objective", objective, OBJECTIVES)
        check_number("label_smoothing", label_smoothing, 0, most=0.5)
        check_number("gradient_penalty", gradient_penalty, 0)
        for name, count in (("validation_images", validation_images), ("test_images", test_images)):
            check_whole(name, count, sample_quality.NEIGHBOURS + 1)
        critic = objective == "wasserstein_gp"
        if discriminator_steps is None:
            discriminator_steps = CRITIC_STEPS if critic else 1
        check_whole("discriminator_steps", discriminator_steps, 1)
        if critic and label_smoothing:
            raise ValueError(
                f"label_smoothing={label_smoothing} is of probabilities, and objective=wasserstein_gp has none; leave it out."
            )
        discriminator = getattr(self.model, "discriminator", nn.Identity())  # options are checked around any module
        if critic and any(isinstance(module, _BatchNorm) for module in discriminator.modules()):
            raise ValueError(
                "objective=wasserstein_gp penalises the gradient at each single image, and batch norm in the discriminator "
                "mixes images; take model.discriminator_norm=layer or none."
            )
        self.objective, self.discriminator_steps = objective, discriminator_steps
        self.gradient_penalty, self.label_smoothing = gradient_penalty, label_smoothing
        self.features = features if isinstance(features, FeatureNetwork) else None
        self.compared = {"val": validation_images, "test": test_images}
        self._real: dict[str, RealImages] = {}  # by split
        self.reports = None if self.features is None else ("val/fid", "min")  # type: ignore[misc]  # of this task
        self.progress_metric = "generator_loss" if self.features is None else "fid"  # type: ignore[misc]

    # -- training ---------------------------------------------------------------------------------------------------

    def parts(self) -> dict[str, nn.Module]:
        return {"generator": self.model.generator, "discriminator": self.model.discriminator}

    def train_parts(self, batch: Batch) -> Metrics:
        labels = self._labels(batch.targets)
        both = self.discriminator_steps == 1
        with torch.set_grad_enabled(both):
            fake = self._draw(len(batch.inputs), labels)
        self.update("discriminator", lambda: self._discriminator_loss(batch.inputs, fake.detach(), labels))
        if (self.global_step + 1) % self.discriminator_steps == 0:
            drawn = fake if both else self._draw(len(batch.inputs), labels)
            self.update("generator", lambda: (self._generator_loss(drawn, labels), {}))
        return {}

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        labels = self._labels(batch.targets)
        with batch_statistics(self.model):
            fake = self._draw(len(batch.inputs), labels)
            loss, metrics = self._discriminator_loss(batch.inputs, fake.detach(), labels)
            generator_loss = self._generator_loss(fake, labels)
        total = loss + generator_loss
        return total, {
            "discriminator_loss": loss.detach(),
            **metrics,
            "generator_loss": generator_loss.detach(),
            "loss": total.detach(),
        }

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As many generated images (B, C, H, W), in [-1, 1], as the batch has rows, and of their classes if conditional."""
        self._reseed(batch)
        return self._draw(len(batch.inputs), self._labels(batch.targets))

    def _labels(self, targets: Tensor) -> tuple[Tensor, ...]:
        """What the networks take besides noise or images: the classes (B,), if they are conditional."""
        return () if getattr(self.model, "num_classes", None) is None else (targets,)

    def _draw(self, count: int, labels: tuple[Tensor, ...]) -> Tensor:
        return self.model.generator(self.model.sample_noise(count), *labels)

    def _discriminator_loss(
        self, real: Tensor, fake: Tensor, labels: tuple[Tensor, ...]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Real and generated images (B, C, H, W) -> the discriminator's loss, and metrics of it."""
        on_real, on_fake = self.model.discriminator(real, *labels), self.model.discriminator(fake, *labels)  # (B,)
        if self.objective == "wasserstein_gp":
            distance = on_real.mean() - on_fake.mean()
            penalty = gradient_penalty(self.model.discriminator, real, fake, labels)
            metrics = {"wasserstein_distance": distance.detach(), "gradient_penalty": penalty.detach()}
            return self.gradient_penalty * penalty - distance, metrics
        target = torch.full_like(on_real, 1 - self.label_smoothing)
        loss = F.binary_cross_entropy_with_logits(on_real, target)
        loss = loss + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        return loss, {"d_real": on_real.detach().sigmoid().mean(), "d_fake": on_fake.detach().sigmoid().mean()}

    def _generator_loss(self, fake: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        on_fake = self.model.discriminator(fake, *labels)  # (B,)
        if self.objective == "wasserstein_gp":
            return -on_fake.mean()
        if self.objective == "minimax":
            return -F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        return F.binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))

    # -- sample quality ---------------------------------------------------------------------------------------------

    def known(self, data: Any) -> dict[str, Any]:
        if self._total_steps is not None and self._total_steps < self.discriminator_steps:
            raise ConfigError(
                f"A training of {self._total_steps} steps ends before the generator's first: it takes one in each "
                f"{self.discriminator_steps} (task.discriminator_steps)."
            )
        if self.features is None:
            return {}
        counts = self._counts(data)
        known = {"run": self.features.run, "fingerprint": self.features.fingerprint, "count": self.features.count}
        return {"features": {**known, "images": counts}}

    def notes(self, data: Any) -> list[str]:
        if self.features is None:
            return [
                "Without task.features=<a classifier's run> no FID is measured, and the best checkpoint is the newest."
            ]
        counts, kept = self._counts(data), relative(Path(self.features.run))
        fewer = [
            f"{self.compared[split]:,} for task.{SPLITS[split]}"
            for split in SPLITS
            if counts[split] < self.compared[split]
        ]
        short = f"; the data has not {' and not '.join(fewer)}" if fewer else ""
        return [
            f"Sample quality: by {self.features.count} features of {kept}, {counts['val']:,} generated and real images at a "
            f"validation, {counts['test']:,} at the test{short}."
        ]

    def _counts(self, data: Any) -> dict[str, int]:
        """How many images of each split are compared.

        Raises:
            ConfigError: If they are too few, or of another shape than the network of features reads.
        """
        assert self.features is not None
        shape = (data.inputs.channels, data.inputs.height, data.inputs.width)
        if self.features.image_shape not in (None, shape):
            reads, draws = ("x".join(map(str, sizes)) for sizes in (self.features.image_shape, shape))
            raise ConfigError(
                f"task.features={self.features.run} reads images of {reads} (channels x height x width), but these are of {draws}."
            )
        counts = {split: self._count(data, split) for split in SPLITS}
        if few := next((split for split, count in counts.items() if count <= sample_quality.NEIGHBOURS), None):
            raise ConfigError(f"task.features needs at least {sample_quality.NEIGHBOURS + 1} images in the {few} part.")
        return counts

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        return means if self.features is None else means | self._quality(split)

    @torch.no_grad()
    def _quality(self, split: str) -> dict[str, float]:
        """The metrics of images drawn from the same noise each time."""
        assert self.features is not None
        self.features.network.to(self.device)
        if split not in self._real:
            self._real[split] = self._real_images(split)
        real, seed = self._real[split], mix(self.data.seed, 8)
        random = torch.Generator(self.device).manual_seed(seed)
        noise = self.model.sample_noise(len(real.labels), generator=random)
        parts = []
        for part, labels in zip(
            noise.split(sample_quality.BATCH), real.labels.split(sample_quality.BATCH), strict=True
        ):
            parts.append(self.features(pixels_of(self.model.generator(part, *self._labels(labels.to(self.device))))))
        seen = [part.classes for part in parts if part.classes is not None]
        fake = Features(torch.cat([part.values for part in parts]), torch.cat(seen) if seen else None)
        return sample_quality.compare(real, fake, seed=seed, whole=split == "test")

    def _real_images(self, split: str) -> RealImages:
        """Features of real images of a split, the same in every run, and FID of as many of the training part."""
        assert self.features is not None
        found, count = [], self._count(self.data, split)
        for part in (split, "train"):
            rows, there = self.data.rows(part)
            chosen = torch.randperm(there, generator=torch.Generator().manual_seed(0))[:count]
            batch = rows[BatchIndices(chosen, 0)]
            found.append((self.features(self.data.pixels(self.data.normalise(batch.inputs))), batch.targets))
        (features, labels), (others, _) = found
        return RealImages(features, labels, sample_quality.frechet_distance(others.values, features.values))

    def _count(self, data: Any, split: str) -> int:
        """How many images of a split are compared."""
        return min(self.compared[split], data.rows(split)[1], data.rows("train")[1])

    # -- pictures ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validation_artifacts(self) -> Artifacts:
        """A grid of images from the same noise each time, of a conditional network a column for each class."""
        classes = getattr(self.model, "num_classes", None)
        columns = COLUMNS if classes is None or classes > SAMPLES else classes
        count = SAMPLES if classes is None else max(columns, SAMPLES // columns * columns)
        random = torch.Generator(self.device).manual_seed(mix(self.data.seed, 7))
        noise = self.model.sample_noise(count, generator=random)
        return Artifacts(pictures={"samples": self._grid(noise, torch.arange(count) % (classes or 1), columns)})

    @torch.no_grad()
    def test_artifacts(self) -> Artifacts:
        """The grid, and rows of images on the way from one noise to another; of a conditional network a row is a class."""
        artifacts = self.validation_artifacts()
        random = torch.Generator(self.device).manual_seed(mix(self.data.seed, 9))
        start, end = self.model.sample_noise(2 * COLUMNS, generator=random).chunk(2)  # (8, N) each
        fractions = torch.linspace(0, 1, COLUMNS, device=start.device, dtype=start.dtype)
        noise = torch.stack([interpolate(start, end, fraction) for fraction in fractions], dim=1)  # (8, 8, N)
        classes = torch.arange(COLUMNS).repeat_interleave(COLUMNS) % (getattr(self.model, "num_classes", None) or 1)
        artifacts.pictures["interpolation"] = self._grid(noise.flatten(0, 1), classes, COLUMNS)
        return artifacts

    def _grid(self, noise: Tensor, classes: Tensor, columns: int) -> Any:
        images = self.model.generator(noise, *self._labels(classes.to(self.device)))
        return image_grid(to_uint8(images.float().cpu().numpy(), low=-1.0, high=1.0), columns=columns)


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor, labels: tuple[Tensor, ...] = ()) -> Tensor:
    """Mean of (|gradient of the score by the image| - 1)^2, each image at a random point between a real and a generated one.

    Gulrajani et al.: Improved Training of Wasserstein GANs, 2017 (arXiv 1704.00028), algorithm 1.

    Args:
        discriminator: Images -> scores (B,), each of which depends on its own image alone.
        real, fake: Images (B, C, H, W).
        labels: Further arguments of the discriminator.
    """
    fraction = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    with torch.inference_mode(False), torch.enable_grad():  # also in a validation; what was made there is copied
        between = (fraction * real + (1 - fraction) * fake).detach().clone().requires_grad_()
        # not the compiled network: torch.compile has no second derivatives
        scores = discriminator.forward(between, *(given.clone() for given in labels))
        (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def interpolate(start: Tensor, end: Tensor, fraction: Tensor) -> Tensor:
    """Points on the arcs between vectors (B, N): normal noise is far from the origin, and a straight line would pass near it.

    White: Sampling Generative Networks, 2016 (arXiv 1609.04468).
    """
    angle = F.cosine_similarity(start, end, dim=1).clamp(-1, 1).acos().clamp(min=1e-4)[:, None]  # (B, 1)
    return (torch.sin((1 - fraction) * angle) * start + torch.sin(fraction * angle) * end) / torch.sin(angle)


def pixels_of(images: Tensor) -> Tensor:
    """Images in [-1, 1] -> uint8, of the same shape."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


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
