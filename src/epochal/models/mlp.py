"""Multilayer perceptron: fully connected layers on the flattened image.

Rumelhart, Hinton, Williams: Learning representations by back-propagating errors, Nature 323, 1986.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from epochal.core.checks import check_fraction, check_sizes
from epochal.core.specs import Classes, Images


class MLP(nn.Module):
    """Fully connected layers with ReLU between them, on the flattened image.

    Deviation from the paper: ReLU instead of the logistic function; dropout (Srivastava et al. 2014) as an option.

    Args:
        in_features: Length of the flattened input: channels * height * width of an image.
        num_classes: Number of logits.
        hidden: Width of each hidden layer; an empty list gives logistic regression.
        dropout: Fraction of each hidden layer's outputs zeroed in training.

    Raises:
        ValueError: If a size is below 1 or dropout is not in [0, 1).
    """

    heads: ClassVar[tuple[str, ...]] = ("classes",)
    reads: ClassVar[tuple[type, ...]] = (Images,)

    def __init__(
        self, *, in_features: int, num_classes: int, hidden: Sequence[int] = (512, 256), dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_sizes(in_features=in_features, num_classes=num_classes)
        check_sizes(**{f"hidden[{i}]": width for i, width in enumerate(hidden)})
        check_fraction("dropout", dropout)
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.Linear(in_features, width), nn.ReLU(inplace=True)]
            if dropout:
                layers.append(nn.Dropout(dropout))
            in_features = width
        self.head_parameters = (
            f"layers.{len(layers)}.",
        )  # prefix of the output layer's parameters, for transfer to other classes
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, num_classes))

    @classmethod
    def for_data(cls, inputs: Images, outputs: Classes, **config: Any) -> MLP:
        pixels = inputs.channels * inputs.height * inputs.width
        return cls(in_features=pixels, num_classes=outputs.count, **config)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        return self.layers(images)
