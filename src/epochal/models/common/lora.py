"""Low-rank adaptation: a network is fine-tuned by small additions to some of its matrices, which stay as they were.

Hu et al.: LoRA: Low-Rank Adaptation of Large Language Models, 2021 (arXiv 2106.09685).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils import parametrize

from epochal.core.checks import check_positive, check_sizes

ADDED = ".parametrizations.weight."  # in the names of a weight and of what is added to it


class LowRank(nn.Module):
    """weight + alpha / rank * up @ down; up starts at zero, so that nothing changes at first.

    Args:
        weight: (out, in), stays as it is.
        rank: Rows of down.
        alpha: The larger, the more the addition counts.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.scale: Tensor
        self.register_buffer(
            "scale", weight.new_tensor(alpha / rank)
        )  # kept with the weights, so that they can be merged
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.up @ self.down)


def add_lora(
    model: nn.Module, *, rank: int, alpha: float, targets: Sequence[str], trained: tuple[str, ...]
) -> nn.Module:
    """Adds trainable matrices to the linear layers with these names, and freezes everything else but the head.

    Args:
        model: Is changed.
        rank, alpha: See `LowRank`.
        targets: Last parts of the names of linear layers, such as "qkv".
        trained: Prefixes of the names of parameters that are trained too.

    Raises:
        ValueError: If rank or alpha is out of range, or the network has not all of these layers.
    """
    check_sizes(**{"finetune.lora.rank": rank})
    check_positive("finetune.lora.alpha", alpha)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = {name: module for name, module in linear.items() if name.rpartition(".")[2] in targets}
    names = {name.rpartition(".")[2] for name in linear} - {""}
    if missing := [name for name in targets if name not in names]:
        there = " ".join(sorted(names)) or "none"
        raise ValueError(
            f"finetune.lora.targets has {' '.join(missing)}, which no linear layer of this network is called. It has: {there}"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(trained)
    for module in chosen.values():
        parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank, alpha))
    return model


def merged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which what was added is part of the weights, under their own names; one without additions as it is."""
    found = {}
    for name, tensor in state.items():
        owner, added, part = name.partition(ADDED)
        if not added:
            found[name] = tensor
        elif part == "original":
            up, down, scale = (state[f"{owner}{ADDED}0.{of}"] for of in ("up", "down", "scale"))
            found[f"{owner}.weight"] = tensor + scale * (up @ down)
    return found
