"""What Transformers are made of: attention with several heads, encoder and decoder layers, sinusoidal positions.

Vaswani et al.: Attention Is All You Need, 2017 (arXiv 1706.03762). Norms before the sublayers (pre_norm): Wang et al.:
Learning Deep Transformer Models for Machine Translation, 2019 (arXiv 1906.01787); Xiong et al. 2020 (arXiv 2002.04745).

As published, dropout is on what a sublayer adds, never on the attention weights or inside the perceptron. Sequences
are padded on the right, so a step that sees no later ones never sees padding: causal attention needs no other mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = dict[str, Tensor]  # what a decoder layer keeps from step to step; batch first


def padding_mask(lengths: Tensor | None, steps: int) -> Tensor | None:
    """Which steps are real, in the shape that all heads and queries share: (B,) -> (B, 1, 1, steps) bool."""
    if lengths is None:
        return None
    return (torch.arange(steps, device=lengths.device) < lengths[:, None])[:, None, None]


def add_positions(x: Tensor, start: int = 0) -> Tensor:  # (B, T, C) -> (B, T, C)
    """Adds a wave to each pair of numbers, from one of 2 pi steps to one of 10,000 * 2 pi; x begins at position start.

    Nothing is learned, and the waves go on however long a sequence gets.
    """
    steps, embed_dim = x.shape[1:]
    rates = torch.exp(torch.arange(0, embed_dim, 2, device=x.device) * (-math.log(10_000) / embed_dim))
    angles = torch.arange(start, start + steps, device=x.device)[:, None] * rates  # (T, C / 2)
    return x + torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :embed_dim].to(x)


class MultiHeadAttention(nn.Module):
    """Each step asks by a query, and gets the mean of the values whose keys fit; num_heads independent times.

    Args:
        embed_dim: Numbers in the vector of a step.
        num_heads: Must divide embed_dim.

    Raises:
        ValueError: If num_heads does not divide embed_dim.
    """

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide embed_dim={embed_dim}.")
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.query_key_value = nn.Linear(embed_dim, 3 * embed_dim)  # one matrix: one product where x asks itself
        self.out = nn.Linear(embed_dim, embed_dim)
        for matrix in (*self.query_key_value.weight.chunk(3), self.out.weight):
            nn.init.xavier_uniform_(matrix)
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, x: Tensor, source: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """(B, T, C) asks source (B, S, C), or itself -> (B, T, C).

        Args:
            mask: False where nobody looks, (B, 1, 1, S) as `padding_mask` makes it, or anything that becomes
                (B, heads, T, S); not needed where causal.
            causal: A step of x sees itself and the steps before it.
        """
        query, key, value = self.project(x) if source is None else (self.query(x), *self.keys(source))
        return self.look(query, key, value, None if causal else mask, causal)

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, T, C) -> query, key and value, each (B, heads, T, C / heads)."""
        return self._heads(self.query_key_value(x), 3)

    def query(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, heads, T, C / heads)
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        return self._heads(F.linear(x, weight[: self.embed_dim], bias[: self.embed_dim]), 1)[0]

    def keys(self, source: Tensor) -> tuple[Tensor, ...]:
        """(B, S, C) -> key and value, each (B, heads, S, C / heads)."""
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        return self._heads(F.linear(source, weight[self.embed_dim :], bias[self.embed_dim :]), 2)

    def look(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:  # (B, heads, T, D), 2 x (B, heads, S, D) -> (B, T, C)
        looks = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        return self.out(looks.transpose(1, 2).flatten(2))

    def weights(
        self, x: Tensor, source: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:  # (B, T, C) -> (B, heads, T, S)
        """How much each step of x takes from each of the source's, which sums to 1. Arguments as of `forward`."""
        query, (key, _) = self.query(x), self.keys(x if source is None else source)
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(dim=-1)

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:  # (B, T, parts * C) -> (B, heads, T, C / heads) each
        return x.unflatten(-1, (parts, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()


class Residual(nn.Module):
    """What stands around a sublayer: x goes by and what the sublayer makes of it is added, with a norm after or before."""

    def __init__(self, *, embed_dim: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.norm, self.dropout, self.pre_norm = nn.LayerNorm(embed_dim), nn.Dropout(dropout), pre_norm

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return x + self.dropout(sublayer(self.norm(x)))
        return self.norm(x + self.dropout(sublayer(x)))


class FeedForward(nn.Module):
    """The same perceptron at each step."""

    def __init__(self, *, embed_dim: int, feedforward_dim: int) -> None:
        super().__init__()
        self.widen = nn.Linear(embed_dim, feedforward_dim)
        self.narrow = nn.Linear(feedforward_dim, embed_dim)
        for linear in (self.widen, self.narrow):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.narrow(F.relu(self.widen(x)))


class EncoderLayer(nn.Module):
    """Attention between the steps of one sequence, then a perceptron at each.

    Args:
        embed_dim: Numbers in the vector of a step.
        num_heads: Attention heads; must divide embed_dim.
        feedforward_dim: Width of the perceptron.
        dropout: Share zeroed of what each sublayer adds.
        pre_norm: Norms before the sublayers, not after the sums as published.
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
        self.attends = attention
        if attention:
            self.attention = MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads)
            self.attention_bypass = Residual(embed_dim=embed_dim, dropout=dropout, pre_norm=pre_norm)
        self.feedforward = FeedForward(embed_dim=embed_dim, feedforward_dim=feedforward_dim)
        self.feedforward_bypass = Residual(embed_dim=embed_dim, dropout=dropout, pre_norm=pre_norm)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:  # (B, T, C) -> (B, T, C)
        if self.attends:
            x = self.attention_bypass(x, lambda x: self.attention(x, mask=mask, causal=causal))
        return self.feedforward_bypass(x, self.feedforward)


class DecoderLayer(nn.Module):
    """Attention from each step to those before it, then to the source, then a perceptron at each step.

    Args:
        embed_dim, num_heads, feedforward_dim, dropout, pre_norm: As of `EncoderLayer`.
        self_attention: False leaves out the attention within the target.
        cross_attention: False leaves out the attention to the source, which is then not seen.

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
        self.attends, self.sees_source = self_attention, cross_attention
        if self_attention:
            self.self_attention = MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads)
            self.self_bypass = Residual(embed_dim=embed_dim, dropout=dropout, pre_norm=pre_norm)
        if cross_attention:
            self.cross_attention = MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads)
            self.cross_bypass = Residual(embed_dim=embed_dim, dropout=dropout, pre_norm=pre_norm)
        self.feedforward = FeedForward(embed_dim=embed_dim, feedforward_dim=feedforward_dim)
        self.feedforward_bypass = Residual(embed_dim=embed_dim, dropout=dropout, pre_norm=pre_norm)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, C), all steps at once, with source (B, S, C) and its `padding_mask` -> (B, T, C)."""
        x = self._within(x)
        if self.sees_source:
            x = self.cross_bypass(x, lambda x: self.cross_attention(x, source, mask=mask))
        return self.feedforward_bypass(x, self.feedforward)

    def _within(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.self_bypass(x, lambda x: self.self_attention(x, causal=True)) if self.attends else x

    def begin(self, source: Tensor) -> State:
        """The state before the first step: keys and values of the source (B, S, C), and none yet of the target."""
        state: State = {}
        if self.sees_source:
            state["source_key"], state["source_value"] = self.cross_attention.keys(source)
        if self.attends:
            attention = self.self_attention
            none = source.new_empty(len(source), attention.num_heads, 0, attention.embed_dim // attention.num_heads)
            state["key"], state["value"] = none, none
        return state

    def step(self, x: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """The next step (B, 1, C) alone, after those that made the state -> (B, 1, C) and the state after it."""
        state = dict(state)

        def within(x: Tensor) -> Tensor:
            query, key, value = self.self_attention.project(x)
            state["key"] = torch.cat((state["key"], key), dim=2)
            state["value"] = torch.cat((state["value"], value), dim=2)
            return self.self_attention.look(query, state["key"], state["value"])

        def across(x: Tensor) -> Tensor:
            query = self.cross_attention.query(x)
            return self.cross_attention.look(query, state["source_key"], state["source_value"], mask)

        if self.attends:
            x = self.self_bypass(x, within)
        if self.sees_source:
            x = self.cross_bypass(x, across)
        return self.feedforward_bypass(x, self.feedforward), state

    def weights(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each step takes from each of the source's: arguments of `forward` -> (B, heads, T, S)."""
        x = self._within(x)
        if self.cross_bypass.pre_norm:
            x = self.cross_bypass.norm(x)
        return self.cross_attention.weights(x, source, mask=mask)


class Encoder(nn.Module):
    """`depth` encoder layers, and a last norm where those inside come before the sublayers.

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
    """`depth` decoder layers, and a last norm where those inside come before the sublayers.

    Args:
        depth: Number of layers; the other arguments are those of `DecoderLayer`.
    """

    def __init__(self, *, depth: int, embed_dim: int, pre_norm: bool = False, **layer: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(embed_dim=embed_dim, pre_norm=pre_norm, **layer) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim) if pre_norm else nn.Identity()

    @property
    def _layers(self) -> list[DecoderLayer]:  # a ModuleList forgets of what kind its modules are
        return list(self.layers)  # type: ignore[arg-type]

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:  # (B, T, C) -> (B, T, C)
        for layer in self._layers:
            x = layer(x, source, mask)
        return self.norm(x)

    def begin(self, source: Tensor) -> list[State]:
        """The states of all layers before the first step."""
        return [layer.begin(source) for layer in self._layers]

    def step(self, x: Tensor, states: list[State], mask: Tensor | None = None) -> tuple[Tensor, list[State]]:
        """The next step (B, 1, C) alone -> (B, 1, C) and the states after it."""
        after = []
        for layer, state in zip(self._layers, states, strict=True):
            x, state = layer.step(x, state, mask)
            after.append(state)
        return self.norm(x), after

    def weights(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the last layer's steps look at in the source, mean over heads: (B, T, C), (B, S, C) -> (B, T, S)."""
        *layers, last = self._layers
        for layer in layers:
            x = layer(x, source, mask)
        return last.weights(x, source, mask).mean(dim=1)
