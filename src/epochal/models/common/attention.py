"""Layers of Transformers: multi-head attention, encoder and decoder layers and blocks, sinusoidal positional encodings.

Vaswani et al.: Attention Is All You Need, 2017 (arXiv 1706.03762). Pre-normalisation: Wang et al.: Learning Deep
Transformer Models for Machine Translation, 2019 (arXiv 1906.01787); Xiong et al. 2020 (arXiv 2002.04745). Grouped queries:
Ainslie et al.: GQA, 2023 (arXiv 2305.13245), and with one group Shazeer 2019 (arXiv 1911.02150). RMS norm: Zhang, Sennrich
2019 (arXiv 1910.07467). GELU: Hendrycks, Gimpel 2016 (arXiv 1606.08415). SwiGLU: Shazeer 2020 (arXiv 2002.05202).

As published, encoder and decoder layers apply dropout to the output of each sublayer, never to the attention weights or
inside the feed-forward network. Sequences are padded on the right, so with causal attention no real step sees padding:
it needs no other mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import check_heads
from epochal.models.common.kv_cache import KVCache
from epochal.models.common.layers import xavier_init
from epochal.models.common.rope import Rotation, rotate

State = dict[str, Any]  # what a decoder layer keeps from step to step: tensors, batch first, and a KVCache
# Functions between the two matrices of a feed-forward network, and whether a third matrix gates it; gelu_tanh is the
# approximation that GPT and GPT-2 were trained with
FEEDFORWARDS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "gelu": (F.gelu, False),
    "gelu_tanh": (partial(F.gelu, approximate="tanh"), False),
    "swiglu": (F.silu, True),
}
NORMS = ("layer", "rms")


def make_norm(kind: str, embed_dim: int, *, bias: bool = True, eps: float = 1e-5) -> nn.Module:
    """A "layer" norm, or an "rms" norm, which neither subtracts the mean nor has a bias."""
    if kind == "rms":
        return nn.RMSNorm(embed_dim, eps=eps)
    return nn.LayerNorm(embed_dim, eps=eps, bias=bias)


def padding_mask(lengths: Tensor | None, steps: int) -> Tensor | None:
    """True for the steps that are not padding, to be broadcast over heads and queries: (B,) -> (B, 1, 1, steps)."""
    if lengths is None:
        return None
    return (torch.arange(steps, device=lengths.device) < lengths[:, None])[:, None, None]


def add_positions(x: Tensor, start: int = 0) -> Tensor:  # (B, T, C) -> (B, T, C)
    """Adds sinusoidal positional encodings; the first step of x has position start.

    Nothing is learned, and there is an encoding for every position. The wavelengths go from 2 pi to 10,000 * 2 pi
    steps.
    """
    steps, embed_dim = x.shape[1:]
    rates = torch.exp(
        torch.arange(0, embed_dim, 2, device=x.device, dtype=torch.float32) * (-math.log(10_000) / embed_dim)
    )
    angles = torch.arange(start, start + steps, device=x.device)[:, None] * rates  # (T, C / 2)
    return x + torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :embed_dim].to(x)


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:  # (B, heads, T, D), (B, heads, S, D) -> (B, heads, T, S)
    """softmax(Q K^T / sqrt(D)), the weights inside of scaled dot-product attention; each query's sum to 1."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with num_heads heads, within one sequence or from it to another.

    Weights start as those of torch's linear layers do.

    Args:
        embed_dim: Width C of the embeddings.
        num_heads: Must divide embed_dim.
        num_kv_heads: Heads of keys and values, each for a group of queries; must divide num_heads. None: num_heads.
        bias: Give the linear layers a bias.
        dropout: Fraction of the attention weights zeroed in training.

    Raises:
        ValueError: If num_heads does not divide embed_dim, or num_kv_heads num_heads.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_heads(num_heads, embed_dim)
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if self.num_kv_heads < 1 or num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads={num_kv_heads} does not divide num_heads={num_heads}.")
        width = embed_dim + 2 * self.num_kv_heads * (embed_dim // num_heads)
        self.qkv = nn.Linear(embed_dim, width, bias=bias)  # one matrix, so self-attention needs one product
        self.proj = nn.Linear(embed_dim, embed_dim, bias=bias)

    def forward(
        self,
        x: Tensor,
        source: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KVCache | None = None,
        rotation: Rotation | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """Self-attention within x (B, T, C), or cross-attention from x to source (B, S, C) -> (B, T, C).

        Args:
            mask: False for the keys that must not be attended to, (B, 1, 1, S) as `padding_mask` makes it, or anything
                that broadcasts to (B, heads, T, S); not used where causal.
            causal: Each step of x attends to itself and the steps before it, those in the cache included.
            cache: Keys and values of the steps before x in self-attention; those of x are appended.
            rotation: Of the positions of x, which turns queries and keys in self-attention (see `rope`).
            maps: The attention weights (B, heads, T, S), without dropout, are appended to it.
        """
        before = 0 if cache is None else cache.used
        query, key, value = self.project(x, rotation) if source is None else (self.query(x), *self.keys(source))
        if cache is not None:
            key, value = cache.extend(key, value)
        mask, causal = (None, True) if causal else (mask, False)
        if causal and before:  # torch's own causal mask is that of a text from its beginning
            steps, causal = key.shape[2], False
            if x.shape[1] > 1:
                mask = torch.ones(x.shape[1], steps, dtype=torch.bool, device=x.device).tril(before)
        if maps is not None:
            maps.append(attention_weights(query, self._repeated(key), mask, causal))
        return self.attend(query, key, value, mask, causal)

    def project(self, x: Tensor, rotation: Rotation | None = None) -> tuple[Tensor, ...]:
        """(B, T, C) -> query, key and value, each (B, its heads, T, D)."""
        heads = self.num_heads, self.num_kv_heads, self.num_kv_heads
        qkv = self.qkv(x).unflatten(-1, (sum(heads), -1))  # (B, T, all heads, D)
        if rotation is None:
            query, key, value = qkv.split(heads, dim=2)
        else:
            turned, value = qkv.split((heads[0] + heads[1], heads[2]), dim=2)
            query, key = rotate(turned, rotation).split(heads[:2], dim=2)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def query(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, heads, T, D)
        return self._split_heads(self._linear(x, slice(None, self.embed_dim)), self.num_heads)

    def keys(self, source: Tensor) -> tuple[Tensor, ...]:
        """(B, S, C) -> key and value, each (B, num_kv_heads, S, D)."""
        parts = self._linear(source, slice(self.embed_dim, None)).chunk(2, dim=-1)
        return tuple(self._split_heads(part, self.num_kv_heads) for part in parts)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:  # (B, heads, T, D), 2 x (B, num_kv_heads, S, D) -> (B, T, C)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=causal,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.num_kv_heads != self.num_heads,
        )
        return self.proj(attended.transpose(1, 2).flatten(2))

    def weights(
        self, x: Tensor, source: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:  # (B, T, C) -> (B, heads, T, S)
        """The attention weights without dropout; arguments as of `forward`."""
        query, (key, _) = self.query(x), self.keys(x if source is None else source)
        return attention_weights(query, self._repeated(key), mask, causal)

    def _repeated(self, key: Tensor) -> Tensor:  # (B, num_kv_heads, S, D) -> (B, heads, S, D)
        group = self.num_heads // self.num_kv_heads
        return key if group == 1 else key.repeat_interleave(group, dim=1)

    def _linear(self, x: Tensor, rows: slice) -> Tensor:  # (B, T, C) -> (B, T, number of rows)
        """Some of the outputs of the qkv layer."""
        bias = None if self.qkv.bias is None else self.qkv.bias[rows]
        return F.linear(x, self.qkv.weight[rows], bias)

    def _split_heads(self, x: Tensor, heads: int) -> Tensor:  # (B, T, heads * D) -> (B, heads, T, D)
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, at each step alone (the paper's section 3.3).

    Weights start as those of torch's linear layers do.

    Args:
        embed_dim: Width C of the embeddings.
        feedforward_dim: Width of the hidden layer.
        activation: Function on tensors.
        bias: Give the linear layers a bias.
        dropout: Fraction of the hidden layer's outputs zeroed in training.
        gated: The hidden layer is multiplied by a third matrix's activations (SwiGLU with F.silu).
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        feedforward_dim: int,
        activation: Callable[[Tensor], Tensor] = F.relu,
        bias: bool = True,
        dropout: float = 0.0,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, feedforward_dim, bias=bias)
        self.fc2 = nn.Linear(feedforward_dim, embed_dim, bias=bias)
        self.gate = nn.Linear(embed_dim, feedforward_dim, bias=bias) if gated else None
        self.activation, self.dropout = activation, dropout

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        hidden = self.activation(self.fc1(x)) if self.gate is None else self.activation(self.gate(x)) * self.fc1(x)
        return self.fc2(F.dropout(hidden, self.dropout, self.training))


class Block(nn.Module):
    """Self-attention and a feed-forward network, each with a norm and a residual connection: of GPT, LLaMA and BERT.

    Weights start as those of torch's linear layers do. Dropout is on attention weights and on the output of both parts.

    Args:
        embed_dim: Width C of the embeddings.
        num_heads, num_kv_heads: As of `MultiHeadAttention`.
        feedforward: Row of FEEDFORWARDS: "gelu", "gelu_tanh" or "swiglu".
        feedforward_dim: Width of the hidden layer.
        norm: "layer" or "rms"; eps is added to the variance.
        bias: Give linear layers and norms a bias.
        dropout: Fraction zeroed in training.
        pre_norm: The norms come before attention and feed-forward network; else after the residual connections.

    Raises:
        ValueError: If the heads do not fit.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        feedforward: str = "gelu",
        feedforward_dim: int,
        norm: str = "layer",
        eps: float = 1e-5,
        bias: bool = True,
        dropout: float = 0.0,
        pre_norm: bool = True,
    ) -> None:
        super().__init__()
        activation, gated = FEEDFORWARDS[feedforward]
        self.norm1 = make_norm(norm, embed_dim, bias=bias, eps=eps)
        self.attention = MultiHeadAttention(
            embed_dim=embed_dim, num_heads=num_heads, num_kv_heads=num_kv_heads, bias=bias, dropout=dropout
        )
        self.norm2 = make_norm(norm, embed_dim, bias=bias, eps=eps)
        self.mlp = FeedForward(
            embed_dim=embed_dim, feedforward_dim=feedforward_dim, activation=activation, bias=bias, gated=gated
        )
        self.dropout, self.pre_norm = nn.Dropout(dropout), pre_norm

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KVCache | None = None,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """(B, T, C) -> (B, T, C); arguments as of `MultiHeadAttention.forward`."""
        rest: dict[str, Any] = {"mask": mask, "causal": causal, "cache": cache, "rotation": rotation}
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.norm1(x), **rest))
            return x + self.dropout(self.mlp(self.norm2(x)))
        x = self.norm1(x + self.dropout(self.attention(x, **rest)))
        return self.norm2(x + self.dropout(self.mlp(x)))


class Residual(nn.Module):
    """Residual connection around a sublayer, with dropout on its output and pre- or post-normalisation."""

    def __init__(self, *, embed_dim: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.norm, self.dropout, self.pre_norm = nn.LayerNorm(embed_dim), nn.Dropout(dropout), pre_norm

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return x + self.dropout(sublayer(self.norm(x)))
        return self.norm(x + self.dropout(sublayer(x)))


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network, each with a residual connection; Xavier initialisation.

    Args:
        embed_dim: Width C of the embeddings.
        num_heads: Attention heads; must divide embed_dim.
        feedforward_dim: Width of the feed-forward network's hidden layer.
        dropout: Fraction of each sublayer's output zeroed in training.
        pre_norm: Layer norm before each sublayer, not after the residual connection as published.
        attention: False leaves the attention out.

    Raises:
        ValueError: If num_heads does not divide embed_dim.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        feedforward_dim: int,
        dropout: float = 0.1,
        pre_norm: bool = False,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.has_attention = attention
        if attention:
            self.attention = xavier_init(MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads))
            self.attention_residual = Residual(embed_dim=embed_dim, dropout=dropout, pre_norm=pre_norm)
        self.feedforward = xavier_init(FeedForward(embed_dim=embed_dim, feedforward_dim=feedforward_dim))
        self.feedforward_residual = Residual(embed_dim=embed_dim, dropout=dropout, pre_norm=pre_norm)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:  # (B, T, C) -> (B, T, C)
        if self.has_attention:
            x = self.attention_residual(x, lambda x: self.attention(x, mask=mask, causal=causal))
        return self.feedforward_residual(x, self.feedforward)


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to the source, then a feed-forward network; Xavier initialisation.

    Args:
        embed_dim, num_heads, feedforward_dim, dropout, pre_norm: As of `EncoderLayer`.
        self_attention: False leaves out the attention within the target.
        cross_attention: False leaves out the attention to the source, which then has no influence.

    Raises:
        ValueError: If num_heads does not divide embed_dim.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        feedforward_dim: int,
        dropout: float = 0.1,
        pre_norm: bool = False,
        self_attention: bool = True,
        cross_attention: bool = True,
    ) -> None:
        super().__init__()
        self.has_self_attention, self.has_cross_attention = self_attention, cross_attention
        if self_attention:
            self.self_attention = xavier_init(MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads))
            self.self_residual = Residual(embed_dim=embed_dim, dropout=dropout, pre_norm=pre_norm)
        if cross_attention:
            self.cross_attention = xavier_init(MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads))
            self.cross_residual = Residual(embed_dim=embed_dim, dropout=dropout, pre_norm=pre_norm)
        self.feedforward = xavier_init(FeedForward(embed_dim=embed_dim, feedforward_dim=feedforward_dim))
        self.feedforward_residual = Residual(embed_dim=embed_dim, dropout=dropout, pre_norm=pre_norm)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """All steps at once: (B, T, C), the source (B, S, C) and its `padding_mask` -> (B, T, C)."""
        x = self._self_attended(x)
        if self.has_cross_attention:
            x = self.cross_residual(x, lambda x: self.cross_attention(x, source, mask=mask))
        return self.feedforward_residual(x, self.feedforward)

    def _self_attended(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.self_residual(x, lambda x: self.self_attention(x, causal=True)) if self.has_self_attention else x

    def initial_state(self, source: Tensor) -> State:
        """The state before the first step: keys and values of the source (B, S, C), and an empty cache of the target's."""
        state: State = {}
        if self.has_cross_attention:
            state["source_key"], state["source_value"] = self.cross_attention.keys(source)
        if self.has_self_attention:
            state["cache"] = KVCache()
        return state

    def step(self, x: Tensor, state: State, mask: Tensor | None = None) -> Tensor:
        """One further step (B, 1, C) after those in the state, which then holds it too -> (B, 1, C)."""
        if self.has_self_attention:
            x = self.self_residual(x, lambda x: self.self_attention(x, cache=state["cache"]))
        if self.has_cross_attention:
            key, value = state["source_key"], state["source_value"]
            attention = self.cross_attention
            x = self.cross_residual(x, lambda x: attention.attend(attention.query(x), key, value, mask))
        return self.feedforward_residual(x, self.feedforward)

    def weights(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """The cross-attention weights without dropout: arguments of `forward` -> (B, heads, T, S)."""
        x = self._self_attended(x)
        if self.cross_residual.pre_norm:
            x = self.cross_residual.norm(x)
        return self.cross_attention.weights(x, source, mask=mask)


class Encoder(nn.Module):
    """`depth` encoder layers, and a layer norm at the end with pre-normalisation.

    Args:
        depth: Number of layers; the other arguments are those of `EncoderLayer`.
    """

    def __init__(self, *, depth: int, embed_dim: int, pre_norm: bool = False, **layer: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(embed_dim=embed_dim, pre_norm=pre_norm, **layer) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim) if pre_norm else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:  # (B, T, C) -> (B, T, C)
        for layer in self.layers:
            x = layer(x, mask, causal)
        return self.norm(x)


class Decoder(nn.Module):
    """`depth` decoder layers, and a layer norm at the end with pre-normalisation.

    Args:
        depth: Number of layers; the other arguments are those of `DecoderLayer`.
    """

    def __init__(self, *, depth: int, embed_dim: int, pre_norm: bool = False, **layer: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(embed_dim=embed_dim, pre_norm=pre_norm, **layer) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim) if pre_norm else nn.Identity()

    @property
    def _layers(self) -> list[DecoderLayer]:  # a ModuleList's modules have no type
        return list(self.layers)  # type: ignore[arg-type]

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:  # (B, T, C) -> (B, T, C)
        for layer in self._layers:
            x = layer(x, source, mask)
        return self.norm(x)

    def initial_state(self, source: Tensor) -> list[State]:
        """The states of all layers before the first step."""
        return [layer.initial_state(source) for layer in self._layers]

    def step(self, x: Tensor, states: list[State], mask: Tensor | None = None) -> Tensor:
        """One further step (B, 1, C) after those in the states of all layers, which then hold it too -> (B, 1, C)."""
        for layer, state in zip(self._layers, states, strict=True):
            x = layer.step(x, state, mask)
        return self.norm(x)

    def weights(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """The last layer's cross-attention weights, mean over heads: (B, T, C), (B, S, C) -> (B, T, S)."""
        *layers, last = self._layers
        for layer in layers:
            x = layer(x, source, mask)
        return last.weights(x, source, mask).mean(dim=1)
