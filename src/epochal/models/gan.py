"""Generative adversarial network with a convolutional generator and discriminator.

Goodfellow et al.: Generative Adversarial Networks, 2014 (arXiv 1406.2661).
Radford, Metz, Chintala: Unsupervised Representation Learning with DCGANs, 2015 (arXiv 1511.06434).
Miyato, Kataoka, Koyama, Yoshida: Spectral Normalization for Generative Adversarial Networks, 2018 (arXiv 1802.05957).
Miyato, Koyama: cGANs with Projection Discriminator, 2018 (arXiv 1802.05637).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from epochal.core.checks import check_choice, check_sizes
from epochal.core.specs import Images

MIN_SIDE = 8  # pixels
START = 4  # pixels: least side of the generator's first and the discriminator's last feature maps, as in DCGAN
MAX_FACTOR = 8  # times width: channels of the widest layer
NORMS = ("batch", "layer", "none")  # of the discriminator


def layer_widths(image_shape: tuple[int, int, int], width: int) -> list[int]:
    """Channels of the layers, finest first; as many as the shorter side can be halved down to START pixels."""
    halvings = (min(image_shape[1:]) // START).bit_length() - 1
    return [width * min(2**i, MAX_FACTOR) for i in range(halvings)]


class ClassBatchNorm2d(nn.Module):
    """Batch norm whose gain and bias are learned for each class (Dumoulin et al. 2016, arXiv 1610.07629)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = nn.Embedding(num_classes, channels), nn.Embedding(num_classes, channels)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:  # (B, C, H, W), (B,) -> (B, C, H, W)
        return torch.addcmul(self.bias(labels)[:, :, None, None], self.gain(labels)[:, :, None, None], self.norm(x))


class Generator(nn.Module):
    """Noise to image: a linear layer to small feature maps, then transposed convolutions that double their sides.

    With classes, batch norm has a gain and a bias of each class.
    """

    def __init__(
        self, *, image_shape: tuple[int, int, int], noise_dim: int, width: int, num_classes: int | None = None
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        widths = layer_widths(image_shape, width)[::-1]
        channels, *sides = image_shape
        start = (widths[0], *(math.ceil(side / 2 ** len(widths)) for side in sides))
        layers: list[nn.Module] = [nn.Linear(noise_dim, math.prod(start), bias=False), nn.Unflatten(1, start)]
        for before, after in pairwise([*widths, channels]):
            layers.append(nn.BatchNorm2d(before) if num_classes is None else ClassBatchNorm2d(before, num_classes))
            layers.append(nn.ReLU(inplace=True))
            layers.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False))
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Noise (B, noise_dim), with classes also labels (B,) -> images (B, C, H, W) in [-1, 1]."""
        _, height, width = self.image_shape
        images = noise
        for layer in self.layers:
            images = layer(images, labels) if isinstance(layer, ClassBatchNorm2d) else layer(images)
        return images[:, :, :height, :width]


class Discriminator(nn.Module):
    """Image to one number, large for real: convolutions that halve the sides, then a linear layer.

    With classes, the inner product of the features with an embedding of the class is added (projection discriminator).
    """

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        width: int,
        norm: str = "batch",
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        widths = layer_widths(image_shape, width)
        channels, *sides = image_shape
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise([channels, *widths])):
            normed = i > 0 and norm != "none"
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=not normed))
            if normed:  # one group: the mean and variance of all channels and pixels of an image
                layers.append(nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(1, after))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        features = widths[-1] * math.prod(side // 2 ** len(widths) for side in sides)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 1))
        self.embed = None if num_classes is None else nn.Embedding(num_classes, features)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), with classes also labels (B,) -> (B,)."""
        *body, head = self.layers
        features = images
        for layer in body:
            features = layer(features)
        scores = head(features).squeeze(1)
        if self.embed is not None:
            scores = scores + (self.embed(labels) * features).sum(1)
        return scores


class GAN(nn.Module):
    """A generator that draws images from noise and a discriminator that tells them from real ones, as in DCGAN.

    Both double or halve the sides with 4x4 filters of stride 2, as often as leaves at least 4 pixels:

        28x28    noise -> (2 width, 7, 7) -> (width, 14, 14) -> (C, 28, 28)
        64x64    noise -> (8 width, 4, 4) -> (4 width, 8, 8) -> (2 width, 16, 16) -> (width, 32, 32) -> (C, 64, 64)

    Where a side cannot be halved evenly, the generator rounds up and crops its image. As in the DCGAN paper: batch norm
    everywhere except at the generator's output and the discriminator's input, ReLU and LeakyReLU(0.2), tanh at the end,
    weights from N(0, 0.02).

    Deviations from the DCGAN paper: width is 32, not 128, for small images and CPUs; other sizes than 64x64; noise is
    normal, not uniform.

    With `num_classes` the images are of a class that is asked for, as in Miyato & Koyama 2018: the generator's batch norm
    has a gain and a bias of each class, and the discriminator adds the inner product of its last features with an embedding
    of the class. Both networks then take labels (B,) as a second argument.

    Args:
        image_shape: (C, H, W) of an image; H and W at least 8.
        noise_dim: Length of the noise vector.
        width: Channels of the finest layer; each coarser one has twice as many, up to eight times.
        discriminator_width: That of the discriminator; None: the same.
        discriminator_norm: "batch", "layer" (over all channels and pixels of an image), or "none".
        spectral_norm: Divide each weight matrix of the discriminator by its largest singular value, which one step of power
            iteration at each forward pass in training estimates. The SNGAN paper then uses no other norm.
        num_classes: Number of classes of a conditional GAN; None: it knows no classes.

    Raises:
        ValueError: If a side of the image is below 8 pixels, a size below 1, or discriminator_norm none of its choices.
    """

    heads: ClassVar[tuple[str, ...]] = ("adversarial",)
    reads: ClassVar[tuple[type, ...]] = (Images,)

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        noise_dim: int = 64,
        width: int = 32,
        discriminator_width: int | None = None,
        discriminator_norm: str = "batch",
        spectral_norm: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        channels, *sides = image_shape
        check_sizes(channels=channels, noise_dim=noise_dim, width=width)
        check_sizes(**{} if discriminator_width is None else {"discriminator_width": discriminator_width})
        check_sizes(**{} if num_classes is None else {"num_classes": num_classes})
        check_choice("discriminator_norm", discriminator_norm, NORMS)
        if not isinstance(spectral_norm, bool):
            raise ValueError(f"spectral_norm={spectral_norm} must be true or false.")
        if min(sides) < MIN_SIDE:
            raise ValueError(f"A GAN draws images of at least {MIN_SIDE}x{MIN_SIDE} pixels, not {sides[0]}x{sides[1]}.")
        self.noise_dim, self.num_classes = noise_dim, num_classes
        self.generator = Generator(image_shape=image_shape, noise_dim=noise_dim, width=width, num_classes=num_classes)
        self.discriminator = Discriminator(
            image_shape=image_shape,
            width=width if discriminator_width is None else discriminator_width,
            norm=discriminator_norm,
            num_classes=num_classes,
        )
        for module in self.modules():
            initialise(module)
        if spectral_norm:
            for module in self.discriminator.modules():
                if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                    parametrizations.spectral_norm(module)

    @classmethod
    def for_data(cls, inputs: Images, outputs: Images, *, conditional: bool = False, **config: Any) -> GAN:
        """The network for images of this shape; `conditional`: of a class that is asked for."""
        if not isinstance(conditional, bool):
            raise ValueError(f"conditional={conditional} must be true or false.")
        if conditional and outputs.classes is None:
            raise ValueError("conditional=true needs images with classes, and these have none.")
        image_shape = (outputs.channels, outputs.height, outputs.width)
        return cls(image_shape=image_shape, num_classes=outputs.classes if conditional else None, **config)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Noise (B, noise_dim), of a conditional GAN also labels (B,) -> images (B, C, H, W)."""
        return self.generator(noise, labels)

    def sample_noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:  # -> (count, noise_dim)
        """Normal noise on the model's device; drawn on the generator's, so one seed gives one noise on any device."""
        weight = next(self.parameters())
        device = weight.device if generator is None else generator.device
        return torch.randn(count, self.noise_dim, generator=generator, device=device).to(weight)


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02), gains from N(1, 0.02), biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        if module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
    elif isinstance(module, ClassBatchNorm2d):
        nn.init.normal_(module.gain.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias.weight)
    elif isinstance(module, Discriminator) and module.embed is not None:
        nn.init.normal_(module.embed.weight, 0.0, 0.02)
