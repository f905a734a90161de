"""Captioner: a convolutional network sees an image, a recurrent network or a Transformer's decoder tells what is in it.

Vinyals, Toshev, Bengio, Erhan: Show and Tell: A Neural Image Caption Generator, 2015 (arXiv 1411.4555).
Xu et al.: Show, Attend and Tell: Neural Image Caption Generation with Visual Attention, 2015 (arXiv 1502.03044).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from epochal.core.specs import Images, Tokens
from epochal.models.common import beam_search
from epochal.models.common.attention import Decoder, add_positions
from epochal.models.common.layers import check_choice, check_dropout, check_sizes
from epochal.models.common.recurrent_decoder import CELLS, RecurrentDecoder

State = dict[str, Any]  # what a writer keeps from token to token; batch first


class Sight(nn.Sequential):
    """An image as a grid of vectors: `stages` times a 3x3 convolution, batch norm, ReLU and halved sides.

    The first has `channels` and each later one twice as many; a 1x1 convolution makes embed_dim of them.
    """

    def __init__(self, *, in_channels: int, channels: int, stages: int, embed_dim: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(stages):
            layers += [nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
            in_channels, channels = channels, 2 * channels
        super().__init__(*layers, nn.Conv2d(in_channels, embed_dim, 1))


class RecurrentWriter(nn.Module):
    """The mean of the grid makes the first state, and each state looks at the grid."""

    def __init__(self, *, vocab_size: int, cell: str, attention: str, embed_dim: int, depth: int, dropout: float):
        super().__init__()
        self.depth = depth
        self.start = nn.Linear(embed_dim, depth * embed_dim)
        self.cells = nn.Linear(embed_dim, depth * embed_dim) if cell == "lstm" else None
        self.decoder = RecurrentDecoder(
            vocab_size=vocab_size,
            cell=cell,
            attention=attention,
            embed_dim=embed_dim,
            hidden_size=embed_dim,
            num_layers=depth,
            dropout=dropout,
        )

    def forward(self, target: Tensor, grid: Tensor) -> Tensor:  # (B, T), (B, S, C) -> (B, T, vocab_size)
        return self.decoder(target, self.begin(grid))[0]

    def begin(self, grid: Tensor) -> State:
        mean = grid.mean(dim=1)
        start = [layer(mean).unflatten(1, (self.depth, -1)) for layer in (self.start, self.cells) if layer is not None]
        return self.decoder.begin((start[0].tanh(), *start[1:]), grid)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:  # (B,) -> (B, vocab_size)
        logits, state = self.decoder(tokens[:, None], state)
        return logits[:, 0], state

    def weights(self, target: Tensor, grid: Tensor) -> Tensor:  # (B, T), (B, S, C) -> (B, T, S)
        weights = self.decoder.weights(target, self.begin(grid))
        assert weights is not None  # it always has attention here
        return weights


class TransformerWriter(nn.Module):
    """Each step looks at those before it and at the grid."""

    def __init__(self, *, vocab_size: int, embed_dim: int, depth: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, embed_dim)
        nn.init.normal_(self.embed.weight, std=embed_dim**-0.5)
        self.dropout = nn.Dropout(dropout)
        self.decoder = Decoder(
            depth=depth, embed_dim=embed_dim, num_heads=num_heads, feedforward_dim=4 * embed_dim, dropout=dropout
        )
        self.head = nn.Linear(embed_dim, vocab_size)

    def forward(self, target: Tensor, grid: Tensor) -> Tensor:  # (B, T), (B, S, C) -> (B, T, vocab_size)
        return self.head(self.decoder(self._embed(target), grid))

    def begin(self, grid: Tensor) -> State:
        return {"position": 0, "layers": self.decoder.begin(grid)}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:  # (B,) -> (B, vocab_size)
        x, layers = self.decoder.step(self._embed(tokens[:, None], state["position"]), state["layers"])
        return self.head(x[:, 0]), {"position": state["position"] + 1, "layers": layers}

    def weights(self, target: Tensor, grid: Tensor) -> Tensor:  # (B, T), (B, S, C) -> (B, T, S)
        return self.decoder.weights(self._embed(target), grid)

    def _embed(self, tokens: Tensor, start: int = 0) -> Tensor:  # (B, T) -> (B, T, C)
        return self.dropout(add_positions(self.embed(tokens) * math.sqrt(self.embed.embedding_dim), start))


class Captioner(nn.Module):
    """Looks at a grid of the image while it writes.

        image (B, C, H, W)   convolutions -> grid (B, h * w, embed_dim), to each place a vector of its own is added
        target (B, T)        decoder, which attends the grid -> (B, T, vocab_size)

    decoder: recurrent is Show, Attend and Tell with soft attention; decoder: transformer is that of Vaswani et al. 2017
    (arXiv 1706.03762).

    Deviations from the papers: the convolutions are a few, and learn with the rest (theirs had learned from ImageNet,
    and were left as they were at first); a place in the grid has a learned position, without which a decoder could not
    read from left to right; the attention stands after the recurrent layers (see `RecurrentDecoder`); the first state
    is one linear layer of the grid's mean; neither doubly stochastic attention nor a gate on what is looked at.

    Args:
        in_channels: 1 for grey, 3 for colour images.
        image_size: Their height and width.
        vocab_size: Tokens it may write.
        decoder: "recurrent" or "transformer".
        cell: Of the recurrent decoder: "rnn", "lstm" or "gru".
        attention: Of the recurrent decoder: "additive" or "dot".
        channels: Of the first convolution; each later one has twice as many.
        stages: Convolutions; each halves height and width.
        embed_dim: Numbers in the vector of a place, of a token and in a decoder's state.
        depth: Layers of the decoder.
        num_heads: Attention heads of the Transformer's decoder; must divide embed_dim.
        dropout: Share zeroed in training, in the decoder.

    Raises:
        ValueError: If a size is below 1, num_heads does not divide embed_dim, dropout is not in [0, 1), a choice is
            none, or the image is too small to be halved so often.
    """

    tasks: ClassVar[tuple[str, ...]] = ("captioning",)
    reads: ClassVar[tuple[type, ...]] = (Images,)

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        vocab_size: int,
        decoder: str = "recurrent",
        cell: str = "lstm",
        attention: str = "additive",
        channels: int = 16,
        stages: int = 3,
        embed_dim: int = 128,
        depth: int = 1,
        num_heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, vocab_size=vocab_size, channels=channels, stages=stages)
        check_sizes(embed_dim=embed_dim, depth=depth, num_heads=num_heads)
        check_choice("decoder", decoder, ("recurrent", "transformer"))
        check_choice("cell", cell, tuple(CELLS))
        check_choice("attention", attention, ("additive", "dot"))
        check_dropout(dropout)
        height, width = image_size
        self.grid = (height // 2**stages, width // 2**stages)
        if min(self.grid) < 1:
            most = min(image_size).bit_length() - 1
            raise ValueError(
                f"stages={stages} halves images of {height}x{width} pixels to nothing; {most} are the most."
            )
        self.sight = Sight(in_channels=in_channels, channels=channels, stages=stages, embed_dim=embed_dim)
        self.position = nn.Parameter(torch.randn(self.grid[0] * self.grid[1], embed_dim))
        common: dict[str, Any] = {"vocab_size": vocab_size, "embed_dim": embed_dim, "depth": depth, "dropout": dropout}
        self.writer: RecurrentWriter | TransformerWriter
        if decoder == "recurrent":
            self.writer = RecurrentWriter(**common, cell=cell, attention=attention)
        else:
            self.writer = TransformerWriter(**common, num_heads=num_heads)

    @classmethod
    def for_data(cls, inputs: Images, outputs: Tokens, **config: Any) -> Captioner:
        image_size = (inputs.height, inputs.width)
        return cls(in_channels=inputs.channels, image_size=image_size, vocab_size=outputs.vocab_size, **config)

    def forward(self, images: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The next token after each step of the target: (B, C, H, W), (B, T) -> (B, T, vocab_size).

        Args:
            images: Of the size it was made for.
            target: Token ids, padded on the right.
            lengths: Images have none; it stands here because every network that writes takes it.
        """
        return self.writer(target, self._see(images))

    def _see(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, h * w, embed_dim)
        return self.sight(images).flatten(2).transpose(1, 2) + self.position

    def encode(self, images: Tensor, lengths: Tensor | None = None) -> State:
        """Sees the images once; what `decode` needs of them, batch first."""
        return self.writer.begin(self._see(images))

    def decode(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The next token after one more of the target: (B,) -> (B, vocab_size)."""
        return self.writer.step(tokens, state)

    def generate(
        self,
        images: Tensor,
        lengths: Tensor | None = None,
        *,
        max_length: int,
        beam_size: int = 1,
        length_penalty: float = 0.0,
    ) -> Tensor:  # (B, C, H, W) -> (B, T)
        """Writes a caption for each image; see `beam_search.generate`."""
        return beam_search.generate(
            self, images, lengths, max_length=max_length, beam_size=beam_size, length_penalty=length_penalty
        )

    @torch.no_grad()
    def attention(self, images: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """How much of each place each step takes, in the last layer, mean over heads: -> (B, T, h, w).

        The places of a step sum to 1; without dropout.
        """
        was_training = self.training
        self.eval()
        weights = self.writer.weights(target, self._see(images))
        self.train(was_training)
        return weights.unflatten(-1, self.grid)
