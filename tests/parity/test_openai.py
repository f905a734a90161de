"""The client of OpenAI talks to our server as to its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from helpers.writers import scripted, served

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.parity

HELLO: Any = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]


@pytest.fixture
def client() -> Iterator[Callable[..., Any]]:
    """A client of a server that writes these texts."""
    with ExitStack() as stack:

        def start(*texts: str, **options: Any) -> Any:
            port = stack.enter_context(served(scripted(*texts, **options)))
            address = f"http://127.0.0.1:{port}/v1"
            return stack.enter_context(openai.OpenAI(base_url=address, api_key="none", max_retries=0))

        yield start


def test_it_lists_and_retrieves_models(client):
    talk = client("Hi.")
    assert [model.id for model in talk.models.list()] == ["tiny"]
    assert talk.models.retrieve("tiny").created == 7
    with pytest.raises(openai.NotFoundError):
        talk.models.retrieve("large")


def test_it_reads_a_conversation(client):
    found = client("Hi 漢!").chat.completions.create(
        model="tiny", messages=HELLO, temperature=0, max_completion_tokens=20, seed=1, logprobs=True, top_logprobs=2
    )
    (choice,) = found.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hi 漢!", "stop")
    assert found.usage.completion_tokens == 8
    assert found.usage.total_tokens == found.usage.prompt_tokens + 8
    assert choice.logprobs.content[0].token == "H" and len(choice.logprobs.content[0].top_logprobs) == 2


def test_it_reads_a_stream(client):
    with client("Hi 漢!").chat.completions.create(
        model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    deltas = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(deltas) == "Hi 漢!" and len(deltas) == 7
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == 8


def test_a_stream_that_is_left_stops_the_network(client):
    talk = client("a" * 5000, seconds=0.005)
    with talk.chat.completions.create(model="tiny", messages=HELLO, stream=True) as stream:
        for _, _ in zip(range(4), stream):
            pass
    assert talk.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2).choices[0].message.content == "aa"


def test_it_reads_texts(client):
    talk = client(" there, friend", converses=False)
    found = talk.completions.create(model="tiny", prompt=["Hello", "Bye"], n=2, stop=[", "], logprobs=1)
    assert [(choice.index, choice.text, choice.finish_reason) for choice in found.choices] == [
        (number, " there", "stop") for number in range(4)
    ]
    assert found.choices[0].logprobs.tokens[:3] == [" ", "t", "h"]
    chunks = list(talk.completions.create(model="tiny", prompt="Hello", stream=True, max_tokens=6))
    assert "".join(chunk.choices[0].text for chunk in chunks) == " there"
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    "options, error, code, says",
    [
        ({"model": "gpt-4"}, "NotFoundError", "model_not_found", "this server has 'tiny'"),
        ({"temperature": 3}, "BadRequestError", None, "temperature=3 must be a number from 0 to 2."),
        ({"messages": []}, "BadRequestError", None, "messages must be a list"),
        (
            {"messages": [{"role": "user", "content": "x" * 200}]},
            "BadRequestError",
            "context_length_exceeded",
            "no room",
        ),
        (
            {"messages": [{"role": "user", "content": "x" * 10_000_000}]},
            "APIStatusError",
            None,
            "larger than 1,000,000",
        ),
    ],
)
def test_it_knows_our_errors(client, options, error, code, says):
    with pytest.raises(getattr(openai, error), match=says) as raised:
        client("Hi.", context_length=100).chat.completions.create(**{"model": "tiny", "messages": HELLO, **options})
    assert raised.value.code == code and raised.value.type == "invalid_request_error"
