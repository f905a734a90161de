"""GPT: a stack of causal self-attention that predicts the next token, in the form of GPT-2.

Radford et al.: Improving Language Understanding by Generative Pre-Training, 2018; Language Models are Unsupervised
Multitask Learners, 2019. The decoder is that of Vaswani et al.: Attention Is All You Need, 2017 (arXiv 1706.03762).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.specs import Tokens
from epochal.models.common.kv_cache import KVCache
from epochal.models.common.layers import check_dropout, check_sizes
from epochal.models.common.sampling import check_generation, next_token

# Published GPT-2 sizes: 124, 355, 774 and 1,558 million parameters with vocab_size=50257, context_length=1024, bias=True
PUBLISHED = {
    "gpt2": {"depth": 12, "num_heads": 12, "embed_dim": 768},
    "gpt2-medium": {"depth": 24, "num_heads": 16, "embed_dim": 1024},
    "gpt2-large": {"depth": 36, "num_heads": 20, "embed_dim": 1280},
    "gpt2-xl": {"depth": 48, "num_heads": 25, "embed_dim": 1600},
}


class Attention(nn.Module):
    """Every step looks at itself and all steps before it, with num_heads independent looks."""

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_key_value = nn.Linear(embed_dim, 3 * embed_dim, bias=bias)
        self.out = nn.Linear(embed_dim, embed_dim, bias=bias)

    def forward(self, x: Tensor, memory: KVCache | None = None) -> Tensor:  # (B, T, C) -> (B, T, C)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, C / heads)
            for part in self.query_key_value(x).chunk(3, dim=-1)
        )
        if memory is not None:
            key, value = memory.extend(key, value)
        looks = F.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=query.shape[2] == key.shape[2],  # otherwise one new step, which may see all of the memory
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(looks.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention between the steps, then a perceptron in each; both add to the residual stream."""

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, bias=bias)
        self.attention = Attention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout, bias=bias)
        self.norm2 = nn.LayerNorm(embed_dim, bias=bias)
        self.widen = nn.Linear(embed_dim, 4 * embed_dim, bias=bias)
        self.narrow = nn.Linear(4 * embed_dim, embed_dim, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: KVCache | None = None) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.dropout(self.attention(self.norm1(x), memory))
        return x + self.dropout(self.narrow(F.gelu(self.widen(self.norm2(x)))))


class GPT(nn.Module):
    """Decoder-only Transformer: token and position embedding, depth blocks, norm, and the token embedding as output.

    Weights start from N(0, 0.02), those that write into the residual stream from N(0, 0.02 / sqrt(2 depth)).

    Deviations from GPT-2: no biases by default (bias=True has them); GELU itself, which is faster on a CPU than the
    approximation by tanh that GPT-2 took for it.

    Args:
        vocab_size: Number of tokens.
        context_length: Most tokens it can read at once.
        depth: Number of blocks.
        num_heads: Attention heads of a block; must divide embed_dim.
        embed_dim: Numbers in the vector of a step.
        bias: Give linear layers and norms a bias.
        dropout: Share zeroed in training, of embeddings, attention and the output of each half block.

    Raises:
        ValueError: If a size is below 1, num_heads does not divide embed_dim or dropout is not in [0, 1).
    """

    tasks: ClassVar[tuple[str, ...]] = ("language_modeling",)
    reads: ClassVar[tuple[type, ...]] = (Tokens,)

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
        check_dropout(dropout)
        if embed_dim % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide embed_dim={embed_dim}.")
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
                writes = name.endswith(("attention.out.weight", "narrow.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth) if writes else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @classmethod
    def for_data(cls, inputs: Tokens, outputs: Tokens, **config: Any) -> GPT:
        return cls(vocab_size=inputs.vocab_size, context_length=inputs.length, **config)

    def forward(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B, T, vocab_size)
        return F.linear(self._read(tokens), self.embed.weight)

    def _read(self, tokens: Tensor, memories: list[KVCache] | None = None) -> Tensor:  # (B, T) -> (B, T, C)
        start = memories[0].used if memories else 0
        stop = start + tokens.shape[1]
        if stop > self.context_length:
            raise ValueError(
                f"{stop:,} tokens are more than context_length={self.context_length:,}; give it at most so many at once."
            )
        x = self.dropout(self.embed(tokens) + self.position.weight[start:stop])
        for i, block in enumerate(self.blocks):
            x = block(x, memories[i] if memories else None)
        return self.norm(x)

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        *,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # (B, T) -> (B, T + length)
        """Continue each prompt by length tokens.

        While all fits into the context, each token is read once and its keys and values are kept. After that each new
        token sees the last context_length tokens, which are read anew: they have moved to other positions.

        Args:
            prompt: Token ids, at least one a row.
            length: Tokens to add.
            temperature: Below 1 bolder to the likely, above 1 wilder, 0 always the likeliest.
            top_k: Draw only from the k likeliest tokens.
            top_p: Draw only from the fewest likeliest tokens that together have this probability.
            generator: Source of chance, on any device.

        Raises:
            ValueError: If the prompt is empty or an argument is out of range.
        """
        check_generation(prompt, length=length, temperature=temperature, top_k=top_k, top_p=top_p)
        was_training = self.training
        self.eval()
        start, stop = prompt.shape[1], prompt.shape[1] + length
        text = torch.cat((prompt, prompt.new_empty(prompt.shape[0], length)), dim=1)
        memories = [KVCache(min(stop, self.context_length)) for _ in self.blocks]
        for end in range(start, stop):
            if end <= self.context_length:
                x = self._read(text[:, memories[0].used : end], memories)
            else:
                x = self._read(text[:, end - self.context_length : end])
            logits = F.linear(x[:, -1], self.embed.weight)
            text[:, end : end + 1] = next_token(
                logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
            )
        self.train(was_training)
        return text
