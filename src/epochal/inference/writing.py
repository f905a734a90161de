"""Text as a language model writes it: prompts and conversations to ids, drawn tokens to pieces of text, up to a stop."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from epochal.core.errors import ConfigError
from epochal.core.protocols import StreamsTokens
from epochal.data.chat_template import Message, render
from epochal.data.tokenizers import REPLACEMENT, Tokenizer
from epochal.inference.load import SavedRun, opened
from epochal.tasks.sequences import prompt_ids
from epochal.training.factories import new_data

MOST_TOKENS = 100_000  # of a text; room for them is made when it begins
DEFAULT_ANSWER = 1024  # tokens of an answer where neither the user nor the context ends it
WINDOW, KEPT = 64, 8  # tokens that are decoded together, and how many of them when the window moves


class ContextFullError(ValueError):
    """A prompt leaves no room in the network's context."""


@dataclass(frozen=True)
class Settings:
    """How to draw.

    Attributes:
        length: Most tokens to write; END counts.
        temperature: Divides the logits; 0 is greedy.
        top_k, top_p: As of `generate`.
        stop: Texts that end an answer, of which they are no part.
        seed: One text for each; None: another text each time.
        rows: How many texts.
        alternatives: How many of the most probable tokens to list with each token; None: no log-probabilities.
    """

    length: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    rows: int = 1
    alternatives: int | None = None


@dataclass(frozen=True)
class Scored:
    """A token with its natural log-probability at temperature 1, of all tokens that may be drawn.

    Attributes:
        text: Of this token alone.
        log_probability: In nats.
        alternatives: The most probable tokens at its place and their log-probabilities.
    """

    text: str
    log_probability: float
    alternatives: tuple[tuple[str, float], ...] = ()


class Piece(NamedTuple):
    """What one token adds to a text.

    Attributes:
        row: Number of the text.
        text: May be empty, while a character or a stop is not yet whole.
        finish: "stop" after END or one of the stops, "length" after the last token, None: the text goes on.
        scored: The token, where log-probabilities are asked for and it is no END.
    """

    row: int
    text: str
    finish: str | None
    scored: Scored | None


@dataclass
class Decoder:
    """Ids to text, one at a time, without half characters: what a later id may change is held back.

    Attributes:
        ids: The last ones; at first the end of a text that is gone on with, so that a space between it and the next word
            is not lost.
        sent: Number of characters of their text that were handed out.
    """

    tokenizer: Any
    ids: list[int] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self.sent = len(self.tokenizer.decode(self.ids))

    def add(self, token: int) -> str:
        """The text that is whole now and was not before."""
        if len(self.ids) >= WINDOW:
            held = len(self.tokenizer.decode(self.ids)) - self.sent
            self.ids = self.ids[-KEPT:]
            self.sent = len(self.tokenizer.decode(self.ids)) - held
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids)
        whole = text[:-1] if text.endswith(REPLACEMENT) else text  # the first bytes of a character, perhaps
        new, self.sent = whole[self.sent :], max(self.sent, len(whole))
        return new

    def rest(self) -> str:
        """What was held back."""
        return self.tokenizer.decode(self.ids)[self.sent :]


@dataclass
class Stops:
    """Looks for the first of some texts in a text that comes in pieces, and holds back what may be its beginning."""

    texts: Sequence[str]
    held: str = ""

    def add(self, text: str) -> tuple[str, bool]:
        """What is certainly before any stop, and whether one was found."""
        self.held += text
        if found := [place for stop in self.texts if (place := self.held.find(stop)) >= 0]:
            return self.held[: min(found)], True
        begun = (size for stop in self.texts for size in range(1, len(stop)) if self.held.endswith(stop[:size]))
        certain = len(self.held) - max(begun, default=0)
        before, self.held = self.held[:certain], self.held[certain:]
        return before, False


class Row:
    """One text that is being written."""

    def __init__(self, number: int, decoder: Decoder, stops: Stops) -> None:
        self.number, self.finished = number, False
        self._decoder, self._stops = decoder, stops

    def add(self, token: int, *, end: int | None, last: bool, scored: Scored | None) -> Piece:
        """What a token adds.

        Args:
            token: Drawn.
            end: Id of END, if there is one.
            last: Whether it is the last one.
            scored: The token with its log-probability.
        """
        if token == end:
            text, stopped = self._stops.add(self._decoder.rest())
            return self._finished(text if stopped else text + self._stops.held, "stop", None)
        text, stopped = self._stops.add(self._decoder.add(token))
        if stopped:
            return self._finished(text, "stop", scored)
        if last:  # without the half of a character
            return self._finished(text + self._stops.held, "length", scored)
        return Piece(self.number, text, None, scored)

    def _finished(self, text: str, why: str, scored: Scored | None) -> Piece:
        self.finished = True
        return Piece(self.number, text, why, scored)


class Writer:
    """A language model, its tokenizer, and how it reads texts.

    Args:
        model: In eval mode, on the device.
        tokenizer: Of its data.
        begins: Whether a text begins with BEGIN: single texts, not running text.
        converses: Whether it has learned to answer as the assistant of a conversation.

    Attributes:
        forbidden: Reserved ids that are never drawn.
    """

    def __init__(self, model: Any, tokenizer: Any, *, begins: bool, converses: bool) -> None:
        self.model, self.tokenizer, self.converses = model, tokenizer, converses
        self._begin = [tokenizer.ids.begin] if begins and tokenizer.ids.begin is not None else []
        self.forbidden = [token for token in tokenizer.ids.known() if token != tokenizer.ids.end]

    @property
    def context(self) -> int | None:
        """Most tokens that the network reads at once; None: any number."""
        return self.model.context_length

    def text_prompt(self, text: str, *, cut: bool = False) -> list[int]:
        """Ids of a text to go on with.

        Args:
            text: The text.
            cut: Leave the beginning of a text out that is longer than the context.

        Raises:
            ContextFullError: If it is longer than the context.
            ValueError: If it is empty, or has characters that the vocabulary lacks.
        """
        ids = prompt_ids(self.tokenizer, text, longest=None)
        if cut and self.context is not None:
            ids = ids[len(self._begin) - self.context :]
        ids = [*self._begin, *ids]
        if self.context is not None and len(ids) > self.context:
            raise ContextFullError(
                f"The prompt has {len(ids):,} tokens, but {self.context:,} are the most that the model reads."
            )
        return ids

    def conversation_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation that the assistant is to answer.

        Raises:
            ContextFullError: If it leaves no room for an answer in the context.
            ValueError: If the messages are no conversation, see `data.chat_template.render`, or have characters that the
                vocabulary lacks.
        """
        ids: list[int] = render(messages, self.tokenizer, generation_prompt=True)[0].tolist()
        if missing := self.tokenizer.missing("".join(message["content"] for message in messages)):
            raise ValueError(f"The vocabulary lacks these characters of the messages: {' '.join(map(repr, missing))}")
        if self.context is not None and len(ids) >= self.context:
            raise ContextFullError(
                f"The messages have {len(ids):,} tokens, which leaves no room for an answer: the model reads at most "
                f"{self.context:,} at once. Shorten them."
            )
        return ids

    def room(self, prompt: Sequence[int]) -> int | None:
        """How many tokens the context has left after a prompt; None: any number."""
        return None if self.context is None else max(self.context - len(prompt), 0)

    def write(self, prompt: Sequence[int], settings: Settings) -> Generator[Piece]:
        """Texts that go on from the ids of a prompt, token by token; to be closed where it is not taken to its end.

        Raises:
            ValueError: If a setting is out of range.
        """
        before = self._text_at_end(prompt)
        rows = [
            Row(number, Decoder(self.tokenizer, before[:]), Stops(settings.stop)) for number in range(settings.rows)
        ]
        end, seed = self.tokenizer.ids.end, secrets.randbits(62) if settings.seed is None else settings.seed
        device = next(self.model.parameters()).device
        steps = self.model.stream(
            torch.tensor(prompt, device=device).expand(settings.rows, -1),
            length=settings.length,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            stop=end,
            forbidden=self.forbidden,
            generator=torch.Generator().manual_seed(seed),  # on the CPU: one seed writes one text on any device
        )
        with closing(steps):
            for number, step in enumerate(steps, start=1):
                for row, token, logits in zip(rows, step.token.tolist(), step.logits):
                    if not row.finished:
                        scored = self._scored(token, logits, settings.alternatives) if token != end else None
                        yield row.add(token, end=end, last=number == settings.length, scored=scored)
                if all(row.finished for row in rows):
                    break

    def _text_at_end(self, prompt: Sequence[int]) -> list[int]:
        """The last ids of a prompt, as far as they are text and no reserved id comes after them."""
        reserved, found = set(self.tokenizer.ids.known()), list[int]()
        for token in reversed(prompt[-KEPT:]):
            if token in reserved:
                break
            found.insert(0, token)
        return found

    def _scored(self, token: int, logits: Tensor, alternatives: int | None) -> Scored | None:  # (V,)
        if alternatives is None:
            return None
        logs = logits.float().log_softmax(-1)
        values, ids = logs.topk(min(alternatives, len(logs) - len(self.forbidden)))
        best = zip(ids.tolist(), values.tolist())
        decode = self.tokenizer.decode
        return Scored(decode([token]), logs[token].item(), tuple((decode([number]), value) for number, value in best))


def opened_writer(config: DictConfig) -> tuple[SavedRun, Writer]:
    """The language model that `run` or `checkpoint` of a command names, on its `device`.

    Raises:
        ConfigError: If the folder or file is no run's, it holds no language model, or there is no such device.
    """
    device = device_of(str(config.device))
    saved = opened(config)
    task = saved.task()
    data = new_data(saved.config, saved.data)
    data.restore(saved.inputs, saved.outputs)
    tokenizer = getattr(data, "tokenizer", None)
    if task.head != "next_token" or not isinstance(task.model, StreamsTokens) or not isinstance(tokenizer, Tokenizer):
        raise ConfigError(
            f"Only a language model writes text; {saved.folder.name} learned {str(saved.config.task.name).replace('_', ' ')} "
            f"on {saved.config.dataset.name}. Name another with run=<folder>."
        )
    model: Any = task.model
    begins, converses = data.prompt is None, data.conversational
    return saved, Writer(model.to(device).eval(), tokenizer, begins=begins, converses=converses)


def device_of(name: str) -> torch.device:
    """auto is a GPU if there is one, else the CPU.

    Raises:
        ConfigError: If there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device={name} is not here; give auto, cpu, or the name of a GPU such as cuda:0.") from error
    return device
