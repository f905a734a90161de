"""Multilayer perceptron: fully connected layers on the flattened image, or on the numbers of a point.

Rumelhart, Hinton, Williams: Learning representations by back-propagating errors, Nature 323, 1986.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from epochal.core.checks import check_fraction, check_sizes
from epochal.core.specs import Classes, Images, Series

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class MLP(nn.Module):
    """Fully connected layers with a nonlinear function between them, on the flattened image or series.

    Deviation from the paper: ReLU instead of the logistic function, unless activation=sigmoid; dropout (Srivastava et al.
    2014) as an option.

    Args:
        in_features: Length of the flattened input: channels * height * width of an image,
            length * channels of series, which must all have that length.
        num_classes: Number of logits.
        hidden: Width of each hidden layer; an empty list gives logistic regression.
        dropout: Fraction of each hidden layer's outputs zeroed in training.
        activation: relu, tanh or sigmoid.

    Raises:
        ValueError: If a size is below 1, dropout is not in [0, 1), or there is no such activation.
    """

    heads: ClassVar[tuple[str, ...]] = ("classes",)
    reads: ClassVar[tuple[type, ...]] = (Images, Series)

    def __init__(
        self,
        *,
        in_features: int,
        num_classes: int,
        hidden: Sequence[int] = (512, 256),
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_sizes(in_features=in_features, num_classes=num_classes)
        check_sizes(**{f"hidden[{i}]": width for i, width in enumerate(hidden)})
        check_fraction("dropout", dropout)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation} must be one of {', '.join(ACTIVATIONS)}.")
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [
                nn.Linear(in_features, width),
                nn.ReLU(inplace=True) if activation == "relu" else ACTIVATIONS[activation](),
            ]
            if dropout:
                layers.append(nn.Dropout(dropout))
            in_features = width
        self.head_parameters = (
            f"layers.{len(layers)}.",
        )  # prefix of the output layer's parameters, for transfer to other classes
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, num_classes))

    @classmethod
    def for_data(cls, inputs: Images | Series, outputs: Classes, **config: Any) -> MLP:
        size = inputs.length if isinstance(inputs, Series) else inputs.height * inputs.width
        return cls(in_features=inputs.channels * size, num_classes=outputs.count, **config)

    def forward(self, inputs: Tensor) -> Tensor:  # (B, C, H, W) or (B, T, C) -> (B, num_classes)
        return self.layers(inputs)
