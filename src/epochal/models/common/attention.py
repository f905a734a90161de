"""Layers of Transformers: multi-head attention, encoder and decoder layers, sinusoidal positional encodings.

Vaswani et al.: Attention Is All You Need, 2017 (arXiv 1706.03762). Pre-normalisation: Wang et al.: Learning Deep
Transformer Models for Machine Translation, 2019 (arXiv 1906.01787); Xiong et al. 2020 (arXiv 2002.04745).

As published, encoder and decoder layers apply dropout to the output of each sublayer, never to the attention weights or
inside the feed-forward network. Sequences are padded on the right, so with causal attention no real step sees padding:
it needs no other mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import check_heads
from epochal.models.common.kv_cache import KVCache
from epochal.models.common.layers import xavier_init

State = dict[str, Tensor]  # what a decoder layer keeps from step to step; batch first


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
        bias: Give the linear layers a bias.
        dropout: Fraction of the attention weights zeroed in training.

    Raises:
        ValueError: If num_heads does not divide embed_dim.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(num_heads, embed_dim)
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=bias)  # one matrix, so self-attention needs one product
        self.proj = nn.Linear(embed_dim, embed_dim, bias=bias)

    def forward(
        self,
        x: Tensor,
        source: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Self-attention within x (B, T, C), or cross-attention from x to source (B, S, C) -> (B, T, C).

        Args:
            mask: False for the keys that must not be attended to, (B, 1, 1, S) as `padding_mask` makes it, or anything
                that broadcasts to (B, heads, T, S); not used where causal.
            causal: Each step of x attends to itself and the steps before it.
            cache: Keys and values of the steps before x in self-attention; those of x are appended.
        """
        query, key, value = self.project(x) if source is None else (self.query(x), *self.keys(source))
        if cache is not None:
            key, value = cache.extend(key, value)
        return self.attend(query, key, value, None if causal else mask, causal)

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, T, C) -> query, key and value, each (B, heads, T, C / heads)."""
        return self._split_heads(self.qkv(x), 3)

    def query(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, heads, T, C / heads)
        return self._split_heads(self._linear(x, slice(None, self.embed_dim)), 1)[0]

    def keys(self, source: Tensor) -> tuple[Tensor, ...]:
        """(B, S, C) -> key and value, each (B, heads, S, C / heads)."""
        return self._split_heads(self._linear(source, slice(self.embed_dim, None)), 2)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:  # (B, heads, T, D), 2 x (B, heads, S, D) -> (B, T, C)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=causal,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.proj(attended.transpose(1, 2).flatten(2))

    def weights(
        self, x: Tensor, source: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:  # (B, T, C) -> (B, heads, T, S)
        """The attention weights without dropout; arguments as of `forward`."""
        query, (key, _) = self.query(x), self.keys(x if source is None else source)
        return attention_weights(query, key, mask, causal)

    def _linear(self, x: Tensor, rows: slice) -> Tensor:  # (B, T, C) -> (B, T, number of rows)
        """Some of the outputs of the qkv layer."""
        bias = None if self.qkv.bias is None else self.qkv.bias[rows]
        return F.linear(x, self.qkv.weight[rows], bias)

    def _split_heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, T, parts * C) -> (B, heads, T, C / heads) each."""
        return tuple(part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in x.chunk(parts, dim=-1))


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, at each step alone (the paper's section 3.3).

    Weights start as those of torch's linear layers do.

    Args:
        embed_dim: Width C of the embeddings.
        feedforward_dim: Width of the hidden layer.
        activation: Function on tensors.
        bias: Give the linear layers a bias.
        dropout: Fraction of the hidden layer's outputs zeroed in training.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        feedforward_dim: int,
        activation: Callable[[Tensor], Tensor] = F.relu,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, feedforward_dim, bias=bias)
        self.fc2 = nn.Linear(feedforward_dim, embed_dim, bias=bias)
        self.activation, self.dropout = activation, dropout

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.fc2(F.dropout(self.activation(self.fc1(x)), self.dropout, self.training))


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
        """The state before the first step: keys and values of the source (B, S, C), and empty ones of the target."""
        state: State = {}
        if self.has_cross_attention:
            state["source_key"], state["source_value"] = self.cross_attention.keys(source)
        if self.has_self_attention:
            attention = self.self_attention
            empty = source.new_empty(len(source), attention.num_heads, 0, attention.embed_dim // attention.num_heads)
            state["key"], state["value"] = empty, empty
        return state

    def step(self, x: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """One further step (B, 1, C) and the state after the steps before it -> (B, 1, C) and the new state."""
        state = dict(state)

        def attend_to_target(x: Tensor) -> Tensor:
            query, key, value = self.self_attention.project(x)
            state["key"] = torch.cat((state["key"], key), dim=2)
            state["value"] = torch.cat((state["value"], value), dim=2)
            return self.self_attention.attend(query, state["key"], state["value"])

        def attend_to_source(x: Tensor) -> Tensor:
            query = self.cross_attention.query(x)
            return self.cross_attention.attend(query, state["source_key"], state["source_value"], mask)

        if self.has_self_attention:
            x = self.self_residual(x, attend_to_target)
        if self.has_cross_attention:
            x = self.cross_residual(x, attend_to_source)
        return self.feedforward_residual(x, self.feedforward), state

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

    def step(self, x: Tensor, states: list[State], mask: Tensor | None = None) -> tuple[Tensor, list[State]]:
        """One further step (B, 1, C) -> (B, 1, C) and the new states of all layers."""
        after = []
        for layer, state in zip(self._layers, states, strict=True):
            x, state = layer.step(x, state, mask)
            after.append(state)
        return self.norm(x), after

    def weights(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """The last layer's cross-attention weights, mean over heads: (B, T, C), (B, S, C) -> (B, T, S)."""
        *layers, last = self._layers
        for layer in layers:
            x = layer(x, source, mask)
        return last.weights(x, source, mask).mean(dim=1)
