"""EfficientNet: one small network, scaled in depth, width and resolution at once by a single compound coefficient.

Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019 (arXiv 1905.11946). Its block is
that of MobileNetV2 (Sandler et al. 2018) with squeeze-and-excitation (Hu et al. 2017) and stochastic depth (Huang et
al. 2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import check_choice, check_fraction, check_positive, check_sizes
from epochal.core.specs import Classes, Images
from epochal.models.common.layers import choose_input, small_head_init


class Stage(NamedTuple):
    """A row of table 1: the blocks' expansion ratio and kernel size, and the numbers of channels and blocks of b0."""

    ratio: int
    kernel: int
    channels: int
    blocks: int


class Variant(NamedTuple):
    """Factors on b0's channels and blocks, height and width of the image in pixels, dropout before the output."""

    width: float
    depth: float
    resolution: int
    dropout: float


STEM = 32  # channels of b0's first convolution
STAGES = (
    Stage(1, 3, 16, 1),
    Stage(6, 3, 24, 2),
    Stage(6, 5, 40, 2),
    Stage(6, 3, 80, 3),
    Stage(6, 5, 112, 3),
    Stage(6, 5, 192, 4),
    Stage(6, 3, 320, 1),
)
VARIANTS = {
    "b0": Variant(1.0, 1.0, 224, 0.2),
    "b1": Variant(1.0, 1.1, 240, 0.2),
    "b2": Variant(1.1, 1.2, 260, 0.3),
    "b3": Variant(1.2, 1.4, 300, 0.3),
    "b4": Variant(1.4, 1.8, 380, 0.4),
    "b5": Variant(1.6, 2.2, 456, 0.4),
    "b6": Variant(1.8, 2.6, 528, 0.5),
    "b7": Variant(2.0, 3.1, 600, 0.5),
}
STRIDES = {  # of the stem and the seven stages
    "imagenet": (2, 1, 2, 2, 2, 1, 2, 1),
    "small": (1, 1, 1, 2, 2, 1, 2, 1),
}


def convolution(
    in_channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and, if active, SiLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, *([nn.SiLU()] if active else []))


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation: a gate in (0, 1) for each channel, computed from the means of all channels."""

    def __init__(self, *, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        means = x.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        return x * self.excite(F.silu(self.squeeze(means))).sigmoid()


class Block(nn.Module):
    """MBConv: 1x1 expansion, depthwise convolution, squeeze-and-excitation, 1x1 projection; residual if shapes fit."""

    def __init__(
        self, *, in_channels: int, out_channels: int, ratio: int, kernel: int, stride: int, drop_path: float
    ) -> None:
        super().__init__()
        expanded = ratio * in_channels
        self.residual = stride == 1 and in_channels == out_channels
        self.drop_path = drop_path
        self.layers = nn.Sequential(
            *([convolution(in_channels, expanded)] if ratio > 1 else []),
            convolution(expanded, expanded, kernel, stride=stride, groups=expanded),
            SqueezeExcitation(channels=expanded, hidden=max(1, in_channels // 4)),
            convolution(expanded, out_channels, active=False),
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H/stride, W/stride)
        out = self.layers(x)
        if not self.residual:
            return out
        if self.training and self.drop_path:  # stochastic depth: some images of the batch skip the block
            kept = torch.rand(len(x), 1, 1, 1, dtype=x.dtype, device=x.device) >= self.drop_path
            out = out * (kept / (1 - self.drop_path))
        return out + x


class Size(NamedTuple):
    """Size of a network: channels of stem and stages, blocks of the stages, side of the images (None: not resized)."""

    channels: list[int]
    blocks: list[int]
    side: int | None

    def scaled(self, *, width: float = 1.0, depth: float = 1.0, resolution: float = 1.0, divisor: int = 8) -> Size:
        """Multiplied by these factors: channels by width, blocks by depth, side by resolution; rounded as published."""
        return Size(
            [round_channels(count * width, divisor) for count in self.channels],
            [math.ceil(count * depth) for count in self.blocks],
            self.side and round(self.side * resolution),
        )

    def cost(self, strides: Sequence[int]) -> int:
        """Multiply-adds of the convolutions for one image (half its FLOPs), without squeeze-and-excitation."""
        assert self.side is not None
        side = math.ceil(self.side / strides[0])
        total = side**2 * 27 * self.channels[0]
        for stage, stride, (before, after), blocks in zip(STAGES, strides[1:], pairwise(self.channels), self.blocks):
            small = math.ceil(side / stride)
            for channels, pixels, count in ((before, side**2, 1), (after, small**2, blocks - 1)):
                expansion = pixels * channels if stage.ratio > 1 else 0
                total += count * stage.ratio * channels * (expansion + small**2 * (stage.kernel**2 + after))
            side = small
        return total + side**2 * 4 * self.channels[-1] ** 2


def round_channels(count: float, divisor: int) -> int:
    """The nearest multiple of divisor, or the next above if that is more than 10 % below count."""
    near = max(divisor, int(count + divisor / 2) // divisor * divisor)
    return near if near >= 0.9 * count else near + divisor


def size(variant: str, scale_by: str, *, width: float, depth: float, resolution: int | None, input: str) -> Size:
    """Size of b0 times the factors, scaled to the variant, or along one dimension to the variant's FLOPs."""
    to = VARIANTS[variant]
    divisor = max(1, round(8 * min(width, 1)))
    b0 = Size([STEM, *(stage.channels for stage in STAGES)], [stage.blocks for stage in STAGES], resolution)
    b0 = b0.scaled(width=width, depth=depth, divisor=divisor)
    compound = b0.scaled(width=to.width, depth=to.depth, resolution=to.resolution / 224, divisor=divisor)
    if scale_by == "compound":
        return compound
    scale: Callable[[float], Size] = lambda factor: b0.scaled(**{scale_by: factor}, divisor=divisor)  # noqa: E731
    target, strides = compound.cost(STRIDES[input]), STRIDES[input]
    sizes, factor = [b0], 1.0
    while sizes[-1].cost(strides) < target:
        factor *= 1.01
        sizes.append(scale(factor))
    return min(sizes, key=lambda one: abs(one.cost(strides) - target))


class EfficientNet(nn.Module):
    """Stem, seven stages of MBConv blocks, 1x1 convolution to four times the channels, average pooling, output.

    The paper scales b0 with one coefficient phi: 1.2^phi times the blocks (alpha), 1.1^phi times the channels (beta)
    and 1.15^phi times the image's side (gamma), so that FLOPs double with each phi, as 1.2 * 1.1^2 * 1.15^2 = 1.92. The
    published variants are rounded by hand: width, depth and resolution of b1 to b7 multiply to the FLOPs of phi = 0.4,
    1.0, 2.0, 3.6, 4.8, 5.9 and 6.9. b0 to b7 have 5.3, 7.8, 9.1, 12.2, 19.3, 30.4, 43.0 and 66.3 million parameters.
    Channels are multiples of 8, and numbers of blocks are rounded up.

    The small form, for 28 to 64 pixels, has stride 1 in the stem and in stage 2: it halves the image three times
    instead of five, so 32x32 pixels end as 4x4. The number of parameters is the same.

    Convolutions start as published, from N(0, sqrt(2 / fan_out)). Deviations: the output layer starts from N(0, 0.01),
    since the authors' uniform initialisation up to 1 / sqrt(num_classes) is ten times as wide for ten classes as for a
    thousand, which costs small networks their first epochs; batch norm has torch's momentum of 0.1, since the authors'
    0.01 needs more steps than a short training has.

    Args:
        in_channels: 1 for grey, 3 for colour images.
        num_classes: Number of logits.
        variant: "b0" to "b7".
        scale_by: What is scaled from b0 to the variant: "compound", or "depth", "width" or "resolution" alone, to the
            FLOPs of the compound scaling (as in figure 8 and table 7 of the paper).
        resolution: Side in pixels to which b0 resizes its images; larger variants resize to more in proportion. None:
            no resizing.
        width: Factor on b0's own channels, above 0; below 1 they are multiples of 8 * width, so that rounding has the
            same relative effect.
        depth: Factor on b0's own blocks, above 0.
        stochastic_depth: Fraction of images that skip the last block in training; it grows linearly from 0 at the
            first.
        input: "imagenet" or "small".

    Raises:
        ValueError: If an argument is none of its choices, a size below 1, a factor not above 0, stochastic_depth not in
            [0, 1), one dimension is to be scaled but there is no resolution, or the images are too small.
    """

    heads: ClassVar[tuple[str, ...]] = ("classes",)
    reads: ClassVar[tuple[type, ...]] = (Images,)
    torchvision_keys: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"\.block\.", ".layers."),  # features.2.0.block.1.0.weight: stage 2, block 0, its layer 1, the convolution
        (r"\.fc1\.", ".squeeze."),
        (r"\.fc2\.", ".excite."),
        (r"^classifier\.1\.", "head."),
    )

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        variant: str = "b0",
        scale_by: str = "compound",
        resolution: int | None = None,
        width: float = 1.0,
        depth: float = 1.0,
        stochastic_depth: float = 0.2,
        input: str = "imagenet",
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, num_classes=num_classes)
        check_choice("variant", variant, tuple(VARIANTS))
        check_choice("scale_by", scale_by, ("compound", "depth", "width", "resolution"))
        check_choice("input", input, tuple(STRIDES))
        check_positive("width", width)
        check_positive("depth", depth)
        check_fraction("stochastic_depth", stochastic_depth)
        if resolution is not None:
            check_sizes(resolution=resolution)
            check_side(resolution, resolution, input, cure=f"resolution={math.prod(STRIDES[input])}")
        elif scale_by != "compound":
            raise ValueError(f"scale_by={scale_by} counts FLOPs, so it needs the side of b0's images: resolution=32.")

        channels, blocks, self.side = size(
            variant, scale_by, width=width, depth=depth, resolution=resolution, input=input
        )
        strides = STRIDES[input]
        last = 4 * channels[-1]
        self.features = nn.Sequential(
            convolution(in_channels, channels[0], 3, stride=strides[0]),
            *make_stages(channels, blocks, strides[1:], stochastic_depth),
            convolution(channels[-1], last),
        )
        self.dropout = nn.Dropout(VARIANTS[variant].dropout)
        self.head = nn.Linear(last, num_classes)

        published = input == "imagenet" and width == depth == 1 and (scale_by == "compound" or variant == "b0")
        self.torchvision_name = f"efficientnet_{variant}" if published else None
        self._initialise()
        if variant in ("b5", "b6", "b7"):  # as published; torchvision has it for these three, and its weights need it
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 1e-3

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels // module.groups * module.kernel_size[0] ** 2
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        small_head_init(self.head, std=0.01)

    @classmethod
    def for_data(cls, inputs: Images, outputs: Classes, *, input: str = "auto", **config: Any) -> EfficientNet:
        form = choose_input(input, inputs)
        if config.get("resolution") is None:
            check_side(inputs.height, inputs.width, form, cure="dataset.image_size=32")
        return cls(in_channels=inputs.channels, num_classes=outputs.count, input=form, **config)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        if self.side is not None and images.shape[-2:] != (self.side, self.side):
            shrinks = max(images.shape[-2:]) > self.side
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=shrinks)
        return self.head(self.dropout(self.features(images).mean(dim=(2, 3))))

    def stages(self) -> dict[str, nn.Module]:
        """The submodules whose outputs are feature maps (B, C, H, W), in order."""
        names = ("stem", *(f"stage {i}" for i in range(1, len(STAGES) + 1)), "top")
        return dict(zip(names, self.features))


def make_stages(
    channels: Sequence[int], blocks: Sequence[int], strides: Sequence[int], stochastic_depth: float
) -> list[nn.Sequential]:
    """The seven stages.

    Args:
        channels: Of the stem, then of each stage.
        blocks: Number of blocks of each stage.
        strides: Of the first block of each stage.
        stochastic_depth: Of the last block; it grows linearly from 0 at the first.
    """
    rates = iter(stochastic_depth * i / sum(blocks) for i in range(sum(blocks)))
    stages = []
    for stage, stride, (before, after), count in zip(STAGES, strides, pairwise(channels), blocks, strict=True):
        made = (
            Block(
                in_channels=before if i == 0 else after,
                out_channels=after,
                ratio=stage.ratio,
                kernel=stage.kernel,
                stride=stride if i == 0 else 1,
                drop_path=next(rates),
            )
            for i in range(count)
        )
        stages.append(nn.Sequential(*made))
    return stages


def check_side(height: int, width: int, input: str, *, cure: str) -> None:
    """Raise ValueError where the strides leave less than one pixel; cure says what would be right."""
    least = math.prod(STRIDES[input])
    if min(height, width) < least:
        raise ValueError(
            f"EfficientNet's {input} form halves the image {int(math.log2(least))} times, so it reads at least "
            f"{least}x{least} pixels, not {height}x{width}: {cure}"
        )
