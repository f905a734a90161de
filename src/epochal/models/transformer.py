"""The Transformer: an encoder-decoder in which steps exchange information by attention alone.

Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin: Attention Is All You Need, 2017
(arXiv 1706.03762).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import check_choice, check_fraction, check_sizes
from epochal.core.specs import Tokens
from epochal.models.common.attention import Decoder, Encoder, add_positions, padding_mask
from epochal.models.common.encoder_decoder import EncoderDecoder
from epochal.models.common.old_names import TRANSFORMER_LAYERS

# base and big are table 3's, with 65 and 213 million parameters for 37,000 tokens; small is ours, for a CPU and about
# ten thousand pairs of sentences
VARIANTS: dict[str, dict[str, Any]] = {
    "small": {"depth": 3, "embed_dim": 256, "num_heads": 4, "feedforward_dim": 512, "dropout": 0.1},
    "base": {"depth": 6, "embed_dim": 512, "num_heads": 8, "feedforward_dim": 2048, "dropout": 0.1},
    "big": {"depth": 6, "embed_dim": 1024, "num_heads": 16, "feedforward_dim": 4096, "dropout": 0.3},
}


class Transformer(EncoderDecoder):
    """Encoder and decoder of depth layers each, as published: post-normalisation, one matrix for all embeddings.

        source (B, S)   embedding * sqrt(C) + positions -> depth x (self-attention, feed-forward)
        target (B, T)   embedding * sqrt(C) + positions -> depth x (self-attention, cross-attention, feed-forward)
                        -> (B, T, C) -> the embedding's matrix -> (B, T, vocab_size)

    Each of the three attentions can be left out, together with its norm and residual connection. Without
    cross-attention the decoder gets nothing from the source, and there is no encoder: what remains is a language model
    of the target. Without self-attention in the decoder a step depends on the token before it and the source, but on no
    other token of the target.

    Weights start Xavier-uniform, embeddings from N(0, 1 / C), biases at zero; the paper says nothing about it (this is
    the initialisation of its authors' tensor2tensor). Deviations from the paper: none.

    Args:
        source_vocab_size, target_vocab_size: Numbers of tokens.
        variant: Row of VARIANTS: "small", "base" or "big".
        depth, embed_dim, num_heads, feedforward_dim, dropout: Instead of the variant's: layers of encoder and decoder
            each, width C of the embeddings, attention heads (must divide embed_dim), width of the feed-forward
            network's hidden layer, fraction zeroed in training of the embeddings and of each sublayer's output.
        pre_norm: Layer norm before each sublayer and one at the end, which is easier to train without a warm-up.
        tie: One matrix embeds source and target and is the output layer; needs one vocabulary for both.
        without: Which attention is left out: "none"; the self-attention of the "source" or of the "target"; or "cross".

    Raises:
        ValueError: If a size is below 1, num_heads does not divide embed_dim, dropout is not in [0, 1), variant or
            without is none of its choices, or vocabularies of different sizes are to be tied.
    """

    heads: ClassVar[tuple[str, ...]] = ("target_text",)
    reads: ClassVar[tuple[type, ...]] = (Tokens,)
    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = TRANSFORMER_LAYERS

    def __init__(
        self,
        *,
        source_vocab_size: int,
        target_vocab_size: int,
        variant: str = "base",
        depth: int | None = None,
        embed_dim: int | None = None,
        num_heads: int | None = None,
        feedforward_dim: int | None = None,
        dropout: float | None = None,
        pre_norm: bool = False,
        tie: bool = True,
        without: str = "none",
    ) -> None:
        super().__init__()
        check_choice("variant", variant, tuple(VARIANTS))
        check_choice("without", without, ("none", "source", "target", "cross"))
        given = {"depth": depth, "embed_dim": embed_dim, "num_heads": num_heads, "feedforward_dim": feedforward_dim}
        sizes = {name: VARIANTS[variant][name] if size is None else size for name, size in given.items()}
        dropout = VARIANTS[variant]["dropout"] if dropout is None else dropout
        check_sizes(source_vocab_size=source_vocab_size, target_vocab_size=target_vocab_size, **sizes)
        check_fraction("dropout", dropout)
        if tie and source_vocab_size != target_vocab_size:
            raise ValueError(
                f"tie=true needs one vocabulary for source and target, but they have {source_vocab_size:,} and "
                f"{target_vocab_size:,} tokens; take model.tie=false."
            )
        self.tied, self.sees_source = tie, without != "cross"
        layer: dict[str, Any] = {**sizes, "dropout": dropout, "pre_norm": pre_norm}
        self.embed = self._embedding(target_vocab_size, sizes["embed_dim"])
        self.dropout = nn.Dropout(dropout)
        if self.sees_source:
            if not tie:
                self.source_embed = self._embedding(source_vocab_size, sizes["embed_dim"])
            self.encoder = Encoder(**layer, attention=without != "source")
        self.decoder = Decoder(**layer, self_attention=without != "target", cross_attention=self.sees_source)
        if not tie:
            self.output = self._embedding(target_vocab_size, sizes["embed_dim"])

    @staticmethod
    def _embedding(vocab_size: int, embed_dim: int) -> nn.Embedding:
        embedding = nn.Embedding(vocab_size, embed_dim)
        nn.init.normal_(embedding.weight, std=embed_dim**-0.5)
        return embedding

    @classmethod
    def for_data(cls, inputs: Tokens, outputs: Tokens, **config: Any) -> Transformer:
        return cls(source_vocab_size=inputs.vocab_size, target_vocab_size=outputs.vocab_size, **config)

    def forward(self, source: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of the token after each step of the target: (B, S), (B, T) -> (B, T, target_vocab_size).

        Args:
            source, target: Token ids, padded on the right.
            lengths: Number of tokens of each source that are not padding (B,); None: all.
        """
        memory, mask = self._read(source, lengths)
        return self._logits(self.decoder(self._embed(target, self.embed), memory, mask))

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> dict[str, Any]:
        memory, mask = self._read(source, lengths)
        state = {"position": 0, "layers": self.decoder.initial_state(memory)}
        return state if mask is None else {**state, "mask": mask}

    def decode(self, tokens: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        x = self._embed(tokens[:, None], self.embed, state["position"])
        x = self.decoder.step(x, state["layers"], state.get("mask"))
        return self._logits(x[:, 0]), {**state, "position": state["position"] + 1}

    def attention_weights(self, source: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor | None:
        """Of the last layer, mean over heads, (B, T, S)."""
        if not self.sees_source:
            return None
        memory, mask = self._read(source, lengths)
        return self.decoder.weights(self._embed(target, self.embed), memory, mask)

    def _read(self, source: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The encoder's output (B, S, C), or (B, 0, C) without cross-attention, and its padding mask."""
        if not self.sees_source:
            return self.embed.weight.new_empty(source.shape[0], 0, self.embed.embedding_dim), None
        mask = padding_mask(lengths, source.shape[1])
        return self.encoder(self._embed(source, self.embed if self.tied else self.source_embed), mask), mask

    def _embed(self, tokens: Tensor, embedding: nn.Embedding, start: int = 0) -> Tensor:  # (B, T) -> (B, T, C)
        return self.dropout(add_positions(embedding(tokens) * math.sqrt(embedding.embedding_dim), start))

    def _logits(self, x: Tensor) -> Tensor:  # (..., C) -> (..., target_vocab_size)
        return F.linear(x, (self.embed if self.tied else self.output).weight)
