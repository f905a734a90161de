"""Residual networks and their plain twins: the deep ones for ImageNet, the slim ones for small images.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015 (arXiv 1512.03385), table 1 and section 4.2.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import check_choice, check_sizes
from epochal.core.specs import Classes, Images
from epochal.models.common.layers import choose_input, kaiming_init

CHANNELS = {"cifar": (16, 32, 64), "imagenet": (64, 128, 256, 512)}  # of the 3x3 convolutions, stage by stage
IMAGENET = {  # depth: blocks of the four stages, and by how much a block's last convolution widens (4: a bottleneck)
    18: ((2, 2, 2, 2), 1),
    34: ((3, 4, 6, 3), 1),
    50: ((3, 4, 6, 3), 4),
    101: ((3, 4, 23, 3), 4),
    152: ((3, 8, 36, 3), 4),
}
PUBLISHED = {  # depth: million parameters, for ten and for a thousand classes
    "cifar": {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7},
    "imagenet": {18: 11.7, 34: 21.8, 50: 25.6, 101: 44.5, 152: 60.2},
}


class Block(nn.Module):
    """Convolutions learn F(x), the shortcut adds x; without it, the same convolutions of the plain network.

    Two of 3x3. A bottleneck has one of 3x3 between two of 1x1, of which the second widens to 4 * channels.
    """

    def __init__(
        self, *, in_channels: int, channels: int, widen: int, stride: int, residual: bool, shortcut: str
    ) -> None:
        super().__init__()
        bottleneck = widen > 1
        first, second = ((1, 1), (3, stride)) if bottleneck else ((3, stride), (3, 1))  # kernel and stride
        self.conv1 = convolution(in_channels, channels, *first)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, *second)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = convolution(channels, widen * channels, 1) if bottleneck else None
        self.norm3 = nn.BatchNorm2d(widen * channels) if bottleneck else None
        self.stride, self.residual = stride, residual
        self.new_channels = widen * channels - in_channels
        self.projection: nn.Module | None = None
        if residual and shortcut == "B" and (stride > 1 or self.new_channels):
            self.projection = nn.Sequential(
                convolution(in_channels, widen * channels, 1, stride), nn.BatchNorm2d(widen * channels)
            )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H/stride, W/stride)
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = self.norm2(self.conv2(out))
        if self.conv3 is not None and self.norm3 is not None:
            out = self.norm3(self.conv3(F.relu(out, inplace=True)))
        if self.residual:
            out += self.bypass(x)
        return F.relu(out, inplace=True)

    def bypass(self, x: Tensor) -> Tensor:
        """x itself; where the shape changes, every second pixel with zeros as new channels (A), or projected (B)."""
        if self.projection is not None:
            return self.projection(x)
        if self.new_channels == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class ResNet(nn.Module):
    """Residual network of one of two families.

        cifar     3x3 convolution -> (16, H, W)    n blocks -> (16, H, W)    n blocks -> (32, H/2, W/2)
                  n blocks -> (64, H/4, W/4)    mean over pixels -> 64    output num_classes
        imagenet  7x7 convolution, stride 2 -> (64, H/2, W/2)    3x3 maximum, stride 2 -> (64, H/4, W/4)
                  four stages of blocks with 64, 128, 256, 512 channels (times 4 after bottlenecks), of which the
                  last three halve height and width    mean over pixels    output num_classes

    The paper's CIFAR networks have depth 6n + 2: 20, 32, 44, 56, 110 with 0.27, 0.46, 0.66, 0.85, 1.7 million
    parameters. Its ImageNet networks have depth 18, 34 and, of bottlenecks, 50, 101, 152, with 11.7, 21.8, 25.6, 44.5,
    60.2 million. 50 and 152 are also 6n + 2: they are ImageNet's unless the family says otherwise.

    The small form of the imagenet family, for 28 to 64 pixels, starts as the cifar family does: by a 3x3 convolution of
    stride 1 and no maximum, so it halves three times instead of five.

    Weights start as in He et al. 2015 (arXiv 1502.01852). Deviation from the paper: a bottleneck halves the image in its
    3x3 convolution, not in the 1x1 before it, which would not look at three pixels of four ("v1.5", as torchvision).

    Args:
        in_channels: 1 for grey, 3 for colour images.
        num_classes: Length of the output.
        depth: Layers with weights.
        family: "cifar", "imagenet" or "auto", which is imagenet for its five depths.
        residual: False gives the plain network, the same layers without the shortcuts.
        shortcut: Where the shape changes, "A" pads with zeros and learns nothing, "B" projects by a 1x1 convolution;
            "auto" is what the family was published with, A for cifar and B for imagenet.
        zero_init_residual: Begin with blocks that only pass their input on (Goyal et al. 2017, arXiv 1706.02677): the
            factors of their last batch norm are 0.
        input: The first layers: "imagenet" or "small"; "auto" is the family's own, and by the images' size in for_data.

    Raises:
        ValueError: If the family has no such depth, a size is below 1, family, shortcut or input is no choice,
            family=cifar shall get the first layers of ImageNet, or a plain network begin with zeros; from for_data,
            if the images are smaller than 4 pixels (cifar), 8 (small) or 32 (imagenet).
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    reads: ClassVar[tuple[type, ...]] = (Images,)

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        depth: int = 20,
        family: str = "auto",
        residual: bool = True,
        shortcut: str = "auto",
        zero_init_residual: bool = False,
        input: str = "auto",
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, num_classes=num_classes)
        family, blocks, widen = architecture(depth, family)
        check_choice("shortcut", shortcut, ("auto", "A", "B"))
        check_choice("input", input, ("auto", "imagenet", "small"))
        if family == "cifar" and input == "imagenet":
            raise ValueError(
                "input=imagenet needs family=imagenet; the cifar family reads images with its own 3x3 stem."
            )
        if zero_init_residual and not residual:
            raise ValueError(
                "zero_init_residual=true needs residual=true: without shortcuts all outputs would be zero."
            )
        shortcut = shortcut if shortcut != "auto" else {"cifar": "A", "imagenet": "B"}[family]
        large = family == "imagenet" and input != "small"

        channels = CHANNELS[family][0]
        self.stem = nn.Sequential(
            convolution(in_channels, channels, 7, 2) if large else convolution(in_channels, channels, 3),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            *([nn.MaxPool2d(3, 2, padding=1)] if large else []),
        )
        layers = []
        for stage, count in enumerate(blocks):
            for i in range(count):
                block = Block(
                    in_channels=channels,
                    channels=CHANNELS[family][stage],
                    widen=widen,
                    stride=2 if stage > 0 and i == 0 else 1,
                    residual=residual,
                    shortcut=shortcut,
                )
                channels = widen * CHANNELS[family][stage]
                layers.append(block)
        self.blocks = nn.Sequential(*layers)
        self.blocks_of_stages = blocks
        self.head = nn.Linear(channels, num_classes)

        published = large and residual and shortcut == "B"
        self.torchvision_name = f"resnet{depth}" if published else None
        kaiming_init(self)
        if zero_init_residual:
            for block in layers:
                nn.init.zeros_((block.norm3 or block.norm2).weight)

    @classmethod
    def for_data(
        cls,
        inputs: Images,
        outputs: Classes,
        *,
        depth: int = 20,
        family: str = "auto",
        input: str = "auto",
        **config: Any,
    ) -> ResNet:
        form = choose_input(input, inputs)
        family, _, _ = architecture(depth, family)
        if family == "cifar":
            form, halvings = input, 2
        else:
            halvings = {"small": 3, "imagenet": 5}[form]
        if min(inputs.height, inputs.width) < 2**halvings:
            raise ValueError(
                f"This residual network halves the image {halvings} times, so it reads at least "
                f"{2**halvings}x{2**halvings} pixels, not {inputs.height}x{inputs.width}: dataset.image_size=32"
            )
        return cls(
            in_channels=inputs.channels, num_classes=outputs.count, depth=depth, family=family, input=form, **config
        )

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        return self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))

    def stages(self) -> dict[str, nn.Module]:
        """The parts whose outputs are feature maps, in order; a stage's is that of its last block."""
        ends = accumulate(self.blocks_of_stages)
        return {"stem": self.stem, **{f"stage {i}": self.blocks[end - 1] for i, end in enumerate(ends, start=1)}}

    @property
    def torchvision_keys(self) -> tuple[tuple[str, str], ...]:
        """Torchvision counts blocks anew in each stage (layer2.0.conv1), ours count on (blocks.3.conv1)."""
        starts = accumulate(self.blocks_of_stages, initial=0)
        blocks = (
            (rf"^layer{stage}\.{i}\.", f"blocks.{start + i}.")
            for stage, (start, count) in enumerate(zip(starts, self.blocks_of_stages), start=1)
            for i in range(count)
        )
        return (
            *blocks,
            (r"^conv1\.", "stem.0."),
            (r"^bn1\.", "stem.1."),
            (r"\.bn(\d)\.", r".norm\1."),
            (r"\.downsample\.", ".projection."),
            (r"^fc\.", "head."),
        )


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """That keeps the image's size, or divides it by stride; batch norm, which follows, makes a bias needless."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


def architecture(depth: int, family: str) -> tuple[str, tuple[int, ...], int]:
    """The family, the number of blocks of its stages, and by how much a block's last convolution widens.

    Raises:
        ValueError: If the family has no network of this depth.
    """
    check_sizes(depth=depth)
    check_choice("family", family, ("auto", "cifar", "imagenet"))
    if family != "cifar" and depth in IMAGENET:
        return "imagenet", *IMAGENET[depth]
    blocks, rest = divmod(depth - 2, 6)
    right = blocks >= 1 and rest == 0
    if family != "imagenet" and right:
        return "cifar", (blocks,) * 3, 1
    cifar = {depth} if right else {max(8, depth - rest), max(8, depth - rest + 6)}
    nearest = min(IMAGENET, key=lambda one: abs(one - depth))
    raise ValueError(
        f"depth={depth} is {'none of ImageNet' if family == 'imagenet' else 'not 6n + 2'}. The nearest are "
        f"{' and '.join(map(str, sorted(cifar)))} (family=cifar) and {nearest} (family=imagenet)."
    )
