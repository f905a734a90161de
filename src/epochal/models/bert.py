"""BERT: a Transformer encoder, pretrained on the words that are hidden in a text and then fine-tuned.

Devlin, Chang, Lee, Toutanova: BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding, 2018
(arXiv 1810.04805). Sizes below base: Turc et al.: Well-Read Students Learn Better, 2019 (arXiv 1908.08962).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import check_choice, check_fraction, check_heads, check_sizes
from epochal.core.specs import Outputs, Tokens
from epochal.models.common.attention import FEEDFORWARDS, Block, padding_mask
from epochal.models.common.causal import check_context, sizes_for, with_variant

SEGMENTS = 2  # the first and the second text of a pair
# base and large are the paper's, with 109 and 335 million parameters for vocab_size=30522 and context_length=512
VARIANTS: dict[str, dict[str, int]] = {
    "tiny": {"depth": 2, "embed_dim": 128, "num_heads": 2},
    "mini": {"depth": 4, "embed_dim": 256, "num_heads": 4},
    "small": {"depth": 4, "embed_dim": 512, "num_heads": 8},
    "medium": {"depth": 8, "embed_dim": 512, "num_heads": 8},
    "base": {"depth": 12, "embed_dim": 768, "num_heads": 12},
    "large": {"depth": 24, "embed_dim": 1024, "num_heads": 16},
}


class MaskedTokenHead(nn.Module):
    """A linear layer with the GELU of the blocks and layer norm; then the matrix of the token embedding (tied weights) and a
    bias."""

    def __init__(self, *, embed_dim: int, vocab_size: int, eps: float, next_sentence: bool, feedforward: str) -> None:
        super().__init__()
        self.activation = FEEDFORWARDS[feedforward][0]
        self.transform = nn.Linear(embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim, eps=eps)
        self.bias = nn.Parameter(Tensor(vocab_size))
        self.next_sentence = nn.Linear(embed_dim, 2) if next_sentence else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # (..., C), (V, C) -> (..., V)
        return F.linear(self.norm(self.activation(self.transform(x))), embedding, self.bias)


class BERT(nn.Module):
    """Token, position and segment embeddings, layer norm, depth blocks with post-normalisation, and a head.

        tokens (B, T) -> (B, T, C) -> masked_token              (B, T, vocab_size)
                                      step_classes              (B, T, num_outputs)
                           pooler  -> classes, numbers, scalar  (B, num_outputs), of scalar (B,)

    Every token attends to all that are not padding. The pooler is a linear layer with tanh of the first token's state;
    a network without need of it has none. The output layers are `head`.

    Weights start from N(0, 0.02), cut off at two standard deviations, biases at zero. Deviations from the paper: none.

    Args:
        vocab_size: Number of tokens.
        context_length: Maximum number of tokens that it reads at once.
        head: One of `heads`.
        num_outputs: Classes or numbers of a head that has them.
        next_sentence: With head="masked_token": also whether the second segment follows the first, logits (B, 2) of
            (yes, no).
        variant: Row of VARIANTS: "tiny", "mini", "small", "medium", "base" or "large".
        depth, embed_dim, num_heads: Instead of the variant's: number of blocks, width C of the embeddings, attention heads
            of a block, which must divide it.
        feedforward: Activation of the blocks: "gelu" or "gelu_tanh".
        feedforward_dim: Width of the feed-forward networks' hidden layer; None: 4 C.
        eps: What norms add to the variance.
        dropout: Fraction zeroed in training of embeddings, attention weights, the outputs of attention and feed-forward
            network, and what a head for classes or numbers reads.

    Raises:
        ValueError: If a size is below 1, num_heads does not divide embed_dim, an argument is none of its choices, dropout
            is not in [0, 1), or next_sentence is asked of another head.
    """

    heads: ClassVar[tuple[str, ...]] = ("masked_token", "classes", "step_classes", "numbers", "scalar")
    reads: ClassVar[tuple[type, ...]] = (Tokens,)
    head_parameters: ClassVar[tuple[str, ...]] = ("head.", "pooler.")
    # of these what another task goes on with, where the weights have it
    kept_parameters: ClassVar[tuple[str, ...]] = ("pooler.",)

    def __init__(
        self,
        *,
        vocab_size: int,
        context_length: int,
        head: str = "masked_token",
        num_outputs: int | None = None,
        next_sentence: bool = False,
        variant: str = "tiny",
        depth: int | None = None,
        embed_dim: int | None = None,
        num_heads: int | None = None,
        feedforward: str = "gelu",
        feedforward_dim: int | None = None,
        eps: float = 1e-12,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = with_variant(VARIANTS, variant, {"depth": depth, "embed_dim": embed_dim, "num_heads": num_heads})
        width = sizes["embed_dim"]
        check_sizes(vocab_size=vocab_size, context_length=context_length, **sizes)
        check_fraction("dropout", dropout)
        check_heads(sizes["num_heads"], width)
        check_choice("head", head, self.heads)
        check_choice("feedforward", feedforward, ("gelu", "gelu_tanh"))
        if next_sentence and head != "masked_token":
            raise ValueError(f"next_sentence=true goes with head=masked_token, not with head={head}.")
        self.context_length, self.head_name = context_length, head
        self.embed = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(context_length, width)
        self.segment = nn.Embedding(SEGMENTS, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                embed_dim=width,
                num_heads=sizes["num_heads"],
                feedforward=feedforward,
                feedforward_dim=4 * width if feedforward_dim is None else feedforward_dim,
                eps=eps,
                dropout=dropout,
                pre_norm=False,
            )
            for _ in range(sizes["depth"])
        )
        pooled = next_sentence or head in ("classes", "numbers", "scalar")
        self.pooler = nn.Linear(width, width) if pooled else None
        masked = {"eps": eps, "next_sentence": next_sentence, "feedforward": feedforward}
        self.head = self._make_head(width, vocab_size, num_outputs, masked)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def _make_head(self, width: int, vocab_size: int, num_outputs: int | None, masked: dict[str, Any]) -> nn.Module:
        if self.head_name == "masked_token":
            return MaskedTokenHead(embed_dim=width, vocab_size=vocab_size, **masked)
        num_outputs = 1 if self.head_name == "scalar" else num_outputs
        if num_outputs is None:
            raise ValueError(f"head={self.head_name} needs num_outputs, the number of its outputs.")
        check_sizes(num_outputs=num_outputs)
        return nn.Linear(width, num_outputs)

    @classmethod
    def for_data(
        cls,
        inputs: Tokens,
        outputs: Outputs,
        *,
        head: str = "masked_token",
        context_length: int | None = None,
        **config: Any,
    ) -> BERT:
        return cls(**sizes_for(inputs, outputs, head, context_length), **config)

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor | None = None,
        segments: Tensor | None = None,
        *,
        at: Tensor | None = None,
    ) -> Any:
        """(B, T) -> what the head returns; with next_sentence a pair, of the masked tokens' logits and logits (B, 2).

        Args:
            tokens: Padded on the right.
            lengths: Number of tokens of each row that are not padding (B,); None: all.
            segments: 0 for tokens of the first text, 1 for those of the second (B, T); None: all 0.
            at: True where a masked token is to be predicted (B, T): logits of these N places alone, (N, vocab_size), row by
                row, which saves most of the head's work.
        """
        x = self.states(tokens, lengths, segments)
        if isinstance(self.head, MaskedTokenHead):
            logits = self.head(x if at is None else x[at], self.embed.weight)
            follows = self.head.next_sentence
            return logits if follows is None else (logits, follows(self._pooled(x)))
        x = self.head(self.dropout(x if self.head_name == "step_classes" else self._pooled(x)))
        return x[:, 0] if self.head_name == "scalar" else x

    def states(self, tokens: Tensor, lengths: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """What the body computes of each token, (B, T) -> (B, T, C); the state of padding means nothing."""
        steps = tokens.shape[1]
        check_context(steps, self.context_length)
        segment = self.segment.weight[0] if segments is None else self.segment(segments)
        x = self.dropout(self.norm(self.embed(tokens) + segment + self.position.weight[:steps]))
        mask = padding_mask(lengths, steps)
        for block in self.blocks:
            x = block(x, mask=mask)
        return x

    def _pooled(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, C)
        assert self.pooler is not None
        return self.pooler(x[:, 0]).tanh()
