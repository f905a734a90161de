"""Generative adversarial network with a convolutional generator and discriminator.

Goodfellow et al.: Generative Adversarial Networks, 2014 (arXiv 1406.2661).
Radford, Metz, Chintala: Unsupervised Representation Learning with DCGANs, 2015 (arXiv 1511.06434).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from epochal.core.checks import check_sizes
from epochal.core.specs import Images

MIN_SIDE = 8  # pixels
START = 4  # pixels: least side of the generator's first and the discriminator's last feature maps, as in DCGAN
MAX_FACTOR = 8  # times width: channels of the widest layer


def layer_widths(image_shape: tuple[int, int, int], width: int) -> list[int]:
    """Channels of the layers, finest first; as many as the shorter side can be halved down to START pixels."""
    halvings = (min(image_shape[1:]) // START).bit_length() - 1
    return [width * min(2**i, MAX_FACTOR) for i in range(halvings)]


class Generator(nn.Module):
    """Noise to image: a linear layer to small feature maps, then transposed convolutions that double their sides."""

    def __init__(self, *, image_shape: tuple[int, int, int], noise_dim: int, width: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        widths = layer_widths(image_shape, width)[::-1]
        channels, *sides = image_shape
        start = (widths[0], *(math.ceil(side / 2 ** len(widths)) for side in sides))
        layers: list[nn.Module] = [nn.Linear(noise_dim, math.prod(start), bias=False), nn.Unflatten(1, start)]
        for before, after in pairwise([*widths, channels]):
            layers += [nn.BatchNorm2d(before), nn.ReLU(inplace=True)]
            layers.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False))
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, noise: Tensor) -> Tensor:  # (B, noise_dim) -> (B, C, H, W) in [-1, 1]
        _, height, width = self.image_shape
        return self.layers(noise)[:, :, :height, :width]


class Discriminator(nn.Module):
    """Image to one logit, above 0 for real: convolutions that halve the sides, then a linear layer."""

    def __init__(self, *, image_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        widths = layer_widths(image_shape, width)
        channels, *sides = image_shape
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise([channels, *widths])):
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=i == 0))
            if i:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        pixels = math.prod(side // 2 ** len(widths) for side in sides)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * pixels, 1))

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B,)
        return self.layers(images).squeeze(1)


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

    Args:
        image_shape: (C, H, W) of an image; H and W at least 8.
        noise_dim: Length of the noise vector.
        width: Channels of the finest layer; each coarser one has twice as many, up to eight times.

    Raises:
        ValueError: If a side of the image is below 8 pixels or a size below 1.
    """

    heads: ClassVar[tuple[str, ...]] = ("adversarial",)
    reads: ClassVar[tuple[type, ...]] = (Images,)

    def __init__(self, *, image_shape: tuple[int, int, int], noise_dim: int = 64, width: int = 32) -> None:
        super().__init__()
        channels, *sides = image_shape
        check_sizes(channels=channels, noise_dim=noise_dim, width=width)
        if min(sides) < MIN_SIDE:
            raise ValueError(f"A GAN draws images of at least {MIN_SIDE}x{MIN_SIDE} pixels, not {sides[0]}x{sides[1]}.")
        self.noise_dim = noise_dim
        self.generator = Generator(image_shape=image_shape, noise_dim=noise_dim, width=width)
        self.discriminator = Discriminator(image_shape=image_shape, width=width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    @classmethod
    def for_data(cls, inputs: Images, outputs: Images, **config: Any) -> GAN:
        return cls(image_shape=(outputs.channels, outputs.height, outputs.width), **config)

    def forward(self, noise: Tensor) -> Tensor:  # (B, noise_dim) -> (B, C, H, W)
        return self.generator(noise)

    def sample_noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:  # -> (count, noise_dim)
        """Normal noise on the model's device; drawn on the generator's, so one seed gives one noise on any device."""
        weight = next(self.parameters())
        device = weight.device if generator is None else generator.device
        return torch.randn(count, self.noise_dim, generator=generator, device=device).to(weight)
