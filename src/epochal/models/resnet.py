"""Residual networks, and the same networks without residual connections: wide ones for ImageNet, narrow ones for CIFAR.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015 (arXiv 1512.03385), table 1 and section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import OnlyWith, check_choice, check_sizes
from epochal.core.specs import Classes, Images
from epochal.models.common.layers import choose_input, kaiming_init, scaled, small_head_init

CHANNELS = {"cifar": (16, 32, 64), "imagenet": (64, 128, 256, 512)}  # of the 3x3 convolutions, stage by stage
IMAGENET = {  # depth: blocks of the four stages, and expansion of a block's last convolution (4: bottleneck blocks)
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
    """Convolutions learn F(x), the shortcut adds x; residual=False leaves the shortcut out, as in the plain network.

    Two 3x3 convolutions; or, with expansion 4, a bottleneck: 1x1, 3x3, and 1x1 to 4 * channels.
    """

    def __init__(
        self, *, in_channels: int, channels: int, expansion: int, stride: int, residual: bool, shortcut: str
    ) -> None:
        super().__init__()
        bottleneck = expansion > 1
        first, second = ((1, 1), (3, stride)) if bottleneck else ((3, stride), (3, 1))  # kernel and stride
        self.conv1 = convolution(in_channels, channels, *first)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, *second)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = convolution(channels, expansion * channels, 1) if bottleneck else None
        self.norm3 = nn.BatchNorm2d(expansion * channels) if bottleneck else None
        self.stride, self.residual = stride, residual
        self.new_channels = expansion * channels - in_channels
        self.projection: nn.Module | None = None
        if residual and shortcut == "B" and (stride > 1 or self.new_channels):
            self.projection = nn.Sequential(
                convolution(in_channels, expansion * channels, 1, stride), nn.BatchNorm2d(expansion * channels)
            )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H/stride, W/stride)
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = self.norm2(self.conv2(out))
        if self.conv3 is not None and self.norm3 is not None:
            out = self.norm3(self.conv3(F.relu(out, inplace=True)))
        if self.residual:
            out += self.shortcut(x)
        return F.relu(out, inplace=True)

    def shortcut(self, x: Tensor) -> Tensor:
        """x itself; where the shape changes, subsampled and padded with zero channels (A), or projected (B)."""
        if self.projection is not None:
            return self.projection(x)
        if self.new_channels == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class ResNet(nn.Module):
    """Residual network of one of two families.

        cifar     3x3 convolution -> (16, H, W)    n blocks -> (16, H, W)    n blocks -> (32, H/2, W/2)
                  n blocks -> (64, H/4, W/4)    global average pooling -> 64    output num_classes
        imagenet  7x7 convolution, stride 2 -> (64, H/2, W/2)    3x3 max pooling, stride 2 -> (64, H/4, W/4)
                  four stages of blocks with 64, 128, 256, 512 channels (times 4 after bottlenecks), the last three
                  halve height and width    global average pooling    output num_classes

    The paper's CIFAR networks have depth 6n + 2: 20, 32, 44, 56, 110 with 0.27, 0.46, 0.66, 0.85, 1.7 million
    parameters. Its ImageNet networks have depth 18, 34 and, with bottlenecks, 50, 101, 152, with 11.7, 21.8, 25.6,
    44.5, 60.2 million. 50 and 152 are also 6n + 2: they are ImageNet's unless the family says otherwise.

    The small form of the imagenet family, for 28 to 64 pixels, has the stem of the cifar family: a 3x3 convolution of
    stride 1 and no max pooling, so it halves the image three times instead of five.

    Kaiming initialisation (He et al. 2015, arXiv 1502.01852); the output layer starts from N(0, 0.01) (Goyal
    et al. 2017, arXiv 1706.02677, section 5.1). Deviation from the paper: a bottleneck has its stride in
    the 3x3 convolution, not in the 1x1 before it, which would ignore three pixels of four ("v1.5", as in torchvision).

    Args:
        in_channels: 1 for grey, 3 for colour images.
        num_classes: Number of logits.
        depth: Number of layers with weights.
        family: "cifar", "imagenet" or "auto", which is imagenet for its five depths.
        residual: False gives the plain network, the same layers without shortcuts.
        shortcut: Where the shape changes, "A" pads with zeros and has no parameters, "B" is a 1x1 convolution; "auto"
            is the family's published one, A for cifar and B for imagenet.
        zero_init_residual: Zero the scale of each block's last batch norm, so that blocks start as the identity (Goyal
            et al. 2017, arXiv 1706.02677).
        input: The stem: "imagenet" or "small"; "auto" is the family's own, in for_data by the images' size.
        width: Factor on the channels, above 0.

    Raises:
        ValueError: If the family has no such depth, a size is below 1, width not above 0, an argument none of its choices,
            family=cifar is combined with input=imagenet, or zero_init_residual with a plain network; from for_data, if the images are
            smaller than 4 pixels (cifar), 8 (small) or 32 (imagenet).
    """

    heads: ClassVar[tuple[str, ...]] = ("classes",)
    reads: ClassVar[tuple[type, ...]] = (Images,)
    only_with: ClassVar = {"shortcut": (OnlyWith("residual", (True,)),)}

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
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, num_classes=num_classes)
        family, blocks, expansion = architecture(depth, family)
        check_choice("shortcut", shortcut, ("auto", "A", "B"))
        check_choice("input", input, ("auto", "imagenet", "small"))
        if family == "cifar" and input == "imagenet":
            raise ValueError("input=imagenet needs family=imagenet; the cifar family has a 3x3 stem of its own.")
        if zero_init_residual and not residual:
            raise ValueError(
                "zero_init_residual=true needs residual=true: without shortcuts all outputs would be zero."
            )
        shortcut = shortcut if shortcut != "auto" else {"cifar": "A", "imagenet": "B"}[family]
        large = family == "imagenet" and input != "small"

        channels = [scaled(count, width) for count in CHANNELS[family]]
        self.stem = nn.Sequential(
            convolution(in_channels, channels[0], 7, 2) if large else convolution(in_channels, channels[0], 3),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(inplace=True),
            *([nn.MaxPool2d(3, 2, padding=1)] if large else []),
        )
        layers = make_blocks(channels, blocks, expansion, residual=residual, shortcut=shortcut)
        self.blocks = nn.Sequential(*layers)
        self.blocks_of_stages = blocks
        self.head = nn.Linear(expansion * channels[-1], num_classes)

        published = large and residual and shortcut == "B" and width == 1
        self.torchvision_name = f"resnet{depth}" if published else None
        kaiming_init(self)
        small_head_init(self.head, std=0.01)
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
        """The submodules whose outputs are feature maps (B, C, H, W), in order: stem, and last block of each stage."""
        ends = accumulate(self.blocks_of_stages)
        return {"stem": self.stem, **{f"stage {i}": self.blocks[end - 1] for i, end in enumerate(ends, start=1)}}

    @property
    def torchvision_keys(self) -> tuple[tuple[str, str], ...]:
        """Torchvision numbers blocks within each stage (layer2.0.conv1), we number all of them (blocks.3.conv1)."""
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


def make_blocks(
    widths: Sequence[int], blocks: Sequence[int], expansion: int, *, residual: bool, shortcut: str
) -> list[Block]:
    """The blocks of all stages; the first block of each stage but the first halves height and width."""
    layers, in_channels = [], widths[0]
    for stage, (channels, count) in enumerate(zip(widths, blocks, strict=True)):
        for i in range(count):
            block = Block(
                in_channels=in_channels,
                channels=channels,
                expansion=expansion,
                stride=2 if stage > 0 and i == 0 else 1,
                residual=residual,
                shortcut=shortcut,
            )
            in_channels = expansion * channels
            layers.append(block)
    return layers


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Keeps the image's size, or divides it by stride; no bias, since batch norm follows."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


def architecture(depth: int, family: str) -> tuple[str, tuple[int, ...], int]:
    """The family, the number of blocks of each stage, and the expansion of a block's last convolution.

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
