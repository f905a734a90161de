"""GoogLeNet: modules with filters of several sizes in parallel, made cheap by 1x1 convolutions.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich: Going Deeper with Convolutions, 2014
(arXiv 1409.4842).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import check_choice, check_fraction, check_sizes
from epochal.core.specs import Classes, Images
from epochal.models.common.layers import choose_input, kaiming_init, scaled, small_head_init

BRANCHES = ("1x1", "3x3", "5x5", "pool")
INCEPTIONS = {  # module: channels of the 1x1, of the 3x3's reduction, the 3x3, the 5x5's reduction, the 5x5, the pool's
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}  # (table 1)
POOLED = {"4a": 3, "5a": 2}  # modules with max pooling of stride 2 before them: its kernel size
HEADS = ("4a", "4d")  # modules that an auxiliary head follows
AUXILIARY_DROPOUT = 0.7
LEAST = {"imagenet": 32, "small": 16}  # pixels, so that all halvings leave one


class Inception(nn.Module):
    """Up to four parallel branches, their channels concatenated: 1x1, 3x3 and 5x5 convolutions, and max pooling.

    A 1x1 convolution reduces the channels before the 3x3 and 5x5 convolutions and after pooling.

    Args:
        in_channels: Of the input.
        channels: A row of INCEPTIONS.
        branches: Some of BRANCHES.
        largest_kernel: Kernel size of the 5x5 branch.
        equal_depth: Whether a second 1x1 convolution, of as many channels, ends the 1x1 and the pool branch.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        channels: Sequence[int],
        branches: Sequence[str],
        largest_kernel: int,
        equal_depth: bool = False,
    ) -> None:
        super().__init__()
        one, three_reduced, three, five_reduced, five, pooled = channels

        def pointwise(channels: int) -> nn.Sequential:
            first = convolution(in_channels, channels, 1)
            return nn.Sequential(first, convolution(channels, channels, 1)) if equal_depth else first

        made = {
            "1x1": lambda: pointwise(one),
            "3x3": lambda: nn.Sequential(
                convolution(in_channels, three_reduced, 1), convolution(three_reduced, three, 3)
            ),
            "5x5": lambda: nn.Sequential(
                convolution(in_channels, five_reduced, 1), convolution(five_reduced, five, largest_kernel)
            ),
            "pool": lambda: nn.Sequential(nn.MaxPool2d(3, 1, padding=1), pointwise(pooled)),
        }
        self.branches = nn.ModuleDict({name: made[name]() for name in BRANCHES if name in branches})
        widths = dict(zip(BRANCHES, (one, three, five, pooled), strict=True))
        self.out_channels = sum(widths[name] for name in self.branches)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H, W)
        return torch.cat([branch(x) for branch in self.branches.values()], dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier on an intermediate layer, which shortens the path of the gradient to the first layers."""

    def __init__(self, *, in_channels: int, num_classes: int, width: float) -> None:
        super().__init__()
        channels, hidden = scaled(128, width), scaled(1024, width)
        self.conv = convolution(in_channels, channels, 1)
        self.fc1 = nn.Linear(channels * 4 * 4, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.conv(F.adaptive_avg_pool2d(x, 4)).flatten(1)
        return self.fc2(F.dropout(F.relu(self.fc1(x)), AUXILIARY_DROPOUT, self.training))


class GoogLeNet(nn.Module):
    """Nine inception modules, 22 layers with weights deep, 6.6 million parameters for ImageNet's 1000 classes.

        7x7 stride 2 -> (64, H/2, W/2)    pool    1x1 -> 64    3x3 -> (192, H/4, W/4)    pool
        3a, 3b -> (480, H/8, W/8)    pool    4a to 4e -> (832, H/16, W/16)    pool    5a, 5b -> (1024, H/32, W/32)
        global average pooling -> 1024    output num_classes

    In training, forward returns (logits, logits after 4a, logits after 4d); the losses of the two auxiliary heads have
    weight 0.3 each. In evaluation mode it returns the logits alone; the heads, another 6.4 million parameters, are not
    used.

    The form for small images, of 28 to 64 pixels, differs in one layer: the first convolution is 3x3 with stride 1. So
    32x32 pixels become 16, 8 (modules 3), 4 (modules 4, where the auxiliary heads read 4x4 pixels as published) and 2
    (modules 5).

    Deviations from the paper:
        - Batch normalisation after each convolution, which the same authors introduced a year later (arXiv 1502.03167),
          and no local response normalisation.
        - The 5x5 branch has 3x3 filters by default, as in torchvision, so that its weights fit; the 6.6 million
          parameters usually quoted are of this form. The paper's largest_kernel=5 has 7.0 million.
        - Pooling before module 5a is 2x2 instead of 3x3, as in torchvision.
        - The auxiliary heads average to 4x4 pixels whatever the image's size.
        - Kaiming initialisation (He et al. 2015, arXiv 1502.01852), of which the paper says nothing; the three output
          layers start from N(0, 0.01), as torchvision's (nearly: it cuts the normal distribution off at two deviations).

    Args:
        in_channels: 1 for grey, 3 for colour images.
        num_classes: Number of logits.
        input: "imagenet" is the published form, "small" the one for 28 to 64 pixels; for_data also takes "auto", which
            is small where no side is longer than 64 pixels.
        branches: Which of "1x1", "3x3", "5x5", "pool" the modules have.
        equal_parameters: With fewer branches, multiply the channels of the others so that the network, without its
            auxiliary heads, has as many parameters as with all four (within 2 % from width 0.25 on).
        equal_depth: Give the 1x1 and the pool branch a second 1x1 convolution, so that all branches are two convolutions
            deep and a network of one of them is as deep as the others. As published, those two have one.
        largest_kernel: Kernel size of the 5x5 branch, 3 or 5.
        auxiliary: Whether there are auxiliary heads.
        dropout: Fraction of the 1024 features that is zeroed in training; 0.7 in the auxiliary heads.
        width: Factor on all channels, above 0.

    Raises:
        ValueError: If branches is empty, an argument none of its choices, a size below 1, width not above 0, or dropout
            not in [0, 1); from for_data, if pooling leaves nothing of the images.
    """

    heads: ClassVar[tuple[str, ...]] = ("classes",)
    reads: ClassVar[tuple[type, ...]] = (Images,)
    auxiliary_weight: ClassVar[float] = 0.3
    torchvision_keys: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^conv1\.", "stem.0."),
        (r"^conv2\.", "stem.2."),
        (r"^conv3\.", "stem.3."),
        (r"^inception(\w+)\.branch1\.", r"inceptions.\1.branches.1x1."),
        (r"^inception(\w+)\.branch2\.", r"inceptions.\1.branches.3x3."),
        (r"^inception(\w+)\.branch3\.", r"inceptions.\1.branches.5x5."),
        (r"^inception(\w+)\.branch4\.", r"inceptions.\1.branches.pool."),
        (r"^aux1\.", "auxiliary.4a."),
        (r"^aux2\.", "auxiliary.4d."),
        (r"^fc\.", "head."),
        (r"\.conv\.weight$", ".0.weight"),  # a convolution and its normalisation stand in one Sequential
        (r"\.bn\.", ".1."),
    )

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        input: str = "imagenet",
        branches: Sequence[str] = BRANCHES,
        equal_parameters: bool = False,
        equal_depth: bool = False,
        largest_kernel: int = 3,
        auxiliary: bool = True,
        dropout: float = 0.4,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, num_classes=num_classes)
        check_choice("input", input, tuple(LEAST))
        check_fraction("dropout", dropout)
        check_choice("largest_kernel", largest_kernel, (3, 5))
        if not branches:
            raise ValueError(f"branches must name at least one of: {' '.join(BRANCHES)}")
        for name in branches:
            check_choice("branches", name, BRANCHES)
        published = (input, set(branches), largest_kernel, width) == ("imagenet", set(BRANCHES), 3, 1)
        self.torchvision_name = "googlenet" if published and not equal_depth else None

        kernel, stride = (7, 2) if input == "imagenet" else (3, 1)
        first, second = scaled(64, width), scaled(192, width)
        self.stem = nn.Sequential(
            convolution(in_channels, first, kernel, stride),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            convolution(first, first, 1),
            convolution(first, second, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )

        make = partial(
            inception_modules,
            in_channels=second,
            num_classes=num_classes,
            largest_kernel=largest_kernel,
            equal_depth=equal_depth,
        )
        factor = width * (equalising_factor(make, branches, width) if equal_parameters else 1)
        self.inceptions, self.head = make(branches, factor)
        self.dropout = nn.Dropout(dropout)
        self.auxiliary = nn.ModuleDict()
        if auxiliary:
            for name in HEADS:
                before: Any = self.inceptions[name]
                self.auxiliary[name] = AuxiliaryHead(
                    in_channels=before.out_channels, num_classes=num_classes, width=width
                )
        kaiming_init(self)
        small_head_init(self.head, *(cast(AuxiliaryHead, head).fc2 for head in self.auxiliary.values()), std=0.01)

    @classmethod
    def for_data(cls, inputs: Images, outputs: Classes, *, input: str = "auto", **config: Any) -> GoogLeNet:
        form = choose_input(input, inputs)
        if min(inputs.height, inputs.width) < LEAST[form]:
            raise ValueError(
                f"GoogLeNet with input={form} halves the image until {LEAST[form]} pixels are one, so it needs at "
                f"least as many a side, not {inputs.height}x{inputs.width}: "
                f"dataset.image_size={32 if form == 'small' else 224}"
            )
        return cls(in_channels=inputs.channels, num_classes=outputs.count, input=form, **config)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:  # (B, C, H, W) -> (B, num_classes) each
        x, auxiliary = self.stem(images), []
        for name, inception in self.inceptions.items():
            if name in POOLED:
                x = F.max_pool2d(x, POOLED[name], 2, ceil_mode=True)
            x = inception(x)
            if self.training and name in self.auxiliary:
                auxiliary.append(self.auxiliary[name](x))
        logits = self.head(self.dropout(x.mean(dim=(2, 3))))
        return (logits, *auxiliary) if auxiliary else logits

    def stages(self) -> dict[str, nn.Module]:
        """The submodules whose outputs are feature maps (B, C, H, W), in order."""
        return {"stem": self.stem} | {f"inception {name}": self.inceptions[name] for name in ("3b", "4e", "5b")}


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels, eps=1e-3),
        nn.ReLU(inplace=True),
    )


def inception_modules(
    branches: Sequence[str],
    factor: float,
    *,
    in_channels: int,
    num_classes: int,
    largest_kernel: int,
    equal_depth: bool,
) -> tuple[nn.ModuleDict, nn.Linear]:
    """All inception modules, their channels times the factor, and the output layer."""
    modules, channels = nn.ModuleDict(), in_channels
    for name, widths in INCEPTIONS.items():
        inception = Inception(
            in_channels=channels,
            channels=[scaled(count, factor) for count in widths],
            branches=branches,
            largest_kernel=largest_kernel,
            equal_depth=equal_depth,
        )
        modules[name], channels = inception, inception.out_channels
    return modules, nn.Linear(channels, num_classes)


def equalising_factor(
    make: Callable[[Sequence[str], float], Sequence[nn.Module]], branches: Sequence[str], width: float
) -> float:
    """The factor on the channels with which these branches have as many parameters as all four."""

    def count(branches: Sequence[str], factor: float) -> int:
        with torch.device("meta"):
            return sum(p.numel() for module in make(branches, factor) for p in module.parameters())

    whole, found = count(BRANCHES, width), 1.0
    for _ in range(8):  # the number of parameters grows about with the square of the channels, which are whole numbers
        ratio = whole / count(branches, width * found)
        if abs(ratio - 1) < 0.002:
            break
        found *= ratio**0.5
    return found
