"""Recurrent networks: simple (Elman), LSTM and GRU, which carry a hidden state from step to step.

Elman: Finding Structure in Time, Cognitive Science 14(2), 1990.
Hochreiter, Schmidhuber: Long Short-Term Memory, Neural Computation 9(8), 1997; forget gate: Gers et al. 2000.
Cho et al.: Learning Phrase Representations using RNN Encoder-Decoder, 2014 (arXiv 1406.1078).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from epochal.facts import Classes, Images, Tokens
from epochal.models.layers import check_choice, check_dropout, check_generation, check_sizes, next_token

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
FORGET = 1  # which of torch's four LSTM gates (input, forget, candidate, output) forgets


class RNN(nn.Module):
    r"""One or more recurrent layers, with a linear layer on top.

    x is the step's input, h the state so far, s the logistic function, * elementwise; biases are left out.

        rnn     h' = tanh(W x + U h)

        lstm    f = s(Wf x + Uf h)    i = s(Wi x + Ui h)    o = s(Wo x + Uo h)      forget, input, output gate
                c' = f * c + i * tanh(Wc x + Uc h)                                  the long memory
                h' = o * tanh(c')

        gru     r = s(Wr x + Ur h)    z = s(Wz x + Uz h)                            reset, update gate
                n = tanh(Wn x + r * (Un h))
                h' = (1 - z) * n + z * h                                            z forgets and lets in at once

    An image is read row by row, H steps of C x W numbers, or pixel by pixel, H x W steps of C. Text is read token by token through an embedding, and if it
    is padded for classification it must be padded on the left, since the answer is read off the last step.

    Deviations from the papers: no peepholes in the LSTM; the GRU applies r after U, as cuDNN does. Recurrent weights
    start orthogonal, the LSTM's forget gate open (bias 1, Jozefowicz et al. 2015), other biases at zero.

    Args:
        in_features: Numbers in one step of an image, C x W or C; None for text.
        vocab_size: Number of tokens; None for images.
        num_classes: Length of the output; None for language modelling, which has vocab_size logits at every step.
        cell: "rnn", "lstm" or "gru".
        scan: What a step of an image is: "rows" or "pixels".
        activation: Of cell "rnn": "tanh" or "relu". The other two know only "tanh".
        hidden_size: Numbers in the state of one layer and direction.
        num_layers: Recurrent layers on top of each other.
        embed_dim: Length of a token's vector; images do not use it.
        bidirectional: Read also from the end to the beginning; for classification only.
        dropout: Share zeroed in training between layers and before the output, never from step to step
            (Zaremba et al. 2014).

    Raises:
        ValueError: If a size is below 1, dropout not in [0, 1), cell, scan or activation no choice, if not exactly one of
            in_features and vocab_size is given, or a language model is to be bidirectional or to read images.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "language_modeling")
    reads: ClassVar[tuple[type, ...]] = (Images, Tokens)

    def __init__(
        self,
        *,
        in_features: int | None = None,
        vocab_size: int | None = None,
        num_classes: int | None = None,
        cell: str = "rnn",
        scan: str = "rows",
        activation: str = "tanh",
        hidden_size: int = 128,
        num_layers: int = 1,
        embed_dim: int = 128,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("cell", cell, tuple(CELLS))
        check_choice("scan", scan, ("rows", "pixels"))
        check_choice("activation", activation, ("tanh", "relu") if cell == "rnn" else ("tanh",))
        check_sizes(hidden_size=hidden_size, num_layers=num_layers, embed_dim=embed_dim)
        check_dropout(dropout)
        if (in_features is None) == (vocab_size is None):
            raise ValueError("Give either in_features (to read images) or vocab_size (to read text).")
        out_features = vocab_size if num_classes is None else num_classes
        if out_features is None:
            raise ValueError("Without num_classes this is a language model, which needs vocab_size.")
        if num_classes is None and bidirectional:
            raise ValueError("bidirectional=true would show a language model the tokens it is to predict.")

        self.embed: nn.Embedding | None = None
        if vocab_size is not None:
            check_sizes(vocab_size=vocab_size)
            self.embed = nn.Embedding(vocab_size, embed_dim)
            in_features = embed_dim
        check_sizes(in_features=in_features, out_features=out_features)
        self.classifies = num_classes is not None
        self.directions, self.scan = 2 if bidirectional else 1, scan
        self.recurrent = CELLS[cell](
            in_features,
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
            **({"nonlinearity": activation} if cell == "rnn" else {}),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.directions * hidden_size, out_features)
        self._init_recurrent(hidden_size)

    @torch.no_grad()
    def _init_recurrent(self, hidden_size: int) -> None:
        for name, parameter in self.recurrent.named_parameters():
            if name.startswith("bias"):
                parameter.zero_()
                if isinstance(self.recurrent, nn.LSTM) and name.startswith("bias_ih"):
                    parameter.view(4, hidden_size)[FORGET] = 1.0
            else:
                for gate in parameter.split(hidden_size):
                    (nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_)(gate)

    @classmethod
    def for_data(cls, inputs: Images | Tokens, outputs: Classes | Tokens, **config: Any) -> RNN:
        if isinstance(inputs, Images):
            rows = config.get("scan", "rows") == "rows"
            config["in_features"] = inputs.channels * inputs.width if rows else inputs.channels
        else:
            config["vocab_size"] = inputs.vocab_size
        return cls(num_classes=outputs.count if isinstance(outputs, Classes) else None, **config)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, T) -> (B, num_classes); as a language model, (B, T) -> (B, T, vocab_size)."""
        states, _ = self.recurrent(self._steps(inputs))  # (B, T, directions * hidden)
        if self.classifies:
            states = self._last(states)  # (B, directions * hidden)
        return self.head(self.dropout(states))

    def _steps(self, inputs: Tensor) -> Tensor:  # -> (B, T, features)
        if self.embed is not None:
            return self.embed(inputs)
        if self.scan == "rows":
            return inputs.transpose(1, 2).flatten(2)  # (B, C, H, W) -> (B, H, C * W)
        return inputs.flatten(2).transpose(1, 2)  # (B, C, H, W) -> (B, H * W, C)

    def _last(self, states: Tensor) -> Tensor:
        """Each direction's last step; the one from end to beginning ends at the first."""
        if self.directions == 1:
            return states[:, -1]
        forward, backward = states.chunk(2, dim=-1)
        return torch.cat((forward[:, -1], backward[:, 0]), dim=-1)

    @property
    def shows_state_gradients(self) -> bool:
        """Whether `state_gradients` has an answer."""
        return self.classifies and self.directions == 1

    def state_gradients(self, inputs: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """How much the state after each step matters for the loss of the last: || dL / d state_t ||, mean over examples.

        The state is what one step hands to the next: h, and in an LSTM also the long memory c.

        Args:
            inputs: As of `forward`.
            loss: Of the logits (B, num_classes), a sum over examples.

        Returns:
            (T,), of all layers together.

        Raises:
            ValueError: If this is a language model, whose loss is at every step, or it reads from both ends.
        """
        if not self.shows_state_gradients:
            raise ValueError("State gradients are those of a classifier that reads from beginning to end.")
        state, states = None, []
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN has no gradient of an RNN outside training
            for step in self._steps(inputs).unbind(1):  # one by one: the fused layer shows no state in between
                _, state = self.recurrent(step[:, None], state)
                states.append(state if isinstance(state, tuple) else (state,))
            total = loss(self.head(self.dropout(states[-1][0][-1])))  # h of the last layer
            flat = [part for parts in states for part in parts]
            gradients = iter(torch.autograd.grad(total, flat, materialize_grads=True))  # 0 for the last c, never read
        norms = []
        for parts in states:
            gradient = torch.cat([next(gradients) for _ in parts], dim=-1)  # (layers, B, H), an LSTM's (layers, B, 2 H)
            norms.append(gradient.transpose(0, 1).flatten(1).norm(dim=1).mean())
        return torch.stack(norms)

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        *,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # (B, T) -> (B, T + length)
        """Continue each prompt by length tokens, reading each token once and carrying the state.

        Args:
            prompt: Token ids, at least one a row.
            length: Tokens to add.
            temperature: Below 1 bolder to the likely, above 1 wilder, 0 always the likeliest.
            top_k: Draw only from the k likeliest tokens.
            generator: Source of chance, on any device.

        Raises:
            ValueError: If this is no language model, the prompt is empty or an argument is out of range.
        """
        if self.embed is None or self.classifies:
            raise ValueError("Only a language model can generate; this network classifies.")
        check_generation(prompt, length=length, temperature=temperature, top_k=top_k)
        was_training = self.training
        self.eval()
        text, unread, state = [prompt], prompt, None
        for _ in range(length):
            states, state = self.recurrent(self.embed(unread), state)
            logits = self.head(states[:, -1])
            unread = next_token(logits, temperature=temperature, top_k=top_k, generator=generator)
            text.append(unread)
        self.train(was_training)
        return torch.cat(text, dim=1)
