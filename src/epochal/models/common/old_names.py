"""Parameters that had other names in version 0.1, so that its checkpoints still load."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

ATTENTION = (
    (r"\bquery_key_value\.", "qkv."),
    (r"attention\.out\.", "attention.proj."),
)
TRANSFORMER_LAYERS = (  # of common.attention
    *ATTENTION,
    (r"_bypass\.", "_residual."),
    (r"\bwiden\.", "fc1."),
    (r"\bnarrow\.", "fc2."),
)
BLOCKS = (*ATTENTION, (r"\bwiden\.", "mlp.fc1."), (r"\bnarrow\.", "mlp.fc2."))  # of GPT and ViT


def current_names(state: Mapping[str, Tensor], model: nn.Module, *, prefix: str = "") -> dict[str, Tensor]:
    """A state dict (or any mapping by parameter name) with old names replaced by those that the model has today.

    Args:
        state: By old names, new names, or some of each: new ones stay as they are.
        model: Its class may have `renamed_keys`, (regular expression of an old name, replacement) pairs, which are
            applied to each name in order.
        prefix: What the model's names begin with in the state, such as "model." in the state dict of a task; names
            without it stay as they are.
    """
    renamed = {}
    for name, tensor in state.items():
        if name.startswith(prefix):
            own = name.removeprefix(prefix)
            for pattern, replacement in getattr(model, "renamed_keys", ()):
                own = re.sub(pattern, replacement, own)
            name = prefix + own
        renamed[name] = tensor
    return renamed
