"""Transformer encoder: labels a whole sequence or each of its steps, or predicts numbers.

Vaswani et al.: Attention Is All You Need, 2017 (arXiv 1706.03762), the left half of figure 1; without a decoder: Devlin
et al.: BERT, 2018 (arXiv 1810.04805).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from epochal.core.checks import check_choice, check_fraction, check_sizes
from epochal.core.specs import Classes, Frames, Images, Numbers, Series, StepLabels, Tokens
from epochal.models.common.attention import Encoder, add_positions, padding_mask
from epochal.models.common.layers import FrameEncoder, small_head_init, xavier_init
from epochal.models.common.old_names import TRANSFORMER_LAYERS


class TransformerEncoder(nn.Module):
    """Steps embedded, sinusoidal positions added, depth encoder layers, and a linear layer.

        tokens (B, T)             an embedding of each
        series (B, T, channels)   a linear layer at each step
        videos (B, T, C, H, W)    a small convolutional network at each frame, see `layers.FrameEncoder`
        images (B, C, H, W)       a linear layer at each row or pixel

        -> (B, T, embed_dim) -> depth x (attention, feed-forward) -> (B, T, embed_dim) -> each step, or pooled

    Weights start Xavier-uniform, token embeddings from N(0, 1 / embed_dim), the output layer from N(0, 0.02) as BERT's,
    biases at zero.

    Deviations from BERT: sinusoidal positions, ReLU, and the mean of the steps instead of a class token's output.

    Args:
        in_features: Length of a step: channels of a series, C * W or C of an image; None for tokens and videos.
        vocab_size: Number of tokens; None for anything else.
        frame_shape: (C, H, W) of a video's frame; None for anything else.
        out_features: Length of the output: classes or numbers.
        each_step: Whether every step has an output, or the whole sequence one.
        scan: What a step of an image is: "rows" or "pixels".
        depth: Number of layers.
        embed_dim: Width C of the embeddings.
        num_heads: Attention heads of a layer; must divide embed_dim.
        feedforward_dim: Width of the feed-forward network's hidden layer.
        pre_norm: Layer norm before each sublayer and one at the end, not after the residual connections as published.
        causal: A step attends only to itself and those before it, as in a recurrent network.
        pool: What one output for all is computed from: the "mean" of the steps, or the "last" of them.
        dropout: Fraction zeroed in training, of the embeddings and of each sublayer's output.

    Raises:
        ValueError: If a size is below 1, num_heads does not divide embed_dim, dropout is not in [0, 1), scan or pool
            none of its choices, or not exactly one of in_features, vocab_size and frame_shape is given.
    """

    heads: ClassVar[tuple[str, ...]] = ("classes", "step_classes", "numbers")
    reads: ClassVar[tuple[type, ...]] = (Tokens, Series, Frames, Images)
    only_for: ClassVar = {"scan": (Images,)}
    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = TRANSFORMER_LAYERS

    def __init__(
        self,
        *,
        in_features: int | None = None,
        vocab_size: int | None = None,
        frame_shape: tuple[int, int, int] | None = None,
        out_features: int,
        each_step: bool = False,
        scan: str = "rows",
        depth: int = 2,
        embed_dim: int = 128,
        num_heads: int = 4,
        feedforward_dim: int = 256,
        pre_norm: bool = False,
        causal: bool = False,
        pool: str = "mean",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes(depth=depth, embed_dim=embed_dim, num_heads=num_heads, feedforward_dim=feedforward_dim)
        check_sizes(out_features=out_features)
        check_fraction("dropout", dropout)
        check_choice("scan", scan, ("rows", "pixels"))
        check_choice("pool", pool, ("mean", "last"))
        self.each_step, self.scan, self.causal, self.pool = each_step, scan, causal, pool
        self.scale = 1.0 if vocab_size is None else math.sqrt(embed_dim)
        self.embed = embedding(in_features, vocab_size, frame_shape, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.encoder = Encoder(
            depth=depth,
            embed_dim=embed_dim,
            num_heads=num_heads,
            feedforward_dim=feedforward_dim,
            dropout=dropout,
            pre_norm=pre_norm,
        )
        self.head = nn.Linear(embed_dim, out_features)
        small_head_init(self.head, std=0.02)

    @classmethod
    def for_data(
        cls, inputs: Tokens | Series | Frames | Images, outputs: Classes | StepLabels | Numbers, **config: Any
    ) -> TransformerEncoder:
        match inputs:
            case Tokens():
                config["vocab_size"] = inputs.vocab_size
            case Series():
                config["in_features"] = inputs.channels
            case Frames():
                config["frame_shape"] = (inputs.channels, inputs.height, inputs.width)
            case Images():
                rows = config.get("scan", "rows") == "rows"
                config["in_features"] = inputs.channels * inputs.width if rows else inputs.channels
        return cls(out_features=outputs.count, each_step=isinstance(outputs, StepLabels), **config)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """A sequence or image -> (B, out_features), or (B, T, out_features) with each_step.

        Args:
            inputs: (B, T) tokens, (B, T, channels), (B, T, C, H, W) or an image (B, C, H, W); padded on the right.
            lengths: Number of steps of each row that are not padding (B,); None: all.
        """
        return self._answer(self._steps(inputs), lengths)

    def _steps(self, inputs: Tensor) -> Tensor:  # -> (B, T, C)
        if inputs.dim() == 4:  # an image, (B, C, H, W)
            inputs = inputs.transpose(1, 2).flatten(2) if self.scan == "rows" else inputs.flatten(2).transpose(1, 2)
        return self.embed(inputs) * self.scale

    def _answer(self, steps: Tensor, lengths: Tensor | None) -> Tensor:  # (B, T, C) -> (B, out) or (B, T, out)
        x = self.dropout(add_positions(steps))
        x = self.encoder(x, padding_mask(lengths, x.shape[1]), self.causal)
        return self.head(x if self.each_step else self._pooled(x, lengths))

    def _pooled(self, x: Tensor, lengths: Tensor | None) -> Tensor:  # (B, T, C) -> (B, C)
        if lengths is None:
            return x.mean(dim=1) if self.pool == "mean" else x[:, -1]
        if self.pool == "last":
            return x[torch.arange(x.shape[0], device=x.device), lengths - 1]
        real = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # (B, T)
        return x.masked_fill(~real[..., None], 0.0).sum(dim=1) / lengths[:, None]

    @property
    def shows_state_gradients(self) -> bool:
        """Whether `state_gradients` works: only with one output for the whole sequence."""
        return not self.each_step

    def state_gradients(
        self, inputs: Tensor, loss: Callable[[Tensor], Tensor], lengths: Tensor | None = None
    ) -> Tensor:  # -> (T,)
        """How much each step matters for the loss: || dL / d embedding of the step ||, mean over the batch.

        The embeddings stand for states: a Transformer has none that go from step to step.

        Args:
            inputs, lengths: As of `forward`.
            loss: Of the output (B, out_features), summed over examples.

        Raises:
            ValueError: If each step has an output, and so a loss, of its own.
        """
        if not self.shows_state_gradients:
            raise ValueError("State gradients need a network that gives one answer for a whole sequence.")
        steps = self._steps(inputs).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(self._answer(steps, lengths)), steps)  # (B, T, C)
        return gradient.norm(dim=2).mean(dim=0)


def embedding(
    in_features: int | None, vocab_size: int | None, frame_shape: tuple[int, int, int] | None, embed_dim: int
) -> nn.Module:
    """The layer that turns each step into a vector of embed_dim.

    Raises:
        ValueError: If not exactly one of the first three is given, or it is below 1.
    """
    match in_features, vocab_size, frame_shape:
        case int(), None, None:
            check_sizes(in_features=in_features)
            return xavier_init(nn.Linear(in_features, embed_dim))
        case None, int(), None:
            check_sizes(vocab_size=vocab_size)
            embed = nn.Embedding(vocab_size, embed_dim)
            nn.init.normal_(embed.weight, std=1 / math.sqrt(embed_dim))
            return embed
        case None, None, (channels, height, width):
            return FrameEncoder(channels, height, width, embed_dim)
        case _:
            raise ValueError(
                "Give one of in_features (for series and images), vocab_size (text), frame_shape (videos)."
            )
