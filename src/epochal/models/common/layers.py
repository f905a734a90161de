"""What three or more models share: checks of arguments, sizes, first weights, frames as vectors, the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.specs import Images

SMALL_SIDE = 64  # pixels; larger images get the form that was published for ImageNet


def check_sizes(**sizes: int | None) -> None:
    """Raise ValueError unless every size is a whole number of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{name}={size} must be a whole number of at least 1.")


def scaled(channels: int, width: float) -> int:
    """So many times the channels, at least one.

    Raises:
        ValueError: If width is not above 0.
    """
    if not 0 < width < math.inf:
        raise ValueError(f"width={width} must be above 0, and finite.")
    return max(1, round(channels * width))


def start_for_relu(network: nn.Module) -> None:
    """Weights that keep the size of a signal through ReLUs (He et al. 2015, arXiv 1502.01852); biases start at zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check_dropout(dropout: float) -> None:
    """Raise ValueError unless 0 <= dropout < 1."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must be at least 0 and below 1.")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless value is one of choices."""
    if value not in choices:
        raise ValueError(f"{name}={value} is no choice. There are: {' '.join(choices)}")


def choose_input(input: str, images: Images) -> str:
    """Which form of a network an image gets: "small" up to 64 pixels a side where input is "auto", else "imagenet"."""
    check_choice("input", input, ("auto", "imagenet", "small"))
    if input != "auto":
        return input
    return "small" if max(images.height, images.width) <= SMALL_SIDE else "imagenet"


class FrameEncoder(nn.Module):
    """Each picture of a film as one vector: two 3x3 convolutions with a 2x2 maximum after each, then a linear layer.

    Args:
        in_channels: 1 for grey, 3 for colour pictures.
        height, width: Of a picture, at least 4 pixels each.
        embed_dim: Length of a picture's vector.

    Raises:
        ValueError: If a size is below 1 or a side below 4 pixels, of which two poolings would leave nothing.
    """

    def __init__(self, in_channels: int, height: int, width: int, embed_dim: int) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, height=height, width=width, embed_dim=embed_dim)
        if min(height, width) < 4:
            raise ValueError(f"Films of {height}x{width} pixels are too small; they need at least 4x4.")
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        start_for_relu(self)
        self.linear = nn.Linear(32 * (height // 4) * (width // 4), embed_dim)  # no ReLU follows

    def forward(self, frames: Tensor) -> Tensor:  # (B, T, C, H, W) -> (B, T, embed_dim)
        x = F.relu(F.max_pool2d(self.conv1(frames.flatten(0, 1)), 2))  # (B * T, 16, H/2, W/2)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B * T, 32, H/4, W/4)
        return self.linear(x.flatten(1)).unflatten(0, frames.shape[:2])
