"""GPT: a decoder-only Transformer that predicts the next token, in the forms of GPT-1 and GPT-2.

Radford et al.: Improving Language Understanding by Generative Pre-Training, 2018; Language Models are Unsupervised
Multitask Learners, 2019. The decoder is that of Vaswani et al.: Attention Is All You Need, 2017 (arXiv 1706.03762).
"""

from __future__ import annotations

from typing import Any, ClassVar

from epochal.models.common.causal import CausalTransformer, with_variant
from epochal.models.common.old_names import BLOCKS

_PUBLISHED = {"bias": True, "feedforward": "gelu_tanh", "dropout": 0.1}
# nano is ours, for a CPU; gpt1 has 117 million parameters with vocab_size=40478 and context_length=512, the four sizes of
# GPT-2 124, 355, 774 and 1,558 million with vocab_size=50257 and context_length=1024
VARIANTS: dict[str, dict[str, Any]] = {
    "nano": {"depth": 4, "num_heads": 4, "embed_dim": 128, "bias": False, "feedforward": "gelu", "dropout": 0.0},
    "gpt1": {"depth": 12, "num_heads": 12, "embed_dim": 768, "pre_norm": False, **_PUBLISHED},
    "gpt2": {"depth": 12, "num_heads": 12, "embed_dim": 768, **_PUBLISHED},
    "gpt2-medium": {"depth": 24, "num_heads": 16, "embed_dim": 1024, **_PUBLISHED},
    "gpt2-large": {"depth": 36, "num_heads": 20, "embed_dim": 1280, **_PUBLISHED},
    "gpt2-xl": {"depth": 48, "num_heads": 25, "embed_dim": 1600, **_PUBLISHED},
}


class GPT(CausalTransformer):
    """Token and position embeddings, depth blocks of causal self-attention and an MLP, layer norm, and an output layer.

        tokens (B, T) -> (B, T, C) -> logits of the next token (B, T, vocab_size), or another head

    The output layer is the matrix of the token embedding (tied weights). With pre_norm, the form of GPT-2, the norms
    come before attention and MLP and there is one at the end; without it, the form of GPT-1, they come after the residual
    connections. Weights start from N(0, 0.02), in GPT-2's form those of the layers that write to the residual stream from
    N(0, 0.02 / sqrt(2 depth)).

    Deviations from GPT-2 in the variant nano: no biases, no dropout, and the exact GELU, which is faster on a CPU than
    GPT-2's tanh approximation. The published variants have none.

    Args:
        variant: Row of VARIANTS: "nano", "gpt1", "gpt2", "gpt2-medium", "gpt2-large" or "gpt2-xl".
        options: Arguments of `CausalTransformer`, vocab_size and context_length among them; those that are not None
            stand instead of the variant's. Each part of LLaMA is one of them.

    Raises:
        ValueError: As `CausalTransformer`, or if there is no such variant.
    """

    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = BLOCKS

    def __init__(self, *, variant: str = "nano", **options: Any) -> None:
        super().__init__(**with_variant(VARIANTS, variant, options))
