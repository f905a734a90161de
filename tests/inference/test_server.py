"""The server: OpenAI's addresses over plain HTTP, streams, several requests at once, and requests that are wrong."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from epochal.data.chat_template import render
from epochal.data.tokenizers import Bytes, Characters
from epochal.inference.server import LARGEST
from epochal.inference.writing import Writer
from helpers.writers import scripted, served

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
TEXT = {"model": "tiny", "prompt": "Hello"}


class Client:
    """Sends requests to a server of this process."""

    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, body: Any, path: str = "/v1/chat/completions", method: str = "POST") -> http.client.HTTPResponse:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        self.connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body).encode())
        return self.connection.getresponse()

    def __call__(self, body: Any = b"", path: str = "/v1/chat/completions", method: str = "POST") -> tuple[int, Any]:
        """Status and JSON of the answer."""
        response = self.send(body, path, method)
        return response.status, json.loads(response.read())

    def chat(self, **more: Any) -> tuple[int, Any]:
        return self({**HELLO, **more})

    def text(self, **more: Any) -> tuple[int, Any]:
        return self({**TEXT, **more}, "/v1/completions")

    def events(self, body: Any, path: str = "/v1/chat/completions") -> list[Any]:
        """Those of a stream."""
        response = self.send({**body, "stream": True}, path)
        assert response.getheader("Content-Type") == "text/event-stream", response.read()
        lines = response.read().decode().split("\n\n")
        assert all(line.startswith("data: ") for line in lines[:-1]) and lines[-1] == ""
        assert lines[-2] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


@pytest.fixture
def serve() -> Iterator[Callable[[Writer], Client]]:
    """Serves a writer on a free port until the test ends."""
    with ExitStack() as stack:
        yield lambda writer: Client(stack.enter_context(served(writer)))


def test_it_lists_its_model(serve):
    ask = serve(scripted("Hi."))
    described = {"id": "tiny", "object": "model", "created": 7, "owned_by": "epochal"}
    assert ask(path="/v1/models", method="GET") == (200, {"object": "list", "data": [described]})
    assert ask(path="/v1/models/tiny", method="GET") == (200, described)
    assert ask(path="/v1/models/large", method="GET")[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example:80", "evil.example", "127.0.0.1.evil.example:80", "evil.example:localhost"]
)
def test_a_page_of_another_name_is_not_answered(serve, host):
    ask = serve(scripted("Hi."))
    connection = http.client.HTTPConnection("127.0.0.1", ask.port, timeout=20)
    connection.request("POST", "/v1/chat/completions", json.dumps(HELLO).encode(), {"Host": host})
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["type"]) == (403, "invalid_request_error")


def test_a_name_may_have_slashes():
    with served(scripted("Hi."), "me/tiny") as port:
        assert Client(port)(path="/v1/models/me/tiny", method="GET")[1]["id"] == "me/tiny"


def test_a_conversation_is_answered(serve):
    writer = scripted("Hi 漢.")
    said = [("developer", "Be kind."), ("user", "Hello"), ("assistant", "Hi."), ("user", "Bye")]
    messages = [{"role": role, "content": content} for role, content in said]
    status, answer = serve(writer).chat(messages=messages)
    assert status == 200 and answer["object"] == "chat.completion" and answer["model"] == "tiny"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi 漢.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    read = render([{"role": "system", "content": "Be kind."}, *messages[1:]], Bytes(), generation_prompt=True)[
        0
    ].tolist()
    assert writer.model.prompts == [read]
    assert answer["usage"] == {"prompt_tokens": len(read), "completion_tokens": 8, "total_tokens": len(read) + 8}


def test_content_may_come_in_parts(serve):
    ask = serve(scripted("Hi."))
    parts = [{"type": "text", "text": "He"}, {"type": "text", "text": "llo"}]
    assert ask.chat(messages=[{"role": "user", "content": parts}])[1]["usage"] == ask.chat()[1]["usage"]


def test_a_stream_brings_whole_characters_and_says_why_it_ended(serve):
    ask = serve(scripted("é漢!"))
    first, *events = ask.events({**HELLO, "stream_options": {"include_usage": True}})
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    *pieces, last, usage = events
    assert [event["choices"][0]["delta"] for event in pieces] == [{"content": text} for text in "é漢!"]
    assert last["choices"][0]["delta"] == {} and last["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 7
    assert {event["object"] for event in events} == {"chat.completion.chunk"} and len({e["id"] for e in events}) == 1
    assert all(event["usage"] is None for event in (first, *pieces, last))


def test_a_text_is_gone_on_with(serve):
    writer = scripted(" there, friend", converses=False)
    ask = serve(writer)
    status, answer = ask.text(max_tokens=6)
    assert status == 200 and answer["object"] == "text_completion"
    assert answer["choices"] == [{"index": 0, "text": " there", "logprobs": None, "finish_reason": "length"}]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    assert bytes(token - 8 for token in writer.model.prompts[0]) == b"Hello"
    assert ask.text(stop=", ")[1]["choices"][0] == {
        **answer["choices"][0],
        "finish_reason": "stop",
    }
    assert len(ask.text()[1]["choices"][0]["text"]) == len(" there, friend")


def test_several_prompts_and_several_answers_are_numbered(serve):
    writer = scripted("ab", "abcd", converses=False)
    ask = serve(writer)
    choices = ask.text(prompt=["x", "yz"], n=2)[1]["choices"]
    assert [(choice["index"], choice["text"]) for choice in choices] == [(0, "ab"), (1, "abcd"), (2, "ab"), (3, "abcd")]
    events = ask.events({**TEXT, "prompt": ["x", "yz"], "n": 2}, "/v1/completions")
    texts = {index: "" for index in range(4)}
    for event in events:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["text"]
    assert list(texts.values()) == ["ab", "abcd", "ab", "abcd"]


def test_log_probabilities_come_with_the_tokens(serve):
    ask = serve(scripted("ab"))
    told = ask.chat(logprobs=True, top_logprobs=2)[1]["choices"][0]["logprobs"]["content"]
    assert [(token["token"], token["bytes"], token["logprob"]) for token in told] == [
        ("a", [97], 0.0),
        ("b", [98], 0.0),
    ]
    assert [len(token["top_logprobs"]) for token in told] == [2, 2]
    events = ask.events({**HELLO, "logprobs": True})
    streamed = [event["choices"][0]["logprobs"]["content"] for event in events[1:-1]]
    assert [token["token"] for (token,) in streamed] == ["a", "b"]
    logprobs = ask.text(logprobs=1)[1]["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["a", "b"] and logprobs["text_offset"] == [0, 1]
    assert logprobs["top_logprobs"] == [{"a": 0.0}, {"b": 0.0}]


def test_an_answer_ends_where_the_context_ends(serve):
    prompt = len(render(HELLO["messages"], Bytes(), generation_prompt=True)[0])
    ask = serve(scripted("a" * 99, context_length=prompt + 4))
    choice = ask.chat(max_completion_tokens=50)[1]["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("aaaa", "length")
    status, answer = ask.chat(messages=[{"role": "user", "content": "Hello you"}])
    assert status == 400 and answer["error"]["code"] == "context_length_exceeded"
    assert answer["error"]["param"] == "messages" and "leaves no room for an answer" in answer["error"]["message"]
    assert ask.text(prompt="a" * 99)[1]["error"]["code"] == "context_length_exceeded"


def test_requests_at_once_take_turns_and_others_need_not_wait(serve):
    ask = serve(scripted("a" * 100, seconds=0.005))
    began, order = time.monotonic(), list[str]()

    def one(length: int) -> int:
        answer = Client(ask.port).chat(max_tokens=length)[1]
        order.append(str(length))
        return len(answer["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(one, length) for length in (90, 80, 5)]
        time.sleep(0.05)
        asked = time.monotonic()
        assert Client(ask.port)(path="/v1/models", method="GET")[0] == 200
        assert time.monotonic() - asked < 0.3
        assert [each.result() for each in found] == [90, 80, 5]
    assert order[0] == "5" and time.monotonic() - began >= 0.8


@pytest.mark.parametrize("stream", [True, False])
def test_the_network_stops_for_a_client_that_goes_away(serve, stream):
    writer = scripted("a" * 5000, seconds=0.01)
    ask = serve(writer)
    body = json.dumps({**HELLO, "stream": stream, "max_tokens": 4000}).encode()
    with socket.create_connection(("127.0.0.1", ask.port)) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:80\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        while writer.model.steps < 5:
            time.sleep(0.01)
    assert ask.chat(max_tokens=3)[0] == 200
    time.sleep(0.1)
    steps = writer.model.steps
    time.sleep(0.1)
    assert writer.model.steps == steps < 100


def test_it_ends_in_the_middle_of_a_stream(serve):
    ask = serve(scripted("a" * 5000, seconds=0.01))
    response = ask.send({**HELLO, "stream": True, "max_tokens": 4000})
    assert response.readline().startswith(b"data: ")  # the fixture joins the server's thread


@pytest.mark.parametrize(
    "body, status, code, param, says",
    [
        (b"{", 400, None, None, "The request cannot be read as JSON"),
        (b"\xff\xfe", 400, None, None, "The request cannot be read as JSON"),
        (b"[" * 100_000, 400, None, None, "nested too deeply"),
        (b"[]", 400, None, None, "The request must be a JSON object, not list."),
        (b" " * (LARGEST + 1), 413, None, None, "larger than 1,000,000 bytes"),
        (
            {**HELLO, "model": "gpt-4"},
            404,
            "model_not_found",
            "model",
            "The model 'gpt-4' is not here; this server has 'tiny'.",
        ),
        ({"messages": HELLO["messages"]}, 400, None, "model", "model must be the name of a model"),
        ({"model": "tiny"}, 400, None, "messages", "messages must be a list"),
        ({**HELLO, "messages": []}, 400, None, "messages", "messages must be a list"),
        ({**HELLO, "messages": ["Hello"]}, 400, None, "messages", "Message 1 must be like"),
        ({**HELLO, "messages": [{"role": "tool", "content": "x"}]}, 400, None, "messages", "has the role 'tool'"),
        ({**HELLO, "messages": [{"role": "user"}]}, 400, None, "messages", "Message 1 must be like"),
        ({**HELLO, "messages": [{"role": "system", "content": "x"}]}, 400, None, "messages", "no message of the user"),
        (
            {**HELLO, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            None,
            "messages",
            "parts of the type text",
        ),
        ({**HELLO, "temperature": 2.5}, 400, None, "temperature", "temperature=2.5 must be a number from 0 to 2."),
        ({**HELLO, "temperature": "hot"}, 400, None, "temperature", "temperature=hot must be a number from 0 to 2."),
        (b'{"model": "tiny", "messages": [], "temperature": NaN}', 400, None, "messages", "messages must be a list"),
        ({**HELLO, "temperature": float("nan")}, 400, None, "temperature", "temperature=nan must be a number"),
        ({**HELLO, "top_p": 0}, 400, None, "top_p", "top_p=0 leaves no token"),
        ({**HELLO, "n": 0}, 400, None, "n", "n=0 must be a whole number of at least 1 and at most 128."),
        ({**HELLO, "max_tokens": 10**12}, 400, None, "max_tokens", "at most 100,000"),
        ({**HELLO, "stop": [""]}, 400, None, "stop", "stop must be a text"),
        ({**HELLO, "seed": 1.5}, 400, None, "seed", "seed=1.5 must be a whole number"),
        ({**HELLO, "stream": "yes"}, 400, None, "stream", "stream=yes must be true or false."),
        ({**HELLO, "stream_options": {"include_usage": True}}, 400, None, "stream_options", "goes with stream=true"),
        ({**HELLO, "top_logprobs": 2}, 400, None, "top_logprobs", "top_logprobs goes with logprobs=true."),
        ({**HELLO, "presence_penalty": 1}, 400, None, "presence_penalty", "presence_penalty is not supported here"),
        ({**HELLO, "tools": [{}]}, 400, None, "tools", "tools is not supported here"),
        (
            {**HELLO, "temprature": 1},
            400,
            None,
            "temprature",
            "There is no parameter temprature. Did you mean temperature?",
        ),
    ],
)
def test_a_wrong_request_is_answered_with_an_error_of_openais_form(serve, body, status, code, param, says):
    found, answer = serve(scripted("Hi."))(body)
    assert found == status and set(answer) == {"error"}
    assert answer["error"] | {"message": ""} == {
        "message": "",
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }
    assert says in answer["error"]["message"]


@pytest.mark.parametrize(
    "more, says",
    [
        ({"prompt": 5}, "prompt must be a text, or a list of texts."),
        ({"prompt": []}, "prompt must be a text, or a list of texts."),
        ({"prompt": ""}, "The prompt is empty"),
        ({"prompt": "漢"}, "The vocabulary lacks these characters of the prompt: '漢'"),
        ({"logprobs": 6}, "logprobs=6 must be a whole number of at least 0 and at most 5."),
        ({"echo": True}, "echo is not supported here"),
    ],
)
def test_a_wrong_text_is_refused(serve, more, says):
    status, answer = serve(scripted("Hi.", tokenizer=Characters("Helo Hi."))).text(**more)
    assert status == 400 and says in answer["error"]["message"]


def test_ten_megabytes_are_refused_also_where_their_size_is_not_told(serve):
    ask = serve(scripted("Hi."))
    status, answer = ask(b" " * 10_000_000)
    assert status == 413 and "larger than 1,000,000 bytes" in answer["error"]["message"]
    connection = http.client.HTTPConnection("127.0.0.1", ask.port, timeout=20)
    parts = (b" " * 500_000 for _ in range(20))
    with suppress(ConnectionError):  # the server has answered, and reads no more
        connection.request("POST", "/v1/completions", parts, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert connection.getresponse().status == 413
    assert ask.chat()[0] == 200


def test_what_is_not_there_is_an_error_of_the_same_form(serve):
    ask = serve(scripted("Hi."))
    assert ask(path="/v1/embeddings")[0] == 404
    status, answer = ask(path="/v1/completions", method="GET")
    assert status == 405 and "GET /v1/completions is nothing that this server offers" in answer["error"]["message"]


def test_a_network_without_conversations_says_what_it_can_do(serve):
    status, answer = serve(scripted("x", converses=False)).chat()
    assert status == 400 and "was not trained on conversations" in answer["error"]["message"]


def test_a_bug_is_no_silent_end(serve, monkeypatch, capsys):
    ask = serve(scripted("Hi."))
    monkeypatch.setattr(Writer, "conversation_prompt", lambda self, messages: 1 / 0)
    status, answer = ask.chat()
    assert status == 500 and answer["error"]["type"] == "server_error"
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.fixture
def text_run(trained, copied):
    return f"run={copied('run', 'text')}"


def test_a_port_that_is_taken_or_none_is_said(text_run, refuse):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refuse("serve", text_run, f"port={port}", says=[f"port={port} of 127.0.0.1 cannot be opened (", "give another"])
    refuse("serve", text_run, "port=70000", says=["port=70000 must be a whole number from 0 to 65535"])
    refuse("serve", text_run, "port=http", says=["port=http is not a number"])
