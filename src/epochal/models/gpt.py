"""GPT: a decoder-only Transformer that predicts the next token, in the form of GPT-2.

Radford et al.: Improving Language Understanding by Generative Pre-Training, 2018; Language Models are Unsupervised
Multitask Learners, 2019. The decoder is that of Vaswani et al.: Attention Is All You Need, 2017 (arXiv 1706.03762).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import check_fraction, check_heads, check_sizes
from epochal.core.specs import Tokens
from epochal.models.common.attention import FeedForward, MultiHeadAttention
from epochal.models.common.kv_cache import KVCache
from epochal.models.common.old_names import BLOCKS
from epochal.models.common.sampling import AutoregressiveModel

# GPT-2 as published: 124, 355, 774, 1,558 million parameters with vocab_size=50257, context_length=1024, bias=True
PUBLISHED = {
    "gpt2": {"depth": 12, "num_heads": 12, "embed_dim": 768},
    "gpt2-medium": {"depth": 24, "num_heads": 16, "embed_dim": 1024},
    "gpt2-large": {"depth": 36, "num_heads": 20, "embed_dim": 1280},
    "gpt2-xl": {"depth": 48, "num_heads": 25, "embed_dim": 1600},
}


class Block(nn.Module):
    """Causal self-attention and an MLP, each with pre-normalisation and a residual connection."""

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, bias=bias)
        self.attention = MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads, bias=bias, dropout=dropout)
        self.norm2 = nn.LayerNorm(embed_dim, bias=bias)
        self.mlp = FeedForward(embed_dim=embed_dim, feedforward_dim=4 * embed_dim, activation=F.gelu, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:  # (B, T, C) -> (B, T, C)
        causal = cache is None or cache.used == 0  # otherwise x is one new step, which attends to the whole cache
        x = x + self.dropout(self.attention(self.norm1(x), causal=causal, cache=cache))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(AutoregressiveModel):
    """Decoder-only Transformer: token and position embeddings, depth blocks, layer norm, and an output layer.

    The output layer is the matrix of the token embedding (tied weights). Weights start from N(0, 0.02), those of the
    layers that write to the residual stream from N(0, 0.02 / sqrt(2 depth)).

    Deviations from GPT-2: no biases by default (bias=True has them); the exact GELU, which is faster on a CPU than
    GPT-2's tanh approximation.

    Args:
        vocab_size: Number of tokens.
        context_length: Maximum number of tokens that it reads at once.
        depth: Number of blocks.
        num_heads: Attention heads of a block; must divide embed_dim.
        embed_dim: Width C of the embeddings.
        bias: Give linear layers and norms a bias.
        dropout: Fraction zeroed in training of embeddings, attention weights and the outputs of attention and MLP.

    Raises:
        ValueError: If a size is below 1, num_heads does not divide embed_dim or dropout is not in [0, 1).
    """

    heads: ClassVar[tuple[str, ...]] = ("next_token",)
    reads: ClassVar[tuple[type, ...]] = (Tokens,)
    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = BLOCKS

    def __init__(
        self,
        *,
        vocab_size: int,
        context_length: int,
        depth: int = 4,
        num_heads: int = 4,
        embed_dim: int = 128,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, context_length=context_length)
        check_sizes(depth=depth, num_heads=num_heads, embed_dim=embed_dim)
        check_fraction("dropout", dropout)
        check_heads(num_heads, embed_dim)
        self.context_length = context_length
        self.embed = nn.Embedding(vocab_size, embed_dim)
        self.position = nn.Embedding(context_length, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout, bias=bias) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, bias=bias)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                to_residual = name.endswith(("attention.proj.weight", "mlp.fc2.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth) if to_residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @classmethod
    def for_data(cls, inputs: Tokens, outputs: Tokens, **config: Any) -> GPT:
        return cls(vocab_size=inputs.vocab_size, context_length=inputs.length, **config)

    def forward(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B, T, vocab_size)
        return F.linear(self._read(tokens), self.embed.weight)

    def _read(self, tokens: Tensor, caches: list[KVCache] | None = None) -> Tensor:  # (B, T) -> (B, T, C)
        start = caches[0].used if caches else 0
        stop = start + tokens.shape[1]
        if stop > self.context_length:
            raise ValueError(
                f"{stop:,} tokens are more than context_length={self.context_length:,}, the most that it reads at once."
            )
        x = self.dropout(self.embed(tokens) + self.position.weight[start:stop])
        for i, block in enumerate(self.blocks):
            x = block(x, caches[i] if caches else None)
        return self.norm(x)

    def initial_state(self, steps: int) -> list[KVCache]:
        """An empty cache for each block, for a text of `steps` tokens or as many as the context holds."""
        return [KVCache(min(steps, self.context_length)) for _ in self.blocks]

    def next_logits(self, text: Tensor, state: list[KVCache]) -> tuple[Tensor, list[KVCache]]:
        """The whole text so far (B, T) -> logits (B, vocab_size), and the caches.

        While the text fits into the context, each token is read once, and its keys and values are cached. After that
        the last context_length tokens are read anew for each new token, since all their positions have changed.
        """
        if text.shape[1] <= self.context_length:
            x = self._read(text[:, state[0].used :], state)
        else:
            x = self._read(text[:, -self.context_length :])
        return F.linear(x[:, -1], self.embed.weight), state
