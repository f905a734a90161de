"""A recurrent decoder: starts from a given state and can attend to the outputs of an encoder.

Bahdanau, Cho, Bengio: Neural Machine Translation by Jointly Learning to Align and Translate, 2015 (arXiv 1409.0473).
Luong, Pham, Manning: Effective Approaches to Attention-based Neural Machine Translation, 2015 (arXiv 1508.04025).
Bengio, Vinyals, Jaitly, Shazeer: Scheduled Sampling for Sequence Prediction, 2015 (arXiv 1506.03099).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from epochal.core.checks import check_choice

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
ATTENTIONS = ("none", "additive", "dot")

State = dict[str, Any]  # of tensors whose dimension 0 is the batch


class Attention(nn.Module):
    """Attention from the decoder's states to the encoder's outputs (the memory).

    q is a state of the decoder, m an output of the encoder; both have hidden_size elements, and biases are left out.

        additive    score = v . tanh(W q + U m)     Bahdanau et al. 2015
        dot         score = q . m                   Luong et al. 2015

        context = sum of softmax(scores) * memory
        output  = tanh(W [context; q])

    Args:
        kind: "additive" or "dot".
        hidden_size: Length of a state and of an output of the encoder.
    """

    def __init__(self, *, kind: str, hidden_size: int) -> None:
        super().__init__()
        self.additive = kind == "additive"
        if self.additive:
            self.query = nn.Linear(hidden_size, hidden_size)
            self.key = nn.Linear(hidden_size, hidden_size, bias=False)
            self.score = nn.Linear(hidden_size, 1, bias=False)
        self.proj = nn.Linear(2 * hidden_size, hidden_size)

    def keys(self, memory: Tensor) -> Tensor:  # (B, S, H) -> (B, S, H)
        """What the states are compared with, which is the same at each step."""
        return self.key(memory) if self.additive else memory

    def weights(self, states: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:  # (B, T, H) -> (B, T, S)
        """Attention weights; those of each state sum to 1. mask (B, S) is False for what must not be attended to."""
        if self.additive:
            scores = self.score((self.query(states)[:, :, None] + keys[:, None]).tanh())[..., 0]
        else:
            scores = states @ keys.transpose(1, 2)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], float("-inf"))
        return scores.softmax(dim=-1)

    def forward(self, states: Tensor, state: State) -> Tensor:  # (B, T, H) -> (B, T, H)
        context = self.weights(states, state["keys"], state.get("mask")) @ state["memory"]
        return self.proj(torch.cat((context, states), dim=-1)).tanh()


class RecurrentDecoder(nn.Module):
    """Embedding, recurrent layers, attention if any, and logits over the vocabulary.

    Attention comes after the recurrent layers, as in Luong et al., and its output is not fed back into them, so they
    run over a whole target at once in torch's fused implementation. Deviations: in Bahdanau et al. the context of the
    previous state is an input of the next one; Luong et al. have input feeding.

    Args:
        vocab_size: Number of tokens.
        cell: "rnn", "lstm" or "gru".
        attention: "none", "additive" or "dot".
        embed_dim: Length of a token's embedding.
        hidden_size: Length of a layer's state and of an output of the encoder.
        num_layers: Number of stacked recurrent layers.
        dropout: Fraction zeroed in training of embeddings, between layers and before the output.

    Raises:
        ValueError: If cell or attention is none of its choices.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        cell: str,
        attention: str,
        embed_dim: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        check_choice("cell", cell, tuple(CELLS))
        check_choice("attention", attention, ATTENTIONS)
        self.embed = nn.Embedding(vocab_size, embed_dim)
        self.recurrent = CELLS[cell](
            embed_dim, hidden_size, num_layers, batch_first=True, dropout=dropout if num_layers > 1 else 0.0
        )
        self.attention = None if attention == "none" else Attention(kind=attention, hidden_size=hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, vocab_size)

    def initial_state(self, start: tuple[Tensor, ...], memory: Tensor, mask: Tensor | None = None) -> State:
        """The state before the first token.

        Args:
            start: h, and of an LSTM also c, each (B, layers, H).
            memory: Outputs of the encoder (B, S, H); unused without attention.
            mask: False where the memory must not be attended to, such as padding (B, S).
        """
        state: State = {"recurrent": start}
        if self.attention is not None:
            state |= {"memory": memory, "keys": self.attention.keys(memory)}
            state |= {} if mask is None else {"mask": mask}
        return state

    def forward(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Further tokens (B, T) -> logits of the token after each (B, T, vocab_size), and the state after them."""
        states, state = self._read(tokens, state)
        if self.attention is not None:
            states = self.attention(states, state)
        return self.head(self.dropout(states)), state

    def _read(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:  # (B, T) -> (B, T, H)
        before = tuple(part.transpose(0, 1).contiguous() for part in state["recurrent"])
        states, after = self.recurrent(self.dropout(self.embed(tokens)), before if len(before) > 1 else before[0])
        return states, {**state, "recurrent": batch_first(after)}

    def scheduled_sampling(self, tokens: Tensor, state: State, teacher_forcing: float) -> Tensor:
        """As `forward`, but each step after the first reads the true token only with probability teacher_forcing.

        Otherwise it reads the most likely token of the step before, through which no gradient flows.
        """
        logits, read = [], tokens[:, :1]
        for following in (*tokens[:, 1:].split(1, dim=1), None):
            step, state = self(read, state)
            logits.append(step)
            if following is not None:
                use_true = torch.rand(following.shape, device=following.device) < teacher_forcing
                read = torch.where(use_true, following, step.argmax(dim=-1))
        return torch.cat(logits, dim=1)

    def weights(self, tokens: Tensor, state: State) -> Tensor | None:  # (B, T) -> (B, T, S)
        """Attention weights of each step; None without attention."""
        if self.attention is None:
            return None
        states, _ = self._read(tokens, state)
        return self.attention.weights(states, state["keys"], state.get("mask"))


def batch_first(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """torch's state of a recurrent network, (layers, B, H) or for an LSTM two of them, as (B, layers, H) each."""
    return tuple(part.transpose(0, 1) for part in (state if isinstance(state, tuple) else (state,)))
