"""VGG: deep stacks of 3x3 convolutions. Two have the receptive field of one 5x5, three that of one 7x7.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014 (arXiv 1409.1556).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from epochal.core.checks import OnlyWith, check_choice, check_fraction, check_sizes
from epochal.core.specs import Classes, Images
from epochal.models.common.layers import choose_input, kaiming_init, scaled, small_head_init

VARIANTS = {  # depth: convolutions of each stage (table 1)
    11: (1, 1, 2, 2, 2),  # A
    13: (2, 2, 2, 2, 2),  # B
    16: (2, 2, 3, 3, 3),  # D
    19: (2, 2, 4, 4, 4),  # E
}
PUBLISHED = {11: 133, 13: 133, 16: 138, 19: 144}  # depth: million parameters (table 2)
WIDTHS = (64, 128, 256, 512, 512)  # channels of the stages; 2x2 pooling after each
KERNELS = (3, 5, 7)
SIDE = 7  # height and width that the fully connected layers of the published form read
HIDDEN = 4096


class VGG(nn.Module):
    """Five stages of 3x3 convolutions with pooling after each, then three fully connected layers.

        n1 x 3x3 -> (64, H, W)    n2 x 3x3 -> (128, H/2, W/2)    n3 x 3x3 -> (256, H/4, W/4)
        n4 x 3x3 -> (512, H/8, W/8)    n5 x 3x3 -> (512, H/16, W/16)    pool    4096    4096    output num_classes

    Depth 11, 13, 16, 19 has 133, 133, 138, 144 million parameters for ImageNet's 1000 classes.

    The form for small images, of 28 to 64 pixels, has the same stages. Its head is the usual one for CIFAR, global
    average pooling (one pixel is left of 32x32) and one fully connected layer: 9.2 million parameters at depth 11 and
    ten classes. Pooling rounds up, so that 28 pixels become 14, 7, 4, 2 and 1.

    Deviations from the paper:
        - batch_norm=True normalises after each convolution; batch norm was published a year later (arXiv 1502.03167).
        - An image of another size than 224 is averaged to 7x7 before the fully connected layers.
        - Kaiming initialisation (He et al. 2015, arXiv 1502.01852), with which a deep network learns from scratch; in
          2014 the deep ones started from the trained weights of the shallow one. The output layer starts from
          N(0, 0.01) as published; of the imagenet form from N(0, 0.001), since it reads larger features than the paper's.
        - Net C, whose third convolutions are 1x1, is left out.

    Args:
        in_channels: 1 for grey, 3 for colour images.
        num_classes: Number of logits.
        depth: Layers with weights of the published form, 11, 13, 16 or 19.
        input: "imagenet" is the published form, "small" the one for 28 to 64 pixels; for_data also takes "auto", which
            is small where no side is longer than 64 pixels.
        batch_norm: Whether batch normalisation follows each convolution.
        kernel_size: 3; or 5 or 7: (k - 1) / 2 consecutive 3x3 convolutions of a stage become one of k x k, which has
            the same receptive field (the comparison in section 4.1). Convolutions left over stay 3x3, and come first.
        convolutions: Number of 3x3 convolutions of each of one to five stages, instead of those of the depth.
        dropout: Fraction of the outputs of a hidden fully connected layer zeroed in training; in the small form, of the
            inputs of the only one.
        width: Factor on the channels and on the hidden units, above 0.

    Raises:
        ValueError: If the depth is not one of the four, kernel_size not 3, 5 or 7, a size below 1, width not above 0,
            dropout not in [0, 1), input none of its choices, or there are no or more than five stages; from for_data,
            if pooling leaves nothing of the images.
    """

    heads: ClassVar[tuple[str, ...]] = ("classes",)
    reads: ClassVar[tuple[type, ...]] = (Images,)
    only_with: ClassVar = {"depth": (OnlyWith("convolutions", (None,)),)}
    torchvision_keys: ClassVar[tuple[tuple[str, str], ...]] = ((r"^classifier\.", "head."),)

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        depth: int = 16,
        input: str = "imagenet",
        batch_norm: bool = False,
        kernel_size: int = 3,
        convolutions: Sequence[int] | None = None,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, num_classes=num_classes)
        check_choice("input", input, ("imagenet", "small"))
        check_fraction("dropout", dropout)
        if depth not in VARIANTS:
            raise ValueError(f"depth={depth} was not published. There are: {' '.join(map(str, VARIANTS))}")
        check_choice("kernel_size", kernel_size, KERNELS)
        if convolutions is not None and not 1 <= len(convolutions) <= len(WIDTHS):
            raise ValueError(f"convolutions={list(convolutions)} must name the convolutions of one to five stages.")
        counts = VARIANTS[depth] if convolutions is None else convolutions
        check_sizes(**{f"convolutions[{i}]": count for i, count in enumerate(counts)})
        if max(counts) < (kernel_size - 1) // 2:
            raise ValueError(
                f"kernel_size={kernel_size} stands for {(kernel_size - 1) // 2} convolutions of 3x3 in a row, and no "
                "stage has as many."
            )
        published = (input, kernel_size, convolutions, width) == ("imagenet", 3, None, 1)
        self.torchvision_name = f"vgg{depth}{'_bn' if batch_norm else ''}" if published else None

        layers: list[nn.Module] = []
        self.ends: list[int] = []  # index in the features of each stage's last ReLU
        channels = in_channels
        for count, out_channels in zip(counts, WIDTHS, strict=False):
            for kernel in kernels(count, kernel_size):
                layers.append(nn.Conv2d(channels, channels := scaled(out_channels, width), kernel, padding=kernel // 2))
                layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)] if batch_norm else [nn.ReLU(inplace=True)]
            self.ends.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2, ceil_mode=input == "small"))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(SIDE if input == "imagenet" else 1)
        hidden = scaled(HIDDEN, width)
        if input == "imagenet":
            self.head = nn.Sequential(
                nn.Linear(channels * SIDE**2, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
                nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
                nn.Linear(hidden, num_classes),
            )  # fmt: skip
        else:
            self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, num_classes))
        kaiming_init(self)
        small_head_init(self.head[-1], std=0.01 if input == "small" else 0.001)

    @classmethod
    def for_data(cls, inputs: Images, outputs: Classes, *, input: str = "auto", **config: Any) -> VGG:
        form = choose_input(input, inputs)
        model = cls(in_channels=inputs.channels, num_classes=outputs.count, input=form, **config)
        # rounding up, the last pooling may find a single pixel; rounding down, it needs two
        least = 2 ** (len(model.ends) - (form == "small"))
        if min(inputs.height, inputs.width) < least:
            raise ValueError(
                f"VGG with input={form} halves the image {len(model.ends)} times, so it needs at least "
                f"{least}x{least} pixels, not {inputs.height}x{inputs.width}: "
                f"dataset.image_size={32 if form == 'small' else 224}"
            )
        return model

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        return self.head(self.pool(self.features(images)).flatten(1))

    def stages(self) -> dict[str, nn.Module]:
        """The submodules whose outputs are feature maps (B, C, H, W), in order: each stage's last ReLU."""
        return {f"stage {number}": self.features[end] for number, end in enumerate(self.ends, start=1)}


def kernels(count: int, kernel_size: int) -> list[int]:
    """Kernel sizes with the receptive field of `count` 3x3 convolutions, as many of them kernel_size as fit.

    The 3x3 convolutions left over come first, where a stage has fewer input channels: the paper counts parameters
    (section 2.3) for stacks with as many inputs as outputs.
    """
    large, left = divmod(count, (kernel_size - 1) // 2)
    return [3] * left + [kernel_size] * large
