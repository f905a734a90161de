"""The multilayer perceptron: what an image is to a network that knows nothing of images.

Rumelhart, Hinton, Williams: Learning representations by back-propagating errors, Nature 323, 1986.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from epochal.core.checks import check_fraction, check_sizes
from epochal.core.specs import Classes, Images


class MLP(nn.Module):
    """Fully connected layers with ReLU between them; an image is flattened, so its shape is lost.

    Deviation from the paper: ReLU instead of the logistic function; dropout (Srivastava et al. 2014) if asked for.

    Args:
        in_features: Numbers in one example: channels x height x width of an image.
        num_classes: Length of the output.
        hidden: Width of each hidden layer; none at all gives logistic regression.
        dropout: Share of each hidden layer's outputs that is zeroed in training.

    Raises:
        ValueError: If a size is below 1 or dropout is not in [0, 1).
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
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
        self.heads = (f"layers.{len(layers)}.",)  # what other classes need anew
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, num_classes))

    @classmethod
    def for_data(cls, inputs: Images, outputs: Classes, **config: Any) -> MLP:
        pixels = inputs.channels * inputs.height * inputs.width
        return cls(in_features=pixels, num_classes=outputs.count, **config)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        return self.layers(images)
