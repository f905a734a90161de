"""What tasks and tools may ask of a model, as protocols: what counts is which methods a model has, not its class.

B is the batch size, V the size of a vocabulary, T and S the lengths of a target and of a source. `isinstance` works
with those marked runtime_checkable. It compares names only, so a model should not use a name below for anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from epochal.core.specs import PAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from torch import Tensor, nn

    from epochal.core.specs import Inputs, Outputs


# What a model can return, by the name of its head; a task says which one it needs
HEADS = {
    "classes": "a class",
    "step_classes": "a class for each step",
    "numbers": "numbers",
    "next_token": "the next token",
    "masked_token": "masked tokens",
    "target_text": "a text, token by token",
    "scalar": "a score",
    "patches": "pixels of patches",
    "adversarial": "images, and whether one is real",
}
# What can be learned from data; a task says which one it needs
TARGETS = {
    "classes": "classes",
    "step_classes": "a class for each step",
    "numbers": "numbers",
    "text": "the tokens of its texts",
    "target_text": "target texts",
    "captions": "captions",
    "answers": "answers in conversations",
    "preferences": "which of two answers is better",
    "prompts": "prompts to answer",
    "images": "the images themselves",
}


@runtime_checkable
class Model(Protocol):
    """Every model: a `torch.nn.Module` that says what it can return and which kinds of inputs it reads."""

    heads: ClassVar[tuple[str, ...]]  # of HEADS; `for_data` takes `head` where there are several
    reads: ClassVar[tuple[type, ...]]  # of the classes in core.specs.Inputs

    @classmethod
    def for_data(cls, inputs: Inputs, outputs: Outputs, **config: Any) -> Any:
        """The model with its sizes taken from the data; config is what stands in conf/model.

        Raises:
            ValueError: If the config does not fit the data, or an argument is wrong.
        """
        ...


class Classifier(Protocol):
    """Inputs to logits (B, num_classes), (B, T, num_classes) of each step, or numbers of the same shapes.

    In training it may return a tuple of such logits: the network's own first, then those of auxiliary heads.
    """

    def forward(self, inputs: Tensor, /) -> Tensor | tuple[Tensor, ...]: ...


@runtime_checkable
class AuxiliaryHeads(Protocol):
    """A classifier whose auxiliary heads take part in training."""

    auxiliary_weight: ClassVar[float]  # factor on the loss of each auxiliary head


@runtime_checkable
class LanguageModel(Protocol):
    """Tokens (B, T) to logits (B, T, V) of the token after each, and text that continues a prompt."""

    context_length: int | None  # most tokens that it reads at once; None: any number

    def generate(
        self,
        prompt: Tensor,
        *,
        length: int,
        lengths: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: int | None = None,
        forbidden: Sequence[int] = (),
        pad: int = PAD,
        generator: torch.Generator | None = None,
        log_probabilities: list[Tensor] | None = None,
    ) -> Tensor:
        """Token ids (B, T) -> (B, T + length), the prompt included; see `models.common.sampling.AutoregressiveModel`.

        Raises:
            ValueError: If the prompt is empty or an argument is out of range.
        """
        ...


@runtime_checkable
class BeamSearch(Protocol):
    """A language model that can look for the most probable text after a prompt."""

    def most_probable(
        self,
        prompt: Tensor,
        *,
        length: int,
        beam_size: int,
        stop: int | None = None,
        forbidden: Sequence[int] = (),
        pad: int = PAD,
    ) -> Tensor:
        """Token ids (B, T) -> (B, T + length), the prompt included; see `models.common.beam_search.continued`.

        Raises:
            ValueError: If the prompt is empty or an argument is out of range.
        """
        ...


@runtime_checkable
class CarriesState(Protocol):
    """A language model that can go on from the state in which earlier tokens left it."""

    def read_on(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Tokens (B, T) and the state before them, None at the beginning -> logits (B, T, V), and the new state."""
        ...


@runtime_checkable
class StreamsTokens(Protocol):
    """A language model that hands over each token as soon as it is drawn."""

    context_length: int | None

    def stream(
        self,
        prompt: Tensor,
        *,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: int | None = None,
        forbidden: Sequence[int] = (),
        generator: torch.Generator | None = None,
    ) -> Iterator[Any]:
        """Token ids (B, T) -> one `models.common.sampling.Drawn` for each of at most `length` further tokens.

        Raises:
            ValueError: If the prompt is empty or an argument is out of range.
        """
        ...


@runtime_checkable
class EncoderDecoder(Protocol):
    """Reads one sequence (or an image) and writes another: a source and a target (B, T) to logits (B, T, V).

    The state that `encode` and `decode` return is a tensor whose dimension 0 is the batch, or a dict, list or tuple of
    such states, or a KVCache; anything else in it belongs to all rows. `decode` may change the state that it is given.
    """

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> Any:
        """A source (B, S), or images (B, C, H, W), with the lengths (B,) without padding -> the first state."""
        ...

    def decode(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The newest token (B,) of each target -> logits (B, V) of the next, and the new state."""
        ...

    def generate(
        self,
        source: Tensor,
        lengths: Tensor | None = None,
        *,
        max_length: int,
        beam_size: int = 1,
        length_penalty: float = 0.0,
    ) -> Tensor:
        """A target (B, T) for each source, without BEGIN, each row up to its END and then PAD.

        Raises:
            ValueError: If an argument is out of range.
        """
        ...


@runtime_checkable
class ScheduledSampling(Protocol):
    """An encoder-decoder that can be trained on its own predictions: forward takes `teacher_forcing` in [0, 1]."""

    scheduled_sampling: ClassVar[bool]


@runtime_checkable
class SourceAttention(Protocol):
    """An encoder-decoder with attention weights from the target to the source."""

    def attention(self, source: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor | None:
        """Weights (B, T, S), or (B, T, rows, columns) on an image; each step's sum to 1. None without attention."""
        ...


@runtime_checkable
class AdversarialNetwork(Protocol):
    """A generator, noise (B, N) -> images (B, C, H, W) in [-1, 1], and a discriminator, images -> logits (B,).

    Where the network has a `num_classes` that is not None, both take labels (B,) as a second argument.
    """

    if TYPE_CHECKING:  # submodules, which isinstance() does not find from Python 3.12 on
        generator: nn.Module
        discriminator: nn.Module

    def sample_noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Noise (count, N) on the model's device."""
        ...


@runtime_checkable
class PatchModel(Protocol):
    """Predicts the pixels of an image's patches: images (B, C, H, W), and a mask or causal -> (B, N, C * P * P)."""

    grid: tuple[int, int]  # rows and columns of patches; N is their product

    def patches(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, C * P * P), row by row."""
        ...

    def assemble(self, patches: Tensor) -> Tensor:
        """The inverse of `patches`: (B, N, C * P * P) -> (B, C, H, W)."""
        ...


@runtime_checkable
class FeatureStages(Protocol):
    """A network with feature maps."""

    def stages(self) -> dict[str, nn.Module]:
        """The submodules whose outputs are feature maps (B, C, H, W), by name, in the order of the forward pass."""
        ...


@runtime_checkable
class AttentionRollout(Protocol):
    """A network whose attention weights say which parts of an image reach its output (Abnar & Zuidema 2020)."""

    def rollout(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> not negative weights (B, rows, columns)."""
        ...


@runtime_checkable
class StateGradients(Protocol):
    """A network on sequences that can measure how much each step's state matters for the loss."""

    @property
    def shows_state_gradients(self) -> bool:
        """Whether `state_gradients` works as this network is configured."""
        ...

    def state_gradients(
        self, inputs: Tensor, loss: Callable[[Tensor], Tensor], lengths: Tensor | None = None
    ) -> Tensor:
        """Norms (T,) of the loss's gradient by the state of each step, mean over the batch.

        Raises:
            ValueError: If `shows_state_gradients` is False.
        """
        ...


@runtime_checkable
class Pretrained(Protocol):
    """A network that fetches pretrained weights by itself."""

    def load_pretrained(self) -> str:
        """Loads them; returns a sentence that says which.

        Raises:
            ConfigError: If there are none, or they cannot be downloaded.
        """
        ...

    def normalisation(self) -> dict[str, list[float]]:
        """The "mean" and "std" of each channel, of pixels in [0, 1], that the weights expect."""
        ...


@runtime_checkable
class TorchvisionWeights(Protocol):
    """A network that can take the weights of its counterpart in torchvision, under its own parameter names."""

    torchvision_name: str | None  # e.g. "resnet50"; None if torchvision has no counterpart of this configuration

    @property
    def torchvision_keys(self) -> tuple[tuple[str, str], ...]:
        """(regular expression, replacement) pairs, applied in order to torchvision's names."""
        ...


@runtime_checkable
class ReshapedWeights(Protocol):
    """A network whose tensors also differ in shape from torchvision's."""

    def reshape_torchvision(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Torchvision's tensors under our names -> the tensors that fit."""
        ...


@runtime_checkable
class RenamedParameters(Protocol):
    """A network whose parameters had other names in older versions of Epochal."""

    renamed_keys: ClassVar[tuple[tuple[str, str], ...]]  # (regular expression of the old name, replacement)
