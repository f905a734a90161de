"""Recurrent networks: simple (Elman), LSTM and GRU.

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
from epochal.models.common.sampling import AutoregressiveModel

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
FORGET = 1  # index of the forget gate among torch's four LSTM gates (input, forget, candidate, output)


class SigmoidRNN(nn.Module):
    """Simple recurrent layers with the logistic function s, computed by torch's fused tanh layers.

    As s(a) = (1 + tanh(a / 2)) / 2, the state is h = (g + 1) / 2, where g is the state of a tanh network with other
    weights: W and U halved, and halved again where they read g instead of h, which a bias corrects.

    Deviation: dropout between layers zeroes g, so h becomes 1/2.
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
            state = steps.new_zeros(self.tanh.num_layers, steps.shape[0], self.tanh.hidden_size)
        g, last = functional_call(self.tanh, weights, (steps, 2 * state - 1))
        return (g + 1) / 2, (last + 1) / 2


class Bidirectional(nn.Module):
    """Bidirectional recurrent layers: each reads the outputs of both directions of the layer below.

    The backward direction starts at the end of each row, so padding is never read. (torch's packed sequences do the
    same, but took four times as long on a CPU with rows of 200 steps.)
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
    """The first `lengths` steps of each row of x (B, T, F) reversed; the padding stays where it is."""
    if lengths is None:
        return x.flip(1)
    place = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
    place = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
    return x.gather(1, place[..., None].expand_as(x))


class RNN(AutoregressiveModel):
    r"""One or more recurrent layers, with a linear layer on top.

    x is the step's input, h the previous state, s the logistic function, * elementwise; biases are left out.

        rnn     h' = tanh(W x + U h)

        lstm    f = s(Wf x + Uf h)    i = s(Wi x + Ui h)    o = s(Wo x + Uo h)      forget, input, output gate
                c' = f * c + i * tanh(Wc x + Uc h)                                  cell state
                h' = o * tanh(c')

        gru     r = s(Wr x + Ur h)    z = s(Wz x + Uz h)                            reset, update gate
                n = tanh(Wn x + r * (Un h))
                h' = (1 - z) * n + z * h

    An image is read row by row, H steps of C * W values, or pixel by pixel, H * W steps of C; text through an embedding
    of each token, a video through a small convolutional encoder of each frame, a series as it is. Shorter rows of a
    batch are padded on the right; given their lengths, no output depends on the padding.

    The output is computed from the last state (of the backward direction: its state at the first step), or at each
    step.

    Deviations from the papers: no peephole connections in the LSTM; the GRU applies r after U, as cuDNN does. Recurrent
    weights start orthogonal, the others Xavier-uniform, the LSTM's forget gate open (bias 1, Jozefowicz et al. 2015),
    other biases at zero.

    Args:
        in_features: Length of a step of a series or an image (C * W or C).
        vocab_size: Number of tokens of a text.
        frame_shape: Channels, height and width of a video's frames.
        num_classes: Length of the output, classes or numbers; None for language modelling, which has vocab_size logits
            at each step.
        each_step: One output for each step instead of one for the sequence.
        cell: "rnn", "lstm" or "gru".
        scan: What a step of an image is: "rows" or "pixels".
        activation: Of cell "rnn", instead of the equation's tanh: "tanh", "relu" or "sigmoid". The other cells have
            "tanh" only.
        hidden_size: Length of the state of one layer and direction.
        num_layers: Number of stacked recurrent layers.
        embed_dim: Length of a token's or frame's embedding; not used by images and series.
        bidirectional: Read in both directions; not for language modelling.
        dropout: Fraction zeroed in training between layers and before the output, never between steps (Zaremba et al.
            2014).

    Raises:
        ValueError: If a size is below 1, dropout not in [0, 1), cell, scan or activation none of its choices, not
            exactly one of in_features, vocab_size and frame_shape is given, or a language model is to be bidirectional
            or to read anything but text.
    """

    heads: ClassVar[tuple[str, ...]] = ("classes", "step_classes", "numbers", "next_token")
    reads: ClassVar[tuple[type, ...]] = (Images, Tokens, Series, Frames)
    only_for: ClassVar = {"scan": (Images,), "embed_dim": (Tokens, Frames)}
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
                "Give either in_features (to read images or series), vocab_size (text) or frame_shape (videos)."
            )
        out_features = vocab_size if num_classes is None else num_classes
        if out_features is None:
            raise ValueError("Without num_classes this is a language model, which needs vocab_size.")
        if num_classes is None and bidirectional:
            raise ValueError("bidirectional=true would let a language model read the tokens that it has to predict.")

        self.embed: nn.Module | None = None
        if vocab_size is not None:
            check_sizes(vocab_size=vocab_size)
            self.embed = nn.Embedding(vocab_size, embed_dim)
        elif frame_shape is not None:
            self.embed = FrameEncoder(*frame_shape, embed_dim)
        features = embed_dim if in_features is None else in_features
        check_sizes(in_features=features, out_features=out_features)
        self.is_language_model = num_classes is None
        self.each_step = each_step or self.is_language_model
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
        """Outputs (B, num_classes), with each_step (B, T, num_classes), of a language model logits (B, T, vocab_size).

        Args:
            inputs: Images (B, C, H, W), tokens (B, T), a series (B, T, in_features) or videos (B, T, C, H, W).
            lengths: Number of steps of each row that are not padding, at least 1, (B,); None: all.
        """
        steps = self._steps(inputs)
        if self.bidirectional:
            states = self.recurrent(steps, lengths)  # (B, T, 2 * hidden)
        else:
            states, _ = self.recurrent(steps)  # (B, T, hidden); steps before the padding do not depend on it
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
        """Each direction's state after it has read the whole row: the backward one's is at the first step."""
        rows = torch.arange(states.shape[0], device=states.device)
        last = states[:, -1] if lengths is None else states[rows, lengths - 1]  # (B, hidden or 2 * hidden)
        if not self.bidirectional:
            return last
        half = last.shape[1] // 2
        return torch.cat((last[:, :half], states[:, 0, half:]), dim=1)

    @property
    def shows_state_gradients(self) -> bool:
        """Whether `state_gradients` works: only in one direction."""
        return not self.bidirectional

    def state_gradients(
        self, inputs: Tensor, loss: Callable[[Tensor], Tensor], lengths: Tensor | None = None
    ) -> Tensor:
        """How much the state after each step matters for the loss: || dL / d state_t ||, mean over rows that long.

        The state is h, and in an LSTM also the cell state c. With each_step a state has influence on the losses of its
        own step and all later ones.

        Args:
            inputs, lengths: As of `forward`.
            loss: Of the output of `forward`, summed over examples and, with each_step, over steps.

        Returns:
            (T,), the norm over all layers together.

        Raises:
            ValueError: If the network is bidirectional.
        """
        if not self.shows_state_gradients:
            raise ValueError(
                "State gradients need a network that reads from beginning to end, not a bidirectional one."
            )
        state, states = None, []
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN has no gradient of an RNN outside training
            for step in self._steps(inputs).unbind(1):  # one by one: the fused layer returns no states in between
                _, state = self.recurrent(step[:, None], state)
                states.append(state if isinstance(state, tuple) else (state,))
            hidden = torch.stack([parts[0][-1] for parts in states], dim=1)  # (B, T, hidden), of the last layer
            flat = [part for parts in states for part in parts]
            total = loss(self._answer(hidden, lengths))
            gradients = iter(
                torch.autograd.grad(total, flat, materialize_grads=True)
            )  # 0 where the loss does not depend on it
        norms = []
        for parts in states:
            gradient = torch.cat([next(gradients) for _ in parts], dim=-1)  # (layers, B, H), an LSTM's (layers, B, 2 H)
            norms.append(gradient.transpose(0, 1).flatten(1).norm(dim=1))
        by_step = torch.stack(norms)  # (T, B), 0 where a row has ended
        if lengths is None:
            return by_step.mean(dim=1)
        real = torch.arange(len(by_step), device=lengths.device)[:, None] < lengths
        return by_step.sum(dim=1) / real.sum(dim=1).clamp_min(1)

    def read_on(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As of `core.protocols.CarriesState`; the state is torch's, of the recurrent layers."""
        states, state = self.recurrent(self._steps(tokens), state)
        return self._answer(states, None), state

    def initial_state(self, steps: int) -> tuple[int, Any]:
        """Number of tokens read so far, and torch's state of the recurrent layers after them."""
        if not self.is_language_model:
            raise ValueError("Only a language model can generate; this network classifies.")
        return 0, None

    def next_logits(self, text: Tensor, state: tuple[int, Any]) -> tuple[Tensor, tuple[int, Any]]:
        """The whole text so far (B, T), only its new tokens are read -> logits (B, vocab_size), and the state."""
        used, hidden = state
        states, hidden = self.recurrent(self._steps(text[:, used:]), hidden)
        return self.head(states[:, -1]), (text.shape[1], hidden)
