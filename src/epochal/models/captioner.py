"""Image captioning: a convolutional encoder, and a recurrent or Transformer decoder that attends to it.

Vinyals, Toshev, Bengio, Erhan: Show and Tell: A Neural Image Caption Generator, 2015 (arXiv 1411.4555).
Xu et al.: Show, Attend and Tell: Neural Image Caption Generation with Visual Attention, 2015 (arXiv 1502.03044).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from epochal.core.checks import OnlyWith, check_choice, check_fraction, check_sizes
from epochal.core.specs import Images, Tokens
from epochal.models.common.attention import Decoder, add_positions
from epochal.models.common.encoder_decoder import EncoderDecoder
from epochal.models.common.old_names import TRANSFORMER_LAYERS
from epochal.models.common.recurrent_decoder import CELLS, RecurrentDecoder

State = dict[str, Any]  # what a decoder keeps from token to token; batch first


class ImageEncoder(nn.Sequential):
    """An image as a grid of vectors: `stages` times a 3x3 convolution, batch norm, ReLU and 2x2 max pooling.

    The first convolution has `channels` and each later one twice as many; a 1x1 convolution projects to embed_dim.
    """

    def __init__(self, *, in_channels: int, channels: int, stages: int, embed_dim: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(stages):
            layers += [nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
            in_channels, channels = channels, 2 * channels
        super().__init__(*layers, nn.Conv2d(in_channels, embed_dim, 1))


class RecurrentTextDecoder(nn.Module):
    """The initial state is a linear layer of the grid's mean, and each state attends to the grid."""

    def __init__(self, *, vocab_size: int, cell: str, attention: str, embed_dim: int, depth: int, dropout: float):
        super().__init__()
        self.depth = depth
        self.init_hidden = nn.Linear(embed_dim, depth * embed_dim)
        self.init_cell = nn.Linear(embed_dim, depth * embed_dim) if cell == "lstm" else None
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
        return self.decoder(target, self.initial_state(grid))[0]

    def initial_state(self, grid: Tensor) -> State:
        mean = grid.mean(dim=1)
        start = [
            layer(mean).unflatten(1, (self.depth, -1))
            for layer in (self.init_hidden, self.init_cell)
            if layer is not None
        ]
        return self.decoder.initial_state((start[0].tanh(), *start[1:]), grid)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:  # (B,) -> (B, vocab_size)
        logits, state = self.decoder(tokens[:, None], state)
        return logits[:, 0], state

    def weights(self, target: Tensor, grid: Tensor) -> Tensor:  # (B, T), (B, S, C) -> (B, T, S)
        weights = self.decoder.weights(target, self.initial_state(grid))
        assert weights is not None  # RecurrentDecoder always has attention here
        return weights


class TransformerTextDecoder(nn.Module):
    """Each step attends to the steps before it and to the grid."""

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

    def initial_state(self, grid: Tensor) -> State:
        return {"position": 0, "layers": self.decoder.initial_state(grid)}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:  # (B,) -> (B, vocab_size)
        x = self.decoder.step(self._embed(tokens[:, None], state["position"]), state["layers"])
        return self.head(x[:, 0]), {**state, "position": state["position"] + 1}

    def weights(self, target: Tensor, grid: Tensor) -> Tensor:  # (B, T), (B, S, C) -> (B, T, S)
        return self.decoder.weights(self._embed(target), grid)

    def _embed(self, tokens: Tensor, start: int = 0) -> Tensor:  # (B, T) -> (B, T, C)
        return self.dropout(add_positions(self.embed(tokens) * math.sqrt(self.embed.embedding_dim), start))


class Captioner(EncoderDecoder):
    """The decoder attends to a grid of image features while it generates a caption.

        image (B, C, H, W)   convolutions -> grid (B, h * w, embed_dim), plus a learned embedding of each position
        target (B, T)        decoder, which attends to the grid -> (B, T, vocab_size)

    decoder="recurrent" is Show, Attend and Tell with soft attention; decoder="transformer" is the decoder of Vaswani et
    al. 2017 (arXiv 1706.03762).

    Deviations from the papers: a small convolutional network, trained with the rest (theirs was pretrained on ImageNet
    and at first frozen); a learned position embedding of each place in the grid, without which a decoder could not read
    from left to right; attention after the recurrent layers (see `RecurrentDecoder`); the initial state is one linear
    layer of the grid's mean; neither doubly stochastic attention nor a gate on the context vector.

    Args:
        in_channels: 1 for grey, 3 for colour images.
        image_size: Height and width in pixels.
        vocab_size: Number of tokens.
        decoder: "recurrent" or "transformer".
        cell: Of the recurrent decoder: "rnn", "lstm" or "gru".
        attention: Of the recurrent decoder: "additive" or "dot".
        channels: Of the first convolution; each later one has twice as many.
        stages: Number of convolutions; each is followed by pooling that halves height and width.
        embed_dim: Length of the vectors of the grid, of the tokens and of the decoder's states.
        depth: Number of layers of the decoder.
        num_heads: Attention heads of the Transformer decoder; must divide embed_dim.
        dropout: Fraction zeroed in training, in the decoder.

    Raises:
        ValueError: If a size is below 1, num_heads does not divide embed_dim, dropout is not in [0, 1), an argument is
            none of its choices, or pooling leaves nothing of the image.
    """

    heads: ClassVar[tuple[str, ...]] = ("target_text",)
    reads: ClassVar[tuple[type, ...]] = (Images,)
    only_with: ClassVar = {
        **{name: (OnlyWith("decoder", ("recurrent",)),) for name in ("cell", "attention")},
        "num_heads": (OnlyWith("decoder", ("transformer",)),),
    }
    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = (
        *TRANSFORMER_LAYERS,
        (r"^sight\.", "image_encoder."),
        (r"^writer\.start\.", "text_decoder.init_hidden."),
        (r"^writer\.cells\.", "text_decoder.init_cell."),
        (r"^writer\.", "text_decoder."),
    )

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
        check_fraction("dropout", dropout)
        height, width = image_size
        self.grid = (height // 2**stages, width // 2**stages)
        if min(self.grid) < 1:
            most = min(image_size).bit_length() - 1
            raise ValueError(
                f"stages={stages} halves images of {height}x{width} pixels to nothing; {most} are the most."
            )
        self.image_encoder = ImageEncoder(
            in_channels=in_channels, channels=channels, stages=stages, embed_dim=embed_dim
        )
        self.position = nn.Parameter(torch.randn(self.grid[0] * self.grid[1], embed_dim))
        common: dict[str, Any] = {"vocab_size": vocab_size, "embed_dim": embed_dim, "depth": depth, "dropout": dropout}
        self.text_decoder: RecurrentTextDecoder | TransformerTextDecoder
        if decoder == "recurrent":
            self.text_decoder = RecurrentTextDecoder(**common, cell=cell, attention=attention)
        else:
            self.text_decoder = TransformerTextDecoder(**common, num_heads=num_heads)

    @classmethod
    def for_data(cls, inputs: Images, outputs: Tokens, **config: Any) -> Captioner:
        image_size = (inputs.height, inputs.width)
        return cls(in_channels=inputs.channels, image_size=image_size, vocab_size=outputs.vocab_size, **config)

    def forward(self, images: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of the token after each step of the target: (B, C, H, W), (B, T) -> (B, T, vocab_size).

        Args:
            images: Of the image_size that was given.
            target: Token ids, padded on the right.
            lengths: Not used, since images have none; here because every encoder-decoder takes it.
        """
        return self.text_decoder(target, self._grid(images))

    def _grid(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, h * w, embed_dim)
        return self.image_encoder(images).flatten(2).transpose(1, 2) + self.position

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> State:
        return self.text_decoder.initial_state(self._grid(source))

    def decode(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        return self.text_decoder.step(tokens, state)

    def attention_weights(self, source: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Of the last layer, mean over heads, (B, T, rows, columns)."""
        return self.text_decoder.weights(target, self._grid(source)).unflatten(-1, self.grid)
