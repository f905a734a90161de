"""Recurrent networks: simple (Elman), LSTM and GRU, which carry a hidden state from step to step.

Elman: Finding Structure in Time, Cognitive Science 14(2), 1990.
Hochreiter, Schmidhuber: Long Short-Term Memory, Neural Computation 9(8), 1997; forget gate: Gers et al. 2000.
Cho et al.: Learning Phrase Representations using RNN Encoder-Decoder, 2014 (arXiv 1406.1078).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from epochal.core.checks import check_choice, check_fraction, check_sizes
from epochal.core.specs import Classes, Frames, Images, Numbers, Series, StepLabels, Tokens
from epochal.models.common.layers import FrameEncoder
from epochal.models.common.sampling import check_generation, next_token

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
FORGET = 1  # which of torch's four LSTM gates (input, forget, candidate, output) forgets


class SigmoidRNN(nn.Module):
    """Simple recurrent layers with the logistic function s, which torch's fused layers do not have, done by those of tanh.

    As s(a) = (1 + tanh(a / 2)) / 2, the state is h = (g + 1) / 2 where g is that of a tanh network with other weights: W
    and U halved, and halved again where they read g instead of h; what is missing then is added to a bias.

    Deviation: dropout between layers puts a zero in the place of g, so h becomes 1/2.
    """

    def __init__(self, *sizes: int, **options: Any) -> None:
        super().__init__()
        self.tanh = nn.RNN(*sizes, **options)

    def forward(self, steps: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As of nn.RNN with batch_first: (B, T, F), (layers, B, H) -> (B, T, H), (layers, B, H)."""
        weights = {}
        for name, weight in self.tanh.named_parameters():
            if name.startswith("weight"):
                weights[name] = weight / 2 if name == "weight_ih_l0" else weight / 4
            else:
                reads = getattr(self.tanh, name.replace("bias", "weight"))
                weights[name] = weight / 2 if name == "bias_ih_l0" else weight / 2 + reads.sum(1) / 4
        if state is None:
            state = steps.new_zeros(self.tanh.num_layers, len(steps), self.tanh.hidden_size)
        g, last = functional_call(self.tanh, weights, (steps, 2 * state - 1))
        return (g + 1) / 2, (last + 1) / 2


class Bidirectional(nn.Module):
    """Recurrent layers that read from the beginning and from the end; each layer reads what both of the one below found.

    A row is turned around from where it ends, so that its padding is never read. (torch's packed sequences do the same,
    but on a CPU they took four times as long with rows of 200 steps.)
    """

    def __init__(
        self, make: Callable[..., nn.Module], features: int, hidden: int, layers: int, *, dropout: float, **options: Any
    ) -> None:
        super().__init__()
        sizes = [features] + [2 * hidden] * (layers - 1)
        self.forwards = nn.ModuleList(make(size, hidden, **options) for size in sizes)
        self.backwards = nn.ModuleList(make(size, hidden, **options) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # (B, T, F) -> (B, T, 2 * hidden)
        for number, (forward, backward) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            x = self.dropout(x) if number else x
            x = torch.cat((forward(x)[0], reverse_padded(backward(reverse_padded(x, lengths))[0], lengths)), dim=-1)
        return x


def reverse_padded(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The first lengths steps of each row of (B, T, F) in the other order, the rest where it was."""
    if lengths is None:
        return x.flip(1)
    place = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    place = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
    return x.gather(1, place[..., None].expand_as(x))


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

    An image is read row by row, H steps of C x W numbers, or pixel by pixel, H x W steps of C; text token by token
    through an embedding, a film picture by picture through a small convolutional encoder, a series as it is. Shorter
    rows of a batch are padded on the right; given their lengths, no answer depends on the padding.

    Each network answers once, after the last step (the bidirectional one also after the first, coming from the end), or
    at each step.

    Deviations from the papers: no peepholes in the LSTM; the GRU applies r after U, as cuDNN does. Recurrent weights
    start orthogonal, the LSTM's forget gate open (bias 1, Jozefowicz et al. 2015), other biases at zero.

    Args:
        in_features: Numbers in one step of a series or an image (C x W or C).
        vocab_size: Number of tokens of a text.
        frame_shape: Channels, height and width of a film's pictures.
        num_classes: Length of an answer, classes or numbers; None for language modelling, which has vocab_size logits at
            every step.
        each_step: Answer at each step.
        cell: "rnn", "lstm" or "gru".
        scan: What a step of an image is: "rows" or "pixels".
        activation: Of cell "rnn": "tanh", "relu" or "sigmoid", in the place of the equation's tanh. The other two know
            only "tanh".
        hidden_size: Numbers in the state of one layer and direction.
        num_layers: Recurrent layers on top of each other.
        embed_dim: Length of a token's or picture's vector; images and series do not use it.
        bidirectional: Read also from the end to the beginning; not for language modelling.
        dropout: Share zeroed in training between layers and before the output, never from step to step
            (Zaremba et al. 2014).

    Raises:
        ValueError: If a size is below 1, dropout not in [0, 1), cell, scan or activation no choice, if not exactly one of
            in_features, vocab_size and frame_shape is given, or a language model is to be bidirectional or to read
            anything but text.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "sequence_labeling", "regression", "language_modeling")
    reads: ClassVar[tuple[type, ...]] = (Images, Tokens, Series, Frames)
    context_length: ClassVar[None] = None  # a language model reads any number of tokens

    def __init__(
        self,
        *,
        in_features: int | None = None,
        vocab_size: int | None = None,
        frame_shape: tuple[int, int, int] | None = None,
        num_classes: int | None = None,
        each_step: bool = False,
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
        check_choice("activation", activation, ("tanh", "relu", "sigmoid") if cell == "rnn" else ("tanh",))
        check_sizes(hidden_size=hidden_size, num_layers=num_layers, embed_dim=embed_dim)
        check_fraction("dropout", dropout)
        if [in_features, vocab_size, frame_shape].count(None) != 2:
            raise ValueError(
                "Give either in_features (to read images or series), vocab_size (text) or frame_shape (films)."
            )
        out_features = vocab_size if num_classes is None else num_classes
        if out_features is None:
            raise ValueError("Without num_classes this is a language model, which needs vocab_size.")
        if num_classes is None and bidirectional:
            raise ValueError("bidirectional=true would show a language model the tokens it is to predict.")

        self.embed: nn.Module | None = None
        if vocab_size is not None:
            check_sizes(vocab_size=vocab_size)
            self.embed = nn.Embedding(vocab_size, embed_dim)
        elif frame_shape is not None:
            self.embed = FrameEncoder(*frame_shape, embed_dim)
        features = embed_dim if in_features is None else in_features
        check_sizes(in_features=features, out_features=out_features)
        self.writes, self.each_step = num_classes is None, each_step or num_classes is None
        self.bidirectional, self.scan = bidirectional, scan
        between = dropout if num_layers > 1 else 0.0
        make: Callable[..., nn.Module] = SigmoidRNN if activation == "sigmoid" else CELLS[cell]
        options = {"nonlinearity": activation} if make is nn.RNN else {}
        if bidirectional:
            make = partial(Bidirectional, make)
        self.recurrent = make(features, hidden_size, num_layers, batch_first=True, dropout=between, **options)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size * (2 if bidirectional else 1), out_features)
        self._init_recurrent(cell, hidden_size)

    @torch.no_grad()
    def _init_recurrent(self, cell: str, hidden_size: int) -> None:
        for path, parameter in self.recurrent.named_parameters():
            name = path.rpartition(".")[2]
            if name.startswith("bias"):
                parameter.zero_()
                if cell == "lstm" and name.startswith("bias_ih"):
                    parameter.view(4, hidden_size)[FORGET] = 1.0
            else:
                for gate in parameter.split(hidden_size):
                    (nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_)(gate)

    @classmethod
    def for_data(
        cls, inputs: Images | Tokens | Series | Frames, outputs: Classes | StepLabels | Numbers | Tokens, **config: Any
    ) -> RNN:
        if isinstance(inputs, Images):
            rows = config.get("scan", "rows") == "rows"
            config["in_features"] = inputs.channels * inputs.width if rows else inputs.channels
        elif isinstance(inputs, Tokens):
            config["vocab_size"] = inputs.vocab_size
        elif isinstance(inputs, Frames):
            config["frame_shape"] = (inputs.channels, inputs.height, inputs.width)
        else:
            config["in_features"] = inputs.channels
        num_classes = None if isinstance(outputs, Tokens) else outputs.count
        return cls(num_classes=num_classes, each_step=isinstance(outputs, StepLabels), **config)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits or numbers (B, num_classes), or at each step (B, T, num_classes), as a language model (B, T, vocab_size).

        Args:
            inputs: Images (B, C, H, W), tokens (B, T), a series (B, T, in_features) or films (B, T, C, H, W).
            lengths: (B,), at least 1: where each row ends, the rest being padding; None where every row is full.
        """
        steps = self._steps(inputs)
        if self.bidirectional:
            states = self.recurrent(steps, lengths)  # (B, T, 2 * hidden)
        else:
            states, _ = self.recurrent(steps)  # (B, T, hidden); what comes before the padding does not see it
        return self._answer(states, lengths)

    def _steps(self, inputs: Tensor) -> Tensor:  # -> (B, T, features)
        if self.embed is not None:
            return self.embed(inputs)
        if inputs.dim() == 3:
            return inputs
        if self.scan == "rows":
            return inputs.transpose(1, 2).flatten(2)  # (B, C, H, W) -> (B, H, C * W)
        return inputs.flatten(2).transpose(1, 2)  # (B, C, H, W) -> (B, H * W, C)

    def _answer(self, states: Tensor, lengths: Tensor | None) -> Tensor:
        if not self.each_step:
            states = self._last(states, lengths)
        return self.head(self.dropout(states))

    def _last(self, states: Tensor, lengths: Tensor | None) -> Tensor:
        """Each direction where it has read all; the one that comes from the end has at the first step."""
        rows = torch.arange(len(states), device=states.device)
        last = states[:, -1] if lengths is None else states[rows, lengths - 1]  # (B, hidden or 2 * hidden)
        if not self.bidirectional:
            return last
        half = last.shape[1] // 2
        return torch.cat((last[:, :half], states[:, 0, half:]), dim=1)

    @property
    def shows_state_gradients(self) -> bool:
        """Whether `state_gradients` has an answer."""
        return not self.bidirectional

    def state_gradients(
        self, inputs: Tensor, loss: Callable[[Tensor], Tensor], lengths: Tensor | None = None
    ) -> Tensor:
        """How much the state after each step matters for the loss: || dL / d state_t ||, mean over the rows that get there.

        The state is what one step hands to the next: h, and in an LSTM also the long memory c. Where the network answers
        at each step, a state matters for the losses of its own and of all later steps.

        Args:
            inputs, lengths: As of `forward`.
            loss: Of the output of `forward`, a sum over examples and, of those that are asked, over steps.

        Returns:
            (T,), of all layers together.

        Raises:
            ValueError: If it reads from both ends.
        """
        if not self.shows_state_gradients:
            raise ValueError("State gradients are those of a network that reads from beginning to end.")
        state, states = None, []
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN has no gradient of an RNN outside training
            for step in self._steps(inputs).unbind(1):  # one by one: the fused layer shows no state in between
                _, state = self.recurrent(step[:, None], state)
                states.append(state if isinstance(state, tuple) else (state,))
            hidden = torch.stack([parts[0][-1] for parts in states], dim=1)  # (B, T, hidden), of the last layer
            flat = [part for parts in states for part in parts]
            total = loss(self._answer(hidden, lengths))
            gradients = iter(torch.autograd.grad(total, flat, materialize_grads=True))  # 0 for what is never read
        norms = []
        for parts in states:
            gradient = torch.cat([next(gradients) for _ in parts], dim=-1)  # (layers, B, H), an LSTM's (layers, B, 2 H)
            norms.append(gradient.transpose(0, 1).flatten(1).norm(dim=1))
        found = torch.stack(norms)  # (T, B), 0 where a row has ended
        if lengths is None:
            return found.mean(dim=1)
        there = torch.arange(len(found), device=lengths.device)[:, None] < lengths
        return found.sum(dim=1) / there.sum(dim=1).clamp_min(1)

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        *,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # (B, T) -> (B, T + length)
        """Continue each prompt by length tokens, reading each token once and carrying the state.

        Args:
            prompt: Token ids, at least one a row.
            length: Tokens to add.
            temperature: Below 1 bolder to the likely, above 1 wilder, 0 always the likeliest.
            top_k: Draw only from the k likeliest tokens.
            top_p: Draw only from the fewest likeliest tokens that together have this probability.
            generator: Source of chance, on any device.

        Raises:
            ValueError: If this is no language model, the prompt is empty or an argument is out of range.
        """
        if not self.writes:
            raise ValueError("Only a language model can generate; this network classifies.")
        check_generation(prompt, length=length, temperature=temperature, top_k=top_k, top_p=top_p)
        was_training = self.training
        self.eval()
        text, unread, state = [prompt], prompt, None
        for _ in range(length):
            states, state = self.recurrent(self._steps(unread), state)
            logits = self.head(states[:, -1])
            unread = next_token(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
            text.append(unread)
        self.train(was_training)
        return torch.cat(text, dim=1)
