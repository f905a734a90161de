"""Encoder and decoder: one recurrent network reads a sequence into a vector, another writes a sequence from it.

Sutskever, Vinyals, Le: Sequence to Sequence Learning with Neural Networks, 2014 (arXiv 1409.3215).
Cho et al.: Learning Phrase Representations using RNN Encoder-Decoder, 2014 (arXiv 1406.1078).
Attention: Bahdanau et al. 2015 (arXiv 1409.0473), Luong et al. 2015 (arXiv 1508.04025); see `recurrent_decoder.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from epochal.core.specs import Tokens
from epochal.models.common import beam_search
from epochal.models.common.layers import check_choice, check_dropout, check_sizes
from epochal.models.common.recurrent_decoder import CELLS, RecurrentDecoder, State, batch_first


class Seq2Seq(nn.Module):
    """What the encoder's layers remember at the end of the source is what the decoder's layers begin with.

        source (B, S)   embedding -> recurrent layers -> their last states: the context vector
        target (B, T)   embedding -> recurrent layers, from those states -> [attention] -> (B, T, target_vocab_size)

    Without attention these states are all that the decoder knows of the source. With it, the decoder also looks at the
    encoder's state at every token of the source.

    Deviations from the papers: the attention stands after the decoder's layers and nothing of it goes back into them
    (see `RecurrentDecoder`); each direction of a bidirectional encoder has half of hidden_size, so that both together
    begin the decoder without further weights (Bahdanau et al. have hidden_size each, and a layer that makes the
    decoder's first state); weights start as torch's do, uniform up to 1 / sqrt(hidden_size) and embeddings from N(0, 1)
    (Sutskever et al.: uniform up to 0.08); dropout, which they did without.

    Args:
        source_vocab_size, target_vocab_size: Numbers of tokens.
        cell: "rnn", "lstm" or "gru"; see `recurrent.py` for their equations.
        attention: "none", "additive" or "dot".
        reverse_source: Read each source from its last token to its first, which brings the beginnings of both
            sequences together (Sutskever et al., section 3.3).
        bidirectional: Read the source from both ends.
        hidden_size: Numbers in the state of a layer.
        num_layers: Recurrent layers of encoder and decoder each.
        embed_dim: Numbers in the vector of a token.
        dropout: Share zeroed in training of embeddings, between layers and before the output.

    Raises:
        ValueError: If a size is below 1, dropout not in [0, 1), cell or attention no choice, or hidden_size odd where
            two directions share it.
    """

    tasks: ClassVar[tuple[str, ...]] = ("translation",)
    reads: ClassVar[tuple[type, ...]] = (Tokens,)
    scheduled_sampling: ClassVar[bool] = True  # forward takes teacher_forcing

    def __init__(
        self,
        *,
        source_vocab_size: int,
        target_vocab_size: int,
        cell: str = "lstm",
        attention: str = "none",
        reverse_source: bool = False,
        bidirectional: bool = False,
        hidden_size: int = 256,
        num_layers: int = 1,
        embed_dim: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(source_vocab_size=source_vocab_size, target_vocab_size=target_vocab_size)
        check_sizes(hidden_size=hidden_size, num_layers=num_layers, embed_dim=embed_dim)
        check_choice("cell", cell, tuple(CELLS))
        check_dropout(dropout)
        if bidirectional and hidden_size % 2:
            raise ValueError(f"hidden_size={hidden_size} must be even, since bidirectional=true shares it out to two.")
        self.reverse_source, self.directions = reverse_source, 2 if bidirectional else 1
        self.embed = nn.Embedding(source_vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.encoder = CELLS[cell](
            embed_dim,
            hidden_size // self.directions,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.decoder = RecurrentDecoder(
            vocab_size=target_vocab_size,
            cell=cell,
            attention=attention,
            embed_dim=embed_dim,
            hidden_size=hidden_size,
            num_layers=num_layers,
            dropout=dropout,
        )

    @classmethod
    def for_data(cls, inputs: Tokens, outputs: Tokens, **config: Any) -> Seq2Seq:
        return cls(source_vocab_size=inputs.vocab_size, target_vocab_size=outputs.vocab_size, **config)

    def forward(
        self, source: Tensor, target: Tensor, lengths: Tensor | None = None, *, teacher_forcing: float = 1.0
    ) -> Tensor:
        """The next token after each step of the target: (B, S), (B, T) -> (B, T, target_vocab_size).

        Args:
            source, target: Token ids, padded on the right.
            lengths: Tokens of each source that are not padding (B,); None: all.
            teacher_forcing: Chance that a step reads the true token, and not the one just found likeliest
                (scheduled sampling, Bengio et al. 2015, arXiv 1506.03099). At 1 all steps are computed at once.

        Raises:
            ValueError: If teacher_forcing is not from 0 to 1.
        """
        if not 0 <= teacher_forcing <= 1:
            raise ValueError(f"teacher_forcing={teacher_forcing} must be from 0 to 1.")
        state = self.encode(source, lengths)
        if teacher_forcing < 1:
            return self.decoder.sampled(target, state, teacher_forcing)
        return self.decoder(target, state)[0]

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> State:
        """Reads the source once; what `decode` needs of it, batch first."""
        place = torch.arange(source.shape[1], device=source.device).expand_as(source)
        ends = source.shape[1] if lengths is None else lengths[:, None]
        real = place < ends  # (B, S)
        turned = torch.where(real, ends - 1 - place, place) if self.reverse_source else None
        x = self.dropout(self.embed(source if turned is None else source.gather(1, turned)))  # (B, S, E)
        memory, last = self._run(x, lengths)
        if turned is not None:  # what can be looked at stands in the order of the source
            memory = memory.gather(1, turned[:, :, None].expand_as(memory))
        start = tuple(part.unflatten(1, (-1, self.directions)).flatten(2) for part in batch_first(last))
        return self.decoder.begin(start, memory, real)

    def _run(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Any]:
        """(B, S, E) -> states (B, S, H), and the last of each row as torch has them, which no padding has changed."""
        if lengths is None or bool((lengths == x.shape[1]).all()):
            return self.encoder(x)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, last = self.encoder(packed)
        return pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])[0], last

    def decode(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The next token after one more of the target: (B,) -> (B, target_vocab_size)."""
        logits, state = self.decoder(tokens[:, None], state)
        return logits[:, 0], state

    def generate(
        self,
        source: Tensor,
        lengths: Tensor | None = None,
        *,
        max_length: int,
        beam_size: int = 1,
        length_penalty: float = 0.0,
    ) -> Tensor:  # (B, S) -> (B, T)
        """Writes a target for each source; see `beam_search.generate`."""
        return beam_search.generate(
            self, source, lengths, max_length=max_length, beam_size=beam_size, length_penalty=length_penalty
        )

    @torch.no_grad()
    def attention(self, source: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor | None:
        """How much of each source token each target step takes; None without attention.

        (B, S), (B, T) -> (B, T, S), whose rows sum to 1; without dropout.
        """
        was_training = self.training
        self.eval()
        weights = self.decoder.weights(target, self.encode(source, lengths))
        self.train(was_training)
        return weights
