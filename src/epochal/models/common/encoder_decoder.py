"""What networks that read one sequence and write another have in common: generation and attention weights."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from epochal.models.common import beam_search
from epochal.models.common.layers import evaluating


class EncoderDecoder(nn.Module):
    """Base class of encoder-decoders, see `core.protocols.EncoderDecoder`."""

    @abstractmethod
    def encode(self, source: Tensor, lengths: Tensor | None = None) -> Any:
        """Encodes the source (B, S), or images (B, C, H, W) -> the state that `decode` starts from, batch first."""

    @abstractmethod
    def decode(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The newest token of each target (B,) -> logits of the next (B, V), and the new state."""

    @abstractmethod
    def attention_weights(self, source: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor | None:
        """As `attention`, with gradients and in the mode that the network is in."""

    def generate(
        self,
        source: Tensor,
        lengths: Tensor | None = None,
        *,
        max_length: int,
        beam_size: int = 1,
        length_penalty: float = 0.0,
    ) -> Tensor:  # (B, S) -> (B, T)
        """Generates a target for each source; see `beam_search.generate`."""
        return beam_search.generate(
            self, source, lengths, max_length=max_length, beam_size=beam_size, length_penalty=length_penalty
        )

    @torch.no_grad()
    def attention(self, source: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor | None:
        """The weights of attention from the target to the source, without dropout; None if there is no such attention.

        (B, S), (B, T) -> (B, T, S), or (B, T, rows, columns) on an image; those of each target step sum to 1.
        """
        with evaluating(self):
            return self.attention_weights(source, target, lengths)
