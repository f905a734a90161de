"""Torchvision's weights in our networks: the same numbers under our names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def translate(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Torchvision's parameters and buffers (or their gradients) by the names that our network has for them.

    Args:
        state: By torchvision's names.
        model: Has `torchvision_keys`, pairs of a regular expression and its replacement, which are applied to each
            name in order; a network whose shapes differ too has `reshape_torchvision(state) -> state`, which gets
            the renamed tensors.
    """
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in model.torchvision_keys:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return model.reshape_torchvision(renamed) if hasattr(model, "reshape_torchvision") else renamed
