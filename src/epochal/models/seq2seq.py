"""Sequence to sequence: a recurrent encoder turns a sequence into a vector, from which a recurrent decoder starts.

Sutskever, Vinyals, Le: Sequence to Sequence Learning with Neural Networks, 2014 (arXiv 1409.3215).
Cho et al.: Learning Phrase Representations using RNN Encoder-Decoder, 2014 (arXiv 1406.1078).
Attention: Bahdanau et al. 2015 (arXiv 1409.0473), Luong et al. 2015 (arXiv 1508.04025); see `recurrent_decoder.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from epochal.core.checks import check_choice, check_fraction, check_number, check_sizes
from epochal.core.specs import Tokens
from epochal.models.common.encoder_decoder import EncoderDecoder
from epochal.models.common.old_names import ATTENTION
from epochal.models.common.recurrent_decoder import CELLS, RecurrentDecoder, State, batch_first


class Seq2Seq(EncoderDecoder):
    """The final states of the encoder's layers are the initial states of the decoder's layers.

        source (B, S)   embedding -> recurrent layers -> their final states: the context vector
        target (B, T)   embedding -> recurrent layers, from those states -> [attention] -> (B, T, target_vocab_size)

    Without attention the decoder gets nothing else from the source. With attention, it also attends to the encoder's
    output at every token of the source.

    Deviations from the papers: attention comes after the decoder's layers and is not fed back into them (see
    `RecurrentDecoder`); each direction of a bidirectional encoder has half of hidden_size, so that both together make
    the decoder's initial state without further weights (Bahdanau et al. have hidden_size each, and a layer in between);
    torch's default initialisation, uniform up to 1 / sqrt(hidden_size) and embeddings from N(0, 1) (Sutskever et al.:
    uniform up to 0.08); dropout, which they did not use.

    Args:
        source_vocab_size, target_vocab_size: Numbers of tokens.
        cell: "rnn", "lstm" or "gru"; see `recurrent.py` for their equations.
        attention: "none", "additive" or "dot".
        reverse_source: Read each source from its last token to its first, which brings the beginnings of both
            sequences together (Sutskever et al., section 3.3).
        bidirectional: Read the source in both directions.
        hidden_size: Length of a layer's state.
        num_layers: Recurrent layers of encoder and decoder each.
        embed_dim: Length of a token's embedding.
        dropout: Fraction zeroed in training of embeddings, between layers and before the output.

    Raises:
        ValueError: If a size is below 1, dropout not in [0, 1), cell or attention none of its choices, or hidden_size
            odd with bidirectional.
    """

    heads: ClassVar[tuple[str, ...]] = ("target_text",)
    reads: ClassVar[tuple[type, ...]] = (Tokens,)
    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = ATTENTION
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
        check_fraction("dropout", dropout)
        if bidirectional and hidden_size % 2:
            raise ValueError(
                f"hidden_size={hidden_size} must be even, since bidirectional=true gives half of it to each direction."
            )
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
        """Logits of the token after each step of the target: (B, S), (B, T) -> (B, T, target_vocab_size).

        Args:
            source, target: Token ids, padded on the right.
            lengths: Number of tokens of each source that are not padding (B,); None: all.
            teacher_forcing: Probability that a step reads the true token, not the most likely one of the step before
                (scheduled sampling, Bengio et al. 2015, arXiv 1506.03099). At 1 all steps are computed at once.

        Raises:
            ValueError: If teacher_forcing is not in [0, 1].
        """
        check_number("teacher_forcing", teacher_forcing, 0, most=1)
        state = self.encode(source, lengths)
        if teacher_forcing < 1:
            return self.decoder.scheduled_sampling(target, state, teacher_forcing)
        return self.decoder(target, state)[0]

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> State:
        place = torch.arange(source.shape[1], device=source.device).expand_as(source)
        ends = source.shape[1] if lengths is None else lengths[:, None]
        real = place < ends  # (B, S)
        reversed_place = torch.where(real, ends - 1 - place, place) if self.reverse_source else None
        x = self.dropout(
            self.embed(source if reversed_place is None else source.gather(1, reversed_place))
        )  # (B, S, E)
        memory, last = self._run(x, lengths)
        if reversed_place is not None:  # attention refers to the order of the source
            memory = memory.gather(1, reversed_place[:, :, None].expand_as(memory))
        start = tuple(part.unflatten(1, (-1, self.directions)).flatten(2) for part in batch_first(last))
        return self.decoder.initial_state(start, memory, real)

    def _run(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Any]:
        """(B, S, E) -> states (B, S, H), and each row's final states in torch's form, independent of the padding."""
        if lengths is None or bool((lengths == x.shape[1]).all()):
            return self.encoder(x)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, last = self.encoder(packed)
        return pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])[0], last

    def decode(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        logits, state = self.decoder(tokens[:, None], state)
        return logits[:, 0], state

    def attention_weights(self, source: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor | None:
        return self.decoder.weights(target, self.encode(source, lengths))
