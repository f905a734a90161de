"""Requests of OpenAI's API: which of their parameters are taken, in which range, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epochal.core.errors import did_you_mean
from epochal.inference.writing import DEFAULT_ANSWER, MOST_TOKENS, Settings

MOST_TEXTS, MOST_STOPS, MOST_ALTERNATIVES, MOST_TEMPERATURE = 128, 4, {"chat": 20, "text": 5}, 2.0
SEED = 2**63 - 1
# parameters that change no text, and are not looked at
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")
# parameters that would change the text, with the only values for which they do not
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "suffix": (None, ""),
    "echo": (None, False),
    "best_of": (None, 1),
}
SHARED = (
    "model",
    "temperature",
    "top_p",
    "top_k",
    "n",
    "stop",
    "seed",
    "stream",
    "stream_options",
    "max_tokens",
    "logprobs",
)
CHAT = (*SHARED, "messages", "max_completion_tokens", "top_logprobs")
TEXT = (*SHARED, "prompt")
DEFAULT_TEXT = 16  # tokens of a completion, as OpenAI's


class ApiError(Exception):
    """What is wrong with a request.

    Args:
        message: One sentence.
        status: Of HTTP.
        code: OpenAI's name of the error, if it has one.
        param: The parameter that is wrong.
    """

    def __init__(self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.code, self.param = message, status, code, param

    def described(self) -> dict[str, Any]:
        """The value of "error" in the response."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        model: Its name.
        prompts: One conversation, or one or several texts.
        converses: Whether it is a conversation.
        length: Most tokens to write; None: what is left of the context.
        n: Texts for each prompt.
        alternatives: Tokens to list with the log-probability of each; None: no log-probabilities.
        stream: Whether to send pieces.
        include_usage: Whether a stream ends with the numbers of tokens.
    """

    model: str
    prompts: tuple[Any, ...]
    converses: bool
    length: int | None
    temperature: float
    top_k: int | None
    top_p: float | None
    stop: tuple[str, ...]
    seed: int | None
    n: int
    alternatives: int | None
    stream: bool
    include_usage: bool

    @property
    def prompt_name(self) -> str:
        """The parameter with the prompts."""
        return "messages" if self.converses else "prompt"

    def settings(self, room: int | None) -> Settings:
        """How to draw, where the context has room for so many tokens; None: any number."""
        lengths = [length for length in (self.length, room) if length is not None]
        return Settings(
            length=min(lengths, default=DEFAULT_ANSWER),
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            stop=self.stop,
            seed=self.seed,
            rows=self.n,
            alternatives=self.alternatives,
        )


def chat_request(given: Mapping[str, Any]) -> Request:
    """That of a body of POST /v1/chat/completions.

    Raises:
        ApiError: If a parameter is unknown, missing, wrong, or one whose effect this server does not have.
    """
    check_names(given, CHAT)
    length = whole(given, "max_completion_tokens", 1, MOST_TOKENS)
    length = whole(given, "max_tokens", 1, MOST_TOKENS) if length is None else length
    wanted, top = flag(given, "logprobs"), whole(given, "top_logprobs", 0, MOST_ALTERNATIVES["chat"])
    if top is not None and not wanted:
        raise ApiError("top_logprobs goes with logprobs=true.", param="top_logprobs")
    return _request(given, (messages(given),), True, length, (top or 0) if wanted else None)


def completion_request(given: Mapping[str, Any]) -> Request:
    """That of a body of POST /v1/completions.

    Raises:
        ApiError: See `chat_request`.
    """
    check_names(given, TEXT)
    prompt = given.get("prompt")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(isinstance(text, str) for text in prompts):
        raise ApiError("prompt must be a text, or a list of texts.", param="prompt")
    if len(prompts) > MOST_TEXTS:
        raise ApiError(f"prompt must be at most {MOST_TEXTS} texts, not {len(prompts):,}.", param="prompt")
    length = whole(given, "max_tokens", 1, MOST_TOKENS)
    alternatives = whole(given, "logprobs", 0, MOST_ALTERNATIVES["text"])
    return _request(given, tuple(prompts), False, DEFAULT_TEXT if length is None else length, alternatives)


def _request(
    given: Mapping[str, Any], prompts: tuple[Any, ...], converses: bool, length: int | None, alternatives: int | None
) -> Request:
    """What both kinds have in common."""
    model = given.get("model")
    if not isinstance(model, str):
        raise ApiError("model must be the name of a model; GET /v1/models lists them.", param="model")
    stream, options = flag(given, "stream"), given.get("stream_options")
    if options is not None and (
        not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}
    ):
        raise ApiError('stream_options must be an object such as {"include_usage": true}.', param="stream_options")
    if options and not stream:
        raise ApiError("stream_options goes with stream=true.", param="stream_options")
    temperature = number(given, "temperature", 0, MOST_TEMPERATURE)
    top_p = number(given, "top_p", 0, 1)
    if top_p == 0:
        raise ApiError("top_p=0 leaves no token; temperature=0 takes the most likely one.", param="top_p")
    return Request(
        model=model,
        prompts=prompts,
        converses=converses,
        length=length,
        temperature=1.0 if temperature is None else temperature,
        top_k=whole(given, "top_k", 1),
        top_p=top_p,
        stop=stops(given),
        seed=whole(given, "seed", 0, SEED),
        n=whole(given, "n", 1, MOST_TEXTS) or 1,
        alternatives=alternatives,
        stream=stream,
        include_usage=flag(options or {}, "include_usage"),
    )


def check_names(given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises ApiError for a parameter that is unknown, or would change a text in a way that this server does not."""
    for name, value in given.items():
        if name in known or name in IGNORED:
            continue
        if name not in NEUTRAL:
            raise ApiError(f"There is no parameter {name}.{did_you_mean(name, known)}", param=name)
        if value not in NEUTRAL[name]:
            raise ApiError(f"{name} is not supported here; leave it out.", param=name)


def messages(given: Mapping[str, Any]) -> list[Any]:
    """The conversation, not yet checked: `data.chat_template.check` says what makes one.

    Raises:
        ApiError: If there is none, or a content is neither a text nor a list of texts.
    """
    found = given.get("messages")
    if not isinstance(found, list) or not found:
        raise ApiError('messages must be a list such as [{"role": "user", "content": "..."}].', param="messages")
    return [message_of(message) if isinstance(message, dict) else message for message in found]


def message_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with its content as one text, and the system's under the name that it has here.

    Raises:
        ApiError: If a part of its content is no text.
    """
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise ApiError("A content must be a text, or a list of parts of the type text.", param="messages")
        content = "".join(part["text"] for part in content)
    kept = {"role": "system" if role == "developer" else role, "content": content}
    return {name: value for name, value in kept.items() if name in message}


def stops(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts that end an answer.

    Raises:
        ApiError: If they are none.
    """
    stop = given.get("stop")
    found = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(found, list) or len(found) > MOST_STOPS or not all(isinstance(t, str) and t for t in found):
        raise ApiError(f"stop must be a text, or a list of at most {MOST_STOPS}, none of them empty.", param="stop")
    return tuple(found)


def number(given: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    """A number in a range; None where it is not given.

    Raises:
        ApiError: If it is something else.
    """
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ApiError(f"{name}={shown(value)} must be a number from {least:g} to {most:g}.", param=name)
    return float(value)


def whole(given: Mapping[str, Any], name: str, least: int, most: int | None = None) -> int | None:
    """A whole number in a range; None where it is not given.

    Raises:
        ApiError: If it is something else.
    """
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        upto = "" if most is None else f" and at most {most:,}"
        raise ApiError(f"{name}={shown(value)} must be a whole number of at least {least}{upto}.", param=name)
    return value


def flag(given: Mapping[str, Any], name: str) -> bool:
    """True or false; false where it is not given.

    Raises:
        ApiError: If it is something else.
    """
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise ApiError(f"{name}={shown(value)} must be true or false.", param=name)
    return bool(value)


def shown(value: Any) -> str:
    """A wrong value in a message, not too much of it."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
