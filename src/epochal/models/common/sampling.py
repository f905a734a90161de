"""Text from a language model: the next token drawn again and again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from epochal.core.checks import check_positive, check_sizes
from epochal.core.specs import PAD
from epochal.models.common.layers import evaluating


class Drawn(NamedTuple):
    """What one step of `AutoregressiveModel.stream` adds to the rows.

    Attributes:
        token: The next id of each row, int (B,): drawn, or where `written` is false one of a longer prompt, or padding.
        written: Whether it was drawn, bool (B,).
        logits: What it was drawn from (B, V): before the temperature, without the forbidden ids.
    """

    token: Tensor
    written: Tensor
    logits: Tensor


class AutoregressiveModel(nn.Module):
    """Base class of language models: continues a prompt, and reads each token of it only once where it can."""

    @abstractmethod
    def initial_state(self, steps: int) -> Any:
        """The state before the first token, for a text of at most `steps` tokens."""

    @abstractmethod
    def next_logits(self, text: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The whole text so far (B, T) and the state after the last call -> logits (B, V), and the new state."""

    @torch.no_grad()
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
    ) -> Tensor:  # (B, T) -> (B, T + length)
        """Continue each prompt by length tokens.

        Prompts of unlike length are read together up to the end of the shortest; from there on a row takes the tokens of
        its own prompt while it lasts. So no row sees padding, and each is continued as it would be alone.

        Args:
            prompt: Token ids, at least one in each row; shorter rows are padded on the right.
            length: Number of tokens to add to each row.
            lengths: Number of tokens of each prompt that are not padding (B,); None: all.
            temperature: Divides the logits (softmax temperature); 0 is greedy, always the most likely token.
            top_k: Draw only from the k most likely tokens.
            top_p: Draw only from the smallest set of most likely tokens whose probabilities add up to at least this.
            stop: Id after which a row goes on with padding; None: none ends.
            forbidden: Ids that are never drawn.
            pad: Id behind the last token of a row.
            generator: Random number generator, on any device.
            log_probabilities: One tensor (B, T + length) is appended to it: of each drawn token, in nats, at this
                temperature (at 1 where greedy) and without the forbidden ones, but before top_k and top_p; 0 elsewhere.

        Raises:
            ValueError: If a prompt is empty or an argument is out of range.
        """
        check_generation(prompt, length=length, temperature=temperature, top_k=top_k, top_p=top_p)
        text, start, asked = with_room(prompt, lengths, length, pad)
        scores = None if log_probabilities is None else text.new_zeros(text.shape, dtype=torch.float32)
        options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": generator}
        steps = self._draw(text, start, asked, stop=stop, forbidden=forbidden, **options)
        for place, (token, written, logits) in enumerate(steps, start):
            if scores is not None:
                scores[:, place] = log_probability(logits, token, temperature).masked_fill(~written, 0.0)
        if log_probabilities is not None and scores is not None:
            log_probabilities.append(scores)
        return text

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
    ) -> Iterator[Drawn]:
        """The tokens of `generate`, each as soon as it is drawn; to be closed where not all of them are taken.

        Args:
            prompt, length, temperature, top_k, top_p, stop, forbidden, generator: As of `generate`; the prompts are of one
                length.

        Raises:
            ValueError: As `generate`, at the call.
        """
        check_generation(prompt, length=length, temperature=temperature, top_k=top_k, top_p=top_p)
        text, start, asked = with_room(prompt, None, length, PAD)
        options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": generator}
        return self._draw(text, start, asked, stop=stop, forbidden=forbidden, **options)

    @torch.no_grad()
    def _draw(
        self,
        text: Tensor,
        start: int,
        asked: Tensor | None,
        *,
        stop: int | None,
        forbidden: Sequence[int],
        **options: Any,
    ) -> Iterator[Drawn]:
        """Fills the rows of a text (B, T) from a place on, column by column, until all of them have ended."""
        ended = torch.zeros(len(text), dtype=torch.bool, device=text.device)
        with evaluating(self):
            state = self.initial_state(text.shape[1])
            for end in range(start, text.shape[1]):
                logits, state = self.next_logits(text[:, :end], state)
                logits = without(logits, forbidden)
                token = next_token(logits, **options)[:, 0]
                writes = ~ended if asked is None else asked[:, end] & ~ended
                text[:, end] = token = torch.where(writes, token, text[:, end])
                yield Drawn(token, writes, logits)
                if stop is not None:
                    ended |= writes & (token == stop)
                    if ended.all():
                        break


def with_room(
    prompt: Tensor, lengths: Tensor | None, length: int, pad: int
) -> tuple[Tensor, int, Tensor | None]:  # (B, T)
    """The prompts with room for further tokens (B, T + length), the first place that any row fills, and the places that each
    is to fill, bool (B, T + length), or None for all from that one on."""
    text = torch.cat((prompt, prompt.new_full((len(prompt), length), pad)), dim=1)
    if lengths is None or not len(prompt):
        return text, prompt.shape[1], None
    check_lengths(lengths, prompt)
    place, own = torch.arange(text.shape[1], device=text.device), lengths.to(text.device)[:, None]
    return text.masked_fill(place >= own, pad), int(own.min()), (own <= place) & (place < own + length)


def log_probability(logits: Tensor, token: Tensor, temperature: float = 1.0) -> Tensor:  # (B, V), (B,) -> (B,)
    """Of each row's token, in nats, at a temperature; 0 counts as 1."""
    return (logits.float() / (temperature or 1.0)).log_softmax(dim=-1).gather(1, token[:, None])[:, 0]


def without(logits: Tensor, forbidden: Sequence[int]) -> Tensor:  # (B, V) -> (B, V)
    """The logits with those of forbidden ids at -inf.

    Raises:
        ValueError: If there is no such id, or none would be left.
    """
    if not forbidden:
        return logits
    vocab_size = logits.shape[-1]
    if min(forbidden) < 0 or max(forbidden) >= vocab_size or len(set(forbidden)) == vocab_size:
        raise ValueError(f"forbidden must be some of the ids from 0 to {vocab_size - 1:,}, not {list(forbidden)}.")
    return logits.index_fill(-1, torch.tensor(forbidden, device=logits.device), float("-inf"))


def check_lengths(lengths: Tensor, rows: Tensor) -> None:
    """Raise ValueError unless lengths are one for each row (B, T, ...), each from 1 to T."""
    if lengths.shape != rows.shape[:1]:
        raise ValueError(f"lengths must be one per row, of shape ({len(rows)},), not {tuple(lengths.shape)}.")
    if lengths.numel() and not (lengths.min() >= 1 and lengths.max() <= rows.shape[1]):
        raise ValueError(f"lengths must be from 1 to {rows.shape[1]}, the width of the rows.")


def check_generation(
    prompt: Tensor, *, length: int, temperature: float, top_k: int | None, top_p: float | None = None
) -> None:
    """Raise ValueError unless the arguments of `AutoregressiveModel.generate` are possible."""
    if prompt.dim() != 2 or prompt.shape[1] < 1:
        raise ValueError(f"prompt must be of shape (B, T) with at least one token, not {tuple(prompt.shape)}.")
    if length < 0:
        raise ValueError(f"length={length} must be at least 0.")
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must be at least 0; 0 always takes the most likely token.")
    if top_k is not None:
        check_sizes(top_k=top_k)
    if top_p is not None:
        check_positive("top_p", top_p, most=1)


def next_token(
    logits: Tensor,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None = None,
    generator: torch.Generator | None,
) -> Tensor:  # (B, V) -> (B, 1)
    """Draw the next token of each row from `distribution`; temperature 0 takes the most likely one.

    The draw happens on the generator's device, so one seed gives one text whatever the model's device.
    """
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    probabilities = distribution(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    device = logits.device if generator is None else generator.device
    return torch.multinomial(probabilities.to(device), 1, generator=generator).to(logits.device)


def distribution(
    logits: Tensor, *, temperature: float, top_k: int | None = None, top_p: float | None = None
) -> Tensor:  # (B, V) -> (B, V)
    """The probabilities that tokens are drawn with.

    temperature, above 0, divides the logits. top_k keeps the k most likely tokens; top_p keeps the nucleus, the smallest
    set of most likely tokens whose probabilities add up to at least top_p (Holtzman et al. 2019, arXiv 1904.09751), of the
    distribution that the temperature and top_k have left.
    """
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        values, ids = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, float("-inf")).scatter(-1, ids, values)
    if top_p is not None and top_p < 1:
        values, ids = logits.sort(dim=-1, descending=True)
        probabilities = values.softmax(dim=-1)
        outside = probabilities.cumsum(dim=-1) - probabilities >= top_p  # never of the first
        logits = torch.scatter(logits, -1, ids, values.masked_fill(outside, float("-inf")))
    return logits.softmax(dim=-1)
