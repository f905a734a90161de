"""The Transformer's encoder alone: it reads a sequence, and says one thing of the whole or one of each step.

Vaswani et al.: Attention Is All You Need, 2017 (arXiv 1706.03762), the left half of figure 1; alone: Devlin et al.: BERT,
2018 (arXiv 1810.04805).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from epochal.core.specs import Classes, Frames, Images, Numbers, Series, StepLabels, Tokens
from epochal.models.common.attention import Encoder, add_positions, padding_mask
from epochal.models.common.layers import FrameEncoder, check_choice, check_dropout, check_sizes


class TransformerEncoder(nn.Module):
    """Steps embedded, sinusoids added, depth encoder layers, and a linear layer on top.

        tokens (B, T)             a vector for each
        series (B, T, channels)   a linear layer at each step
        films  (B, T, C, H, W)    a small convolutional network at each picture, see `layers.FrameEncoder`
        images (B, C, H, W)       a linear layer at each row or pixel

        -> (B, T, embed_dim) -> depth x (attention, perceptron) -> (B, T, embed_dim) -> each step, or one for all

    Weights start uniform as Xavier's, vectors of tokens from N(0, 1 / embed_dim), biases at zero.

    Deviations from BERT: sinusoidal positions, ReLU, and the mean of the steps instead of a class token's output.

    Args:
        in_features: Numbers in one step: channels of a series, C x W or C of an image; None for tokens and films.
        vocab_size: Number of tokens; None for anything else.
        frame_shape: (C, H, W) of a film's picture; None for anything else.
        out_features: Length of the output: classes or numbers.
        each_step: Whether every step has an output, or there is one for all.
        scan: What a step of an image is: "rows" or "pixels".
        depth: Number of layers.
        embed_dim: Numbers in the vector of a step.
        num_heads: Attention heads of a layer; must divide embed_dim.
        feedforward_dim: Width of the perceptron.
        pre_norm: Norms before the sublayers and one at the end, not after the sums as published.
        causal: A step sees itself and those before it alone, as in a recurrent network.
        pool: What one output for all is read off: the "mean" of the steps, or the "last" of them.
        dropout: Share zeroed in training, of the embeddings and of what each sublayer adds.

    Raises:
        ValueError: If a size is below 1, num_heads does not divide embed_dim, dropout is not in [0, 1), scan or pool no
            choice, or not exactly one of in_features, vocab_size and frame_shape is given.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "sequence_labeling", "regression")
    reads: ClassVar[tuple[type, ...]] = (Tokens, Series, Frames, Images)

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
        check_dropout(dropout)
        check_choice("scan", scan, ("rows", "pixels"))
        check_choice("pool", pool, ("mean", "last"))
        self.each_step, self.scan, self.causal, self.pool = each_step, scan, causal, pool
        self.scale = 1.0
        self.embed: nn.Module
        match in_features, vocab_size, frame_shape:
            case int(), None, None:
                check_sizes(in_features=in_features)
                self.embed = nn.Linear(in_features, embed_dim)
                nn.init.xavier_uniform_(self.embed.weight)
                nn.init.zeros_(self.embed.bias)
            case None, int(), None:
                check_sizes(vocab_size=vocab_size)
                self.scale = math.sqrt(embed_dim)
                self.embed = nn.Embedding(vocab_size, embed_dim)
                nn.init.normal_(self.embed.weight, std=1 / self.scale)
            case None, None, (channels, height, width):
                self.embed = FrameEncoder(channels, height, width, embed_dim)
            case _:
                raise ValueError(
                    "Give one of in_features (for series and images), vocab_size (text), frame_shape (films)."
                )
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
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

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
        """A sequence or image to (B, out_features), or to (B, T, out_features) with each_step.

        Args:
            inputs: (B, T) tokens, (B, T, channels), (B, T, C, H, W) or an image (B, C, H, W); padded on the right.
            lengths: Steps of each row that are not padding (B,); None: all.
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
            return x[torch.arange(len(x), device=x.device), lengths - 1]
        real = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # (B, T)
        return x.masked_fill(~real[..., None], 0.0).sum(dim=1) / lengths[:, None]

    @property
    def shows_state_gradients(self) -> bool:
        """Whether `state_gradients` has an answer."""
        return not self.each_step

    def state_gradients(
        self, inputs: Tensor, loss: Callable[[Tensor], Tensor], lengths: Tensor | None = None
    ) -> Tensor:  # -> (T,)
        """How much each step matters for the loss: || dL / d embedding of the step ||, mean over examples.

        A Transformer hands no state from step to step; what is said of a step goes straight to all others.

        Args:
            inputs, lengths: As of `forward`.
            loss: Of the output (B, out_features), a sum over examples.

        Raises:
            ValueError: If each step has an output, and so a loss, of its own.
        """
        if not self.shows_state_gradients:
            raise ValueError("State gradients are those of a network that gives one answer for a whole sequence.")
        steps = self._steps(inputs).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(self._answer(steps, lengths)), steps)  # (B, T, C)
        return gradient.norm(dim=2).mean(dim=0)
