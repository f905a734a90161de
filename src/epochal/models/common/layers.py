"""What three or more models share: initialisation, evaluation mode, channel counts, an encoder of video frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import check_choice, check_positive, check_sizes
from epochal.core.specs import Images

SMALL_SIDE = 64  # pixels; larger images get the form that was published for ImageNet

Module = TypeVar("Module", bound=nn.Module)


def scaled(channels: int, width: float) -> int:
    """channels * width, rounded, at least 1.

    Raises:
        ValueError: If width is not above 0, or not finite.
    """
    check_positive("width", width)
    return max(1, round(channels * width))


def kaiming_init(network: nn.Module) -> None:
    """Kaiming initialisation: preserves the variance of activations through ReLUs; zero biases.

    He et al. 2015 (arXiv 1502.01852); fan-in, normal, of all convolutions and linear layers.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def small_head_init(*heads: nn.Module, std: float) -> None:
    """Linear output layers from N(0, std), zero biases, so that a network begins undecided: its first loss is ln(classes).

    No ReLU follows an output layer, and pooling, dropout and shortcuts enlarge the features that it reads: as
    `kaiming_init` leaves it, the first loss of ten classes is 4 to 12 instead of 2.3. Published are 0.01 (Krizhevsky et
    al. 2012, section 5; Simonyan & Zisserman 2014, section 3.1; for residual networks Goyal et al. 2017, arXiv
    1706.02677, section 5.1) and 0.02 (BERT).
    """
    for head in heads:
        assert isinstance(head, nn.Linear)
        nn.init.normal_(head.weight, std=std)
        nn.init.zeros_(head.bias)


def xavier_init(module: Module) -> Module:
    """Xavier initialisation of the linear layers in a module, which it returns: uniform weights, zero biases.

    Of a `qkv` layer the query, key and value matrices are initialised each for itself (Glorot & Bengio 2010).
    """
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            for matrix in parameter.chunk(3) if name == "qkv.weight" else (parameter,):
                nn.init.xavier_uniform_(matrix)
    return module


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout, batch norm's running statistics), and afterwards the mode from before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def choose_input(input: str, images: Images) -> str:
    """The form of a network for images of this size: "auto" is "small" up to 64 pixels a side, else "imagenet"."""
    check_choice("input", input, ("auto", "imagenet", "small"))
    if input != "auto":
        return input
    return "small" if max(images.height, images.width) <= SMALL_SIDE else "imagenet"


class FrameEncoder(nn.Module):
    """Each video frame as one vector: two 3x3 convolutions, each with ReLU and 2x2 max pooling, then a linear layer.

    Args:
        in_channels: 1 for grey, 3 for colour videos.
        height, width: Of a frame in pixels, at least 4 each.
        embed_dim: Length of a frame's vector.

    Raises:
        ValueError: If a size is below 1, or a side below 4 pixels, of which two poolings would leave nothing.
    """

    def __init__(self, in_channels: int, height: int, width: int, embed_dim: int) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, height=height, width=width, embed_dim=embed_dim)
        if min(height, width) < 4:
            raise ValueError(f"Videos of {height}x{width} pixels are too small; they need at least 4x4.")
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        kaiming_init(self)
        self.linear = nn.Linear(32 * (height // 4) * (width // 4), embed_dim)  # no ReLU follows

    def forward(self, frames: Tensor) -> Tensor:  # (B, T, C, H, W) -> (B, T, embed_dim)
        x = F.relu(F.max_pool2d(self.conv1(frames.flatten(0, 1)), 2))  # (B * T, 16, H/2, W/2)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B * T, 32, H/4, W/4)
        return self.linear(x.flatten(1)).view(frames.shape[0], frames.shape[1], -1)
