"""LLaMA: a decoder-only Transformer with RMS norm, rotary positions, SwiGLU, grouped queries, and no biases.

Touvron et al.: LLaMA: Open and Efficient Foundation Language Models, 2023 (arXiv 2302.13971); Llama 2, 2023 (arXiv
2307.09288); Grattafiori et al.: The Llama 3 Herd of Models, 2024 (arXiv 2407.21783).
"""

from __future__ import annotations

from typing import Any

from epochal.models.common.causal import CausalTransformer, with_variant

PARTS: dict[str, Any] = {"norm": "rms", "positions": "rotary", "feedforward": "swiglu", "bias": False, "tie": False}
_LLAMA3 = {"rope_base": 500_000.0}
# nano is ours, for a CPU. 7b and 13b are those of LLaMA and Llama 2: 6,738 and 13,016 million parameters with
# vocab_size=32000; 2-70b has 68,977 million, 3-8b with vocab_size=128256 8,030 million
VARIANTS: dict[str, dict[str, Any]] = {
    "nano": {"depth": 4, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 128},
    "7b": {"depth": 32, "num_heads": 32, "embed_dim": 4096, "feedforward_dim": 11008},
    "13b": {"depth": 40, "num_heads": 40, "embed_dim": 5120, "feedforward_dim": 13824},
    "2-70b": {"depth": 80, "num_heads": 64, "num_kv_heads": 8, "embed_dim": 8192, "feedforward_dim": 28672},
    "3-8b": {"depth": 32, "num_heads": 32, "num_kv_heads": 8, "embed_dim": 4096, "feedforward_dim": 14336, **_LLAMA3},
}


class LLaMA(CausalTransformer):
    """Token embedding, depth blocks of causal self-attention with rotary positions and SwiGLU, RMS norm, and a head.

        tokens (B, T) -> (B, T, C) -> logits of the next token (B, T, vocab_size), or another head

    What LLaMA changed about GPT-2 is one argument each, and back: norm="layer", positions="learned", feedforward="gelu",
    num_kv_heads=num_heads, bias=True, tie=True. feedforward has as many parameters either way, unless feedforward_dim is
    given.

    Deviations from the papers: weights start as in GPT-2, of which the papers say nothing; rotary pairs are half a head
    apart, as in the checkpoints on the Hugging Face Hub; of Llama 3.1 and later not the scaling of the wavelengths.

    Args:
        variant: Row of VARIANTS: "nano", "7b", "13b", "2-70b" or "3-8b".
        options: Arguments of `CausalTransformer`, vocab_size and context_length among them; those that are not None
            stand instead of the variant's.

    Raises:
        ValueError: As `CausalTransformer`, or if there is no such variant.
    """

    def __init__(self, *, variant: str = "nano", **options: Any) -> None:
        variants = {name: {**PARTS, **sizes} for name, sizes in VARIANTS.items()}
        super().__init__(**with_variant(variants, variant, options))
