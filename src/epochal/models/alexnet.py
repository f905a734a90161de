"""AlexNet, the convolutional network that won the ImageNet challenge of 2012.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NeurIPS 2012.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from epochal.core.checks import check_choice, check_fraction, check_sizes
from epochal.core.specs import Classes, Images
from epochal.models.common.layers import choose_input, kaiming_init, scaled, small_head_init

FILTERS = (64, 192, 384, 256, 256)
KERNELS = {"imagenet": (11, 5, 3, 3, 3), "small": (5, 5, 3, 3, 3)}
STRIDE = {"imagenet": 4, "small": 2}  # of the first convolution; 1 in the others
POOLED = (1, 2, 5)  # numbers of the convolutions with pooling after them; the first two may be normalised
SIDE = {"imagenet": 6, "small": 2}  # height and width that the fully connected layers read
HIDDEN = {"imagenet": 4096, "small": 1024}
LEAST = {"imagenet": 63, "small": 16}  # pixels a side, so that stride and pooling leave one


class AlexNet(nn.Module):
    """Five convolutions and three fully connected layers: 61.1 million parameters for ImageNet's 1000 classes.

        11x11 stride 4 -> (64, 55, 55)    pool    5x5 -> (192, 27, 27)    pool    3x3 -> (384, 13, 13)
        3x3 -> (256, 13, 13)    3x3 -> (256, 13, 13)    pool -> (256, 6, 6)    4096    4096    output num_classes

    The form for small images, of 28 to 64 pixels, has half the stride: the first convolution is 5x5 with stride 2.
    Pooling pads by one pixel, 2x2 pixels are left at the end, and the hidden layers have 1024 units: 32x32 pixels
    become 16, 8, 4 and 2, with 4.6 million parameters for ten classes.

    Deviations from the paper:
        - One column as in Krizhevsky 2014 (arXiv 1404.5997) and torchvision, not two halves on a GPU each: 64, 192,
          384, 256, 256 filters, each of which reads all channels, not 96, 256, 384, 384, 256.
        - Local response normalisation only with norm="local_response"; the authors of VGG found no benefit.
        - An image of another size than 224 is averaged to 6x6 before the fully connected layers.
        - Kaiming initialisation (He et al. 2015, arXiv 1502.01852) and zero biases, not normal(0, 0.01) and one; the
          output layer starts from N(0, 0.001), since it reads larger features than with the paper's.

    Args:
        in_channels: 1 for grey, 3 for colour images.
        num_classes: Number of logits.
        input: "imagenet" is the published form, "small" the one for 28 to 64 pixels; for_data also takes "auto", which
            is small where no side is longer than 64 pixels.
        norm: "none", or "local_response" after the first two convolutions (section 3.3).
        pool: "overlapping" is 3x3 max pooling with stride 2 (section 3.4), "plain" 2x2.
        dropout: Fraction of the inputs of the hidden fully connected layers zeroed in training.
        width: Factor on the filters and on the hidden units, above 0.

    Raises:
        ValueError: If a size is below 1, width not above 0, dropout not in [0, 1), or input, norm or pool none of its
            choices; from for_data, if stride and pooling leave nothing of the images.
    """

    heads: ClassVar[tuple[str, ...]] = ("classes",)
    reads: ClassVar[tuple[type, ...]] = (Images,)
    torchvision_keys: ClassVar[tuple[tuple[str, str], ...]] = ((r"^classifier\.", "head."),)

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        input: str = "imagenet",
        norm: str = "none",
        pool: str = "overlapping",
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, num_classes=num_classes)
        check_choice("input", input, tuple(KERNELS))
        check_choice("norm", norm, ("none", "local_response"))
        check_choice("pool", pool, ("overlapping", "plain"))
        check_fraction("dropout", dropout)
        published = (input, norm, pool, width) == ("imagenet", "none", "overlapping", 1)
        self.torchvision_name = "alexnet" if published else None

        layers: list[nn.Module] = []
        channels = in_channels
        for number, (filters, kernel) in enumerate(zip(FILTERS, KERNELS[input], strict=True), start=1):
            count, stride = scaled(filters, width), STRIDE[input] if number == 1 else 1
            padding = 2 if number == 1 else kernel // 2
            layers += [nn.Conv2d(channels, count, kernel, stride, padding), nn.ReLU(inplace=True)]
            if norm == "local_response" and number in POOLED[:2]:
                layers.append(nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2))  # torch divides alpha by 5
            if number in POOLED:
                layers.append(nn.MaxPool2d(3, 2, int(input == "small")) if pool == "overlapping" else nn.MaxPool2d(2))
            channels = count
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(SIDE[input])
        hidden = scaled(HIDDEN[input], width)
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(channels * SIDE[input] ** 2, hidden), nn.ReLU(inplace=True),
            nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip
        kaiming_init(self)
        small_head_init(self.head[-1], std=0.001)

    @classmethod
    def for_data(cls, inputs: Images, outputs: Classes, *, input: str = "auto", **config: Any) -> AlexNet:
        form = choose_input(input, inputs)
        if min(inputs.height, inputs.width) < LEAST[form]:
            raise ValueError(
                f"AlexNet with input={form} needs at least {LEAST[form]}x{LEAST[form]} pixels for its stride and its "
                f"pooling, not {inputs.height}x{inputs.width}: dataset.image_size={32 if form == 'small' else 224}"
            )
        return cls(in_channels=inputs.channels, num_classes=outputs.count, input=form, **config)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        return self.head(self.pool(self.features(images)).flatten(1))

    def stages(self) -> dict[str, nn.Module]:
        """The submodules whose outputs are feature maps (B, C, H, W), in order: the ReLU of each convolution."""
        outputs = [module for module in self.features if isinstance(module, nn.ReLU)]
        return {f"convolution {number}": module for number, module in enumerate(outputs, start=1)}
