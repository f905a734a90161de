"""The lecture's convolutional network: convolutions and pooling, then fully connected layers.

LeCun et al.: Backpropagation Applied to Handwritten Zip Code Recognition, Neural Computation 1(4), 1989.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from epochal.core.checks import OnlyWith, check_choice, check_fraction, check_sizes, check_whole
from epochal.core.specs import Classes, Images

POOLS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d, "none": None}


class CNN(nn.Module):
    """Convolution, ReLU and pooling, once for each entry of filters; then fully connected layers.

    An input (C, H, W) and filters (FN, C, FH, FW) with stride S and padding P give (FN, OH, OW):

        OH = (H + 2P - FH) // S + 1        OW = (W + 2P - FW) // S + 1

    Pooling takes the maximum or the mean of each pool_size x pool_size patch: (FN, OH // pool_size, OW // pool_size).

    Deviations from the paper: ReLU instead of tanh, pooling instead of stride 2, every filter reads every channel.

    Args:
        image_shape: (C, H, W) of an input.
        num_classes: Number of logits.
        filters: Number of filters FN of each convolution.
        kernel_size: FH and FW.
        stride: S, in pixels.
        padding: P, zeros around the image, in pixels.
        pool: "max", "average" or "none".
        pool_size: Height and width of a pooled patch.
        hidden: Width of the fully connected layer after the convolutions.
        dropout: Fraction of that layer's outputs zeroed in training.

    Raises:
        ValueError: If the image shrinks below one pixel (the message names the layer), a size is below 1, padding
            negative, dropout not in [0, 1), or pool none of its choices.
    """

    heads: ClassVar[tuple[str, ...]] = ("classes",)
    reads: ClassVar[tuple[type, ...]] = (Images,)
    only_with: ClassVar = {"pool_size": (OnlyWith("pool", but=("none",)),)}

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        filters: Sequence[int] = (32, 64),
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        pool: str = "max",
        pool_size: int = 2,
        hidden: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        check_sizes(channels=channels, height=height, width=width, num_classes=num_classes, hidden=hidden)
        check_sizes(kernel_size=kernel_size, stride=stride, pool_size=pool_size)
        check_sizes(**{f"filters[{i}]": count for i, count in enumerate(filters)})
        check_choice("pool", pool, tuple(POOLS))
        check_fraction("dropout", dropout)
        check_whole("padding", padding, 0)

        layers: list[nn.Module] = []
        for number, count in enumerate(filters, start=1):
            before = f"an image of {height}x{width} pixels"
            height = (height + 2 * padding - kernel_size) // stride + 1
            width = (width + 2 * padding - kernel_size) // stride + 1
            if min(height, width) < 1:
                raise ValueError(
                    f"Convolution {number} of {len(filters)} leaves nothing of {before} (kernel_size={kernel_size}, "
                    f"stride={stride}, padding={padding}): take fewer filters, a smaller kernel or more padding."
                )
            layers += [nn.Conv2d(channels, count, kernel_size, stride, padding), nn.ReLU(inplace=True)]
            channels = count
            if (pooling := POOLS[pool]) is None:
                continue
            before = f"an image of {height}x{width} pixels"
            height, width = height // pool_size, width // pool_size
            if min(height, width) < 1:
                raise ValueError(
                    f"Pooling {number} of {len(filters)} leaves nothing of {before} (pool_size={pool_size}): "
                    "take fewer filters, more padding or pool=none."
                )
            layers.append(pooling(pool_size))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * height * width, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    @classmethod
    def for_data(cls, inputs: Images, outputs: Classes, **config: Any) -> CNN:
        image_shape = (inputs.channels, inputs.height, inputs.width)
        return cls(image_shape=image_shape, num_classes=outputs.count, **config)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        return self.head(self.features(images))

    def stages(self) -> dict[str, nn.Module]:
        """The submodules whose outputs are feature maps (B, C, H, W), in order: the ReLU of each convolution."""
        rectified = [module for module in self.features if isinstance(module, nn.ReLU)]
        return {f"convolution {number}": module for number, module in enumerate(rectified, start=1)}
