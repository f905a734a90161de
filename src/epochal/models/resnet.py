"""Residual networks and their plain twins, for small images.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015 (arXiv 1512.03385), section 4.2.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from epochal.facts import Classes, Images
from epochal.models.layers import check_choice, check_sizes

WIDTHS = (16, 32, 64)  # channels of the three stages; the second and the third halve height and width
MIN_SIDE = 4  # pixels, so that two halvings leave one
PUBLISHED = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}  # depth: million parameters (table 6)


class Block(nn.Module):
    """Two 3x3 convolutions learn F(x); the shortcut adds x. Without the shortcut, the plain network's pair."""

    def __init__(self, *, in_channels: int, out_channels: int, residual: bool, shortcut: str) -> None:
        super().__init__()
        changes = in_channels != out_channels
        self.stride = 2 if changes else 1
        self.new_channels = out_channels - in_channels
        self.residual = residual
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.projection: nn.Module | None = None
        if residual and changes and shortcut == "B":
            self.projection = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, self.stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H/stride, W/stride)
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = self.norm2(self.conv2(out))
        if self.residual:
            out = out + self.bypass(x)
        return F.relu(out, inplace=True)

    def bypass(self, x: Tensor) -> Tensor:
        """x itself; where the shape changes, every second pixel with zeros as new channels (A), or projected (B)."""
        if self.projection is not None:
            return self.projection(x)
        if self.new_channels == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class ResNet(nn.Module):
    """Residual network of depth 6n + 2 for small images; the paper's are CIFAR's 32x32.

        3x3 convolution -> (16, H, W)    n blocks -> (16, H, W)    n blocks -> (32, H/2, W/2)
        n blocks -> (64, H/4, W/4)    mean over pixels -> 64    output num_classes

    Depth 20, 32, 44, 56, 110 has 0.27, 0.46, 0.66, 0.85, 1.7 million parameters. Weights start as in He et al. 2015
    (arXiv 1502.01852). Deviation from the paper: none with shortcut "A", which it uses on CIFAR-10; "B" it uses on
    ImageNet.

    Args:
        in_channels: 1 for grey, 3 for colour images.
        num_classes: Length of the output.
        depth: Layers with weights, 6n + 2.
        residual: False gives the plain network, the same layers without the shortcuts.
        shortcut: Where the shape changes, "A" pads with zeros and learns nothing, "B" projects by a 1x1 convolution.

    Raises:
        ValueError: If depth is not 6n + 2, a size is below 1 or shortcut is no choice; from for_data, if the images
            are smaller than 4 pixels.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    reads: ClassVar[tuple[type, ...]] = (Images,)

    def __init__(
        self, *, in_channels: int, num_classes: int, depth: int = 20, residual: bool = True, shortcut: str = "A"
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, num_classes=num_classes, depth=depth)
        check_choice("shortcut", shortcut, ("A", "B"))
        blocks, rest = divmod(depth - 2, 6)
        if depth < 8:
            raise ValueError(f"depth={depth} is not 6n + 2. The smallest is 8.")
        if rest:
            raise ValueError(f"depth={depth} is not 6n + 2. The nearest are {depth - rest} and {depth - rest + 6}.")
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(inplace=True),
        )
        widths = [width for width in WIDTHS for _ in range(blocks)]
        self.blocks = nn.Sequential(*(
            Block(in_channels=before, out_channels=width, residual=residual, shortcut=shortcut)
            for before, width in pairwise([WIDTHS[0], *widths])
        ))  # fmt: skip
        self.head = nn.Linear(WIDTHS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.head.bias)

    @classmethod
    def for_data(cls, inputs: Images, outputs: Classes, **config: Any) -> ResNet:
        if min(inputs.height, inputs.width) < MIN_SIDE:
            raise ValueError(
                f"A residual network halves the image twice, so it reads at least {MIN_SIDE}x{MIN_SIDE} pixels, "
                f"not {inputs.height}x{inputs.width}."
            )
        return cls(in_channels=inputs.channels, num_classes=outputs.count, **config)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        features = self.blocks(self.stem(images))  # (B, 64, H/4, W/4)
        return self.head(features.mean(dim=(2, 3)))
