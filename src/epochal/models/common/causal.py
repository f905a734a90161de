"""A decoder-only Transformer, which reads tokens from left to right: the body of GPT and LLaMA, and its heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import OnlyWith, check_choice, check_fraction, check_heads, check_positive, check_sizes
from epochal.core.specs import Classes, Numbers, Outputs, StepLabels, Tokens
from epochal.models.common import beam_search
from epochal.models.common.attention import FEEDFORWARDS, NORMS, Block, make_norm
from epochal.models.common.kv_cache import KVCache
from epochal.models.common.rope import RotaryPositions
from epochal.models.common.sampling import AutoregressiveModel


class CausalTransformer(AutoregressiveModel):
    """Token embedding, positions, depth blocks with causal attention, a norm, and a head.

        tokens (B, T) -> (B, T, C) -> next_token                (B, T, vocab_size)
                                      step_classes              (B, T, num_outputs)
                                      classes, numbers, scalar  (B, num_outputs), of scalar (B,): of the last real token

    Rows are padded on the right, which no real token sees. The output layers are `head`, everything else is the body.
    Weights start from N(0, 0.02), with pre-normalisation those that write to the residual stream from N(0, 0.02 / sqrt(2
    depth)), biases at zero.

    Args:
        vocab_size: Number of tokens.
        context_length: Maximum number of tokens that it reads at once.
        head: One of `heads`.
        num_outputs: Classes or numbers of a head that has them.
        depth: Number of blocks.
        num_heads: Attention heads of a block; must divide embed_dim.
        embed_dim: Width C of the embeddings.
        num_kv_heads: Heads of keys and values, each shared by a group of queries; must divide num_heads. None: num_heads.
        feedforward: "gelu", "gelu_tanh" (GPT-2's approximation of it) or "swiglu" (three matrices instead of two).
        feedforward_dim: Width of its hidden layer. None: 4 C, of swiglu two thirds of it, rounded up to a multiple of 8,
            so that it has as many parameters.
        norm: "layer" or "rms".
        eps: What norms add to the variance.
        positions: "learned", an embedding of each, or "rotary".
        rope_base: Of the wavelengths of rotary positions.
        bias: Give linear layers and norms a bias.
        tie: The head for next tokens is the matrix of the token embedding.
        pre_norm: Norms before attention and feed-forward network and one at the end; else after the residual connections.
        dropout: Fraction zeroed in training of embeddings, attention weights and the outputs of attention and feed-forward
            network.
        embed_std: Standard deviation from which the embeddings of tokens and positions start.

    Raises:
        ValueError: If a size is below 1, the heads do not fit, an argument is none of its choices or dropout is not in
            [0, 1).
    """

    heads: ClassVar[tuple[str, ...]] = ("next_token", "classes", "step_classes", "numbers", "scalar")
    reads: ClassVar[tuple[type, ...]] = (Tokens,)
    only_with: ClassVar = {"rope_base": (OnlyWith("positions", ("rotary",)),)}

    def __init__(
        self,
        *,
        vocab_size: int,
        context_length: int,
        head: str = "next_token",
        num_outputs: int | None = None,
        depth: int,
        num_heads: int,
        embed_dim: int,
        num_kv_heads: int | None = None,
        feedforward: str = "gelu",
        feedforward_dim: int | None = None,
        norm: str = "layer",
        eps: float = 1e-5,
        positions: str = "learned",
        rope_base: float = 10_000.0,
        bias: bool = True,
        tie: bool = True,
        pre_norm: bool = True,
        dropout: float = 0.0,
        embed_std: float = 0.02,
    ) -> None:
        super().__init__()
        check_positive("embed_std", embed_std)
        check_sizes(vocab_size=vocab_size, context_length=context_length)
        check_sizes(depth=depth, num_heads=num_heads, embed_dim=embed_dim)
        check_fraction("dropout", dropout)
        check_heads(num_heads, embed_dim)
        check_choice("feedforward", feedforward, tuple(FEEDFORWARDS))
        check_choice("norm", norm, NORMS)
        check_choice("positions", positions, ("learned", "rotary"))
        check_positive("rope_base", rope_base)
        if feedforward_dim is None:
            feedforward_dim = 8 * math.ceil(embed_dim / 3) if FEEDFORWARDS[feedforward][1] else 4 * embed_dim
        check_sizes(feedforward_dim=feedforward_dim)
        self.context_length, self.head_name = context_length, head
        self.embed = nn.Embedding(vocab_size, embed_dim)
        if positions == "learned":
            self.position = nn.Embedding(context_length, embed_dim)
        self.rotary = (
            RotaryPositions(head_dim=embed_dim // num_heads, context_length=context_length, base=rope_base)
            if positions == "rotary"
            else None
        )
        self.dropout = nn.Dropout(dropout)
        block: dict[str, Any] = {"embed_dim": embed_dim, "num_heads": num_heads, "num_kv_heads": num_kv_heads}
        block |= {"feedforward": feedforward, "feedforward_dim": feedforward_dim, "norm": norm, "eps": eps}
        block |= {"bias": bias, "dropout": dropout, "pre_norm": pre_norm}
        self.blocks = nn.ModuleList(Block(**block) for _ in range(depth))
        self.norm = make_norm(norm, embed_dim, bias=bias, eps=eps) if pre_norm else nn.Identity()
        outputs = vocab_size if head == "next_token" else num_outputs
        self.head = None if tie and head == "next_token" else make_head(type(self), head, embed_dim, outputs)
        self._initialise(0.02 / math.sqrt(2 * depth) if pre_norm else 0.02, embed_std)

    def _initialise(self, to_residual: float, embed_std: float) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                last = name.endswith(("attention.proj.weight", "mlp.fc2.weight"))
                std = to_residual if last else 0.02
                nn.init.normal_(parameter, std=embed_std if name in ("embed.weight", "position.weight") else std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @classmethod
    def for_data(
        cls,
        inputs: Tokens,
        outputs: Outputs,
        *,
        head: str = "next_token",
        context_length: int | None = None,
        **config: Any,
    ) -> Any:
        return cls(**sizes_for(inputs, outputs, head, context_length), **config)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T) -> logits (B, T, vocab_size), or what the head returns.

        Args:
            tokens: Padded on the right.
            lengths: Number of tokens of each row that are not padding (B,); None: all.
        """
        x = self._read(tokens)
        if self.head_name in ("classes", "numbers", "scalar"):
            x = x[:, -1] if lengths is None else x[torch.arange(x.shape[0], device=x.device), lengths - 1]
        x = self._head(x)
        return x[:, 0] if self.head_name == "scalar" else x

    def states(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:  # (B, T) -> (B, T, C)
        """What the body computes of each token; the state of padding means nothing."""
        return self._read(tokens)

    def readout(self, x: Tensor) -> Tensor:  # (..., C) -> (..., outputs)
        """What the head says of the output of a block, also of one before the last: the logit lens."""
        return self._head(self.norm(x))

    def _head(self, x: Tensor) -> Tensor:  # (..., C) -> (..., outputs)
        return F.linear(x, self.embed.weight) if self.head is None else self.head(x)

    def _read(self, tokens: Tensor, caches: list[KVCache] | None = None) -> Tensor:  # (B, T) -> (B, T, C)
        start = caches[0].used if caches else 0
        stop = start + tokens.shape[1]
        check_context(stop, self.context_length)
        x = self.embed(tokens)
        if self.rotary is None:
            x = x + self.position.weight[start:stop]
        x = self.dropout(x)
        rotation = None if self.rotary is None else self.rotary(start, stop)
        for i, block in enumerate(self.blocks):
            x = block(x, causal=True, cache=caches[i] if caches else None, rotation=rotation)
        return self.norm(x)

    def initial_state(self, steps: int) -> list[KVCache]:
        """An empty cache for each block, for a text of `steps` tokens or as many as the context holds."""
        if self.head_name != "next_token":
            raise ValueError(f"Only a language model can generate; this network's head is for {self.head_name}.")
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
        return self._head(x[:, -1]), state

    def most_probable(self, prompt: Tensor, **options: Any) -> Tensor:
        """Continues each prompt (B, T) by beam search; see `models.common.beam_search.continued`."""
        return beam_search.continued(self, prompt, **options)


def make_head(model: Any, head: str, embed_dim: int, outputs: int | None) -> nn.Linear:
    """The linear output layer of a model's class; as published, tokens, classes and scores of a whole text have no bias.

    Raises:
        ValueError: If the model does not offer such a head, or the number of outputs is missing.
    """
    check_choice("head", head, model.heads)
    outputs = 1 if head == "scalar" else outputs
    if outputs is None:
        raise ValueError(f"head={head} needs num_outputs, the number of its outputs.")
    check_sizes(num_outputs=outputs)
    return nn.Linear(embed_dim, outputs, bias=head in ("step_classes", "numbers"))


def sizes_for(inputs: Tokens, outputs: Outputs, head: str, context_length: int | None) -> dict[str, Any]:
    """The arguments that a network of tokens takes from the data.

    Raises:
        ValueError: If the context is shorter than the data's texts.
    """
    length = inputs.length if context_length is None else context_length
    if length < inputs.length:
        raise ValueError(
            f"context_length={length:,} is shorter than the texts of the data, of up to {inputs.length:,} tokens: "
            "take a longer one, or shorter texts (dataset.context_length or dataset.max_length)."
        )
    count = outputs.count if isinstance(outputs, Classes | StepLabels | Numbers) else None
    return {"vocab_size": inputs.vocab_size, "context_length": length, "head": head, "num_outputs": count}


def with_variant(variants: Mapping[str, Mapping[str, Any]], variant: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a variant, and instead of them those given that are not None.

    Widths that belong to what is given instead are left to their defaults: that of the feed-forward network to a width or
    kind of another size, the number of key heads to a number of heads.

    Raises:
        ValueError: If there is no such variant.
    """
    check_choice("variant", variant, tuple(variants))
    given = {name: value for name, value in options.items() if value is not None}
    chosen = dict(variants[variant])
    if {"embed_dim", "feedforward"} & {name for name in given if given[name] != chosen.get(name)}:
        chosen.pop("feedforward_dim", None)
    if given.get("num_heads", chosen["num_heads"]) != chosen["num_heads"]:
        chosen.pop("num_kv_heads", None)
    return {**chosen, **given}


def check_context(tokens: int, context_length: int) -> None:
    """Raise ValueError if there are more tokens than the context holds."""
    if tokens > context_length:
        raise ValueError(
            f"{tokens:,} tokens are more than context_length={context_length:,}, the most that it reads at once."
        )
