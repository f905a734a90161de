"""The serve command: a language model on this machine behind the addresses of OpenAI's API.

POST /v1/chat/completions, POST /v1/completions, GET /v1/models. https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from omegaconf import DictConfig

from epochal.core.files import relative
from epochal.core.format import say
from epochal.core.web import HOST, check_host, checked_port, run_server
from epochal.inference.requests import ApiError, Request, chat_request, completion_request
from epochal.inference.writing import ContextFullError, Piece, Scored, Settings, Writer, opened_writer

LARGEST = 1_000_000  # bytes of a request
END = object()  # of an iterator


class Model:
    """The language model that is served. All its steps are taken in one thread, in turn, so that none waits for the end of
    another's text, and the event loop waits for none.

    Args:
        writer: The network.
        name: As requests name it.
        created: Seconds since 1970 at which its run ended.
    """

    def __init__(self, writer: Writer, name: str, created: int) -> None:
        self.writer, self.name, self.created = writer, name, created
        self._thread = ThreadPoolExecutor(1, "model")

    async def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function in the model's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *arguments))

    async def write(self, prompt: list[int], settings: Settings) -> AsyncGenerator[Piece]:
        """The pieces of `Writer.write`; where it is closed early, as when a client went away, the network stops."""
        pieces = self.writer.write(prompt, settings)
        try:
            while (piece := await self.do(next, pieces, END)) is not END:
                yield piece
        finally:
            self._thread.submit(pieces.close)  # after the step that is perhaps under way

    def described(self) -> dict[str, Any]:
        """As /v1/models lists it."""
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "epochal"}


MODEL = web.AppKey("model", Model)


def application(model: Model) -> web.Application:
    """The server's addresses."""
    app = web.Application(client_max_size=LARGEST, middlewares=[errors])
    app[MODEL] = model
    app.add_routes(
        [
            web.get("/v1/models", list_models),
            web.get("/v1/models/{name:.+}", one_model),  # a slash may be in it
            web.post("/v1/chat/completions", partial(complete, read=chat_request, kind=Chat)),
            web.post("/v1/completions", partial(complete, read=completion_request, kind=Completion)),
        ]
    )
    return app


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers whoever names this machine (see check_host), and turns whatever is wrong into the JSON of OpenAI's errors."""
    try:
        check_host(request)
        return await handler(request)
    except ApiError as error:
        return error_response(error)
    except web.HTTPForbidden as error:  # of check_host
        return error_response(ApiError(str(error.text), status=error.status))
    except web.HTTPRequestEntityTooLarge:
        return error_response(too_large())
    except web.HTTPException as error:
        there = ", ".join(["POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models"])
        what = f"{request.method} {request.path} is nothing that this server offers. There are: {there}."
        return error_response(ApiError(what, status=error.status))
    except ConnectionError:  # the client went away
        raise
    except Exception:
        traceback.print_exc()
        return error_response(ApiError("A bug of Epochal: the server's terminal shows it.", status=500))


def too_large() -> ApiError:
    return ApiError(f"The request is larger than {LARGEST:,} bytes, the most that is read.", status=413)


def error_response(error: ApiError) -> web.Response:
    return web.json_response({"error": error.described()}, status=error.status)


async def list_models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [request.app[MODEL].described()]})


async def one_model(request: web.Request) -> web.Response:
    model = request.app[MODEL]
    model_named(model, request.match_info["name"])
    return web.json_response(model.described())


def model_named(model: Model, name: str) -> None:
    """Raises ApiError unless the model has this name."""
    if name != model.name:
        told = f"The model {name!r} is not here; this server has {model.name!r}."
        raise ApiError(told, status=404, code="model_not_found", param="model")


async def complete(
    request: web.Request, read: Callable[[Mapping[str, Any]], Request], kind: type[Chat] | type[Completion]
) -> web.StreamResponse:
    """Answers a request for text, at once or as a stream of events.

    Args:
        request: With a JSON object.
        read: Checks the object.
        kind: The form of the answer.
    """
    model = request.app[MODEL]
    asked = read(await json_object(request))
    model_named(model, asked.model)
    prompts = [await model.do(prepared, model.writer, asked, prompt) for prompt in asked.prompts]
    answer = kind(model.name, asked, sum(len(prompt) for prompt, _ in prompts))
    if asked.stream:
        return await streamed(request, model, prompts, answer)
    for number, (prompt, settings) in enumerate(prompts):
        async with aclosing(model.write(prompt, settings)) as pieces:
            async for piece in pieces:
                answer.add(number, piece)
    return web.json_response(answer.whole())


async def json_object(request: web.Request) -> dict[str, Any]:
    """The object that a request sends.

    Raises:
        ApiError: If it is larger than LARGEST, or is no JSON object.
    """
    if (request.content_length or 0) > LARGEST:  # without reading it
        raise too_large()
    try:
        found = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(f"The request cannot be read as JSON: {why}.") from error
    if not isinstance(found, dict):
        raise ApiError(f"The request must be a JSON object, not {type(found).__name__}.")
    return found


def prepared(writer: Writer, asked: Request, prompt: Any) -> tuple[list[int], Settings]:
    """The ids of a prompt, and how to go on from it.

    Raises:
        ApiError: If the network cannot read it, or it leaves no room in the context.
    """
    try:
        if not asked.converses:
            ids = writer.text_prompt(prompt)
            return ids, asked.settings(None)
        if not writer.converses:
            told = "This model was not trained on conversations, so it does not answer; /v1/completions goes on with a text."
            raise ApiError(told, param="model")
        ids = writer.conversation_prompt(prompt)
        return ids, asked.settings(writer.room(ids))
    except ContextFullError as error:
        raise ApiError(str(error), code="context_length_exceeded", param=asked.prompt_name) from error
    except ValueError as error:
        raise ApiError(str(error), param=asked.prompt_name) from error


async def streamed(
    request: web.Request, model: Model, prompts: list[tuple[list[int], Settings]], answer: Chat | Completion
) -> web.StreamResponse:
    """Sends an answer as server-sent events, one for each piece of text, and [DONE]."""
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)

    async def send(event: Mapping[str, Any]) -> None:
        await response.write(f"data: {json.dumps(event)}\n\n".encode())

    try:
        for event in answer.begin():
            await send(event)
        for number, (prompt, settings) in enumerate(prompts):
            async with aclosing(model.write(prompt, settings)) as pieces:
                async for piece in pieces:
                    for event in answer.add(number, piece):
                        await send(event)
        for event in answer.end():
            await send(event)
    except Exception as error:
        if isinstance(error, ConnectionError):  # the client went away
            raise
        traceback.print_exc()  # too late for another status
        await send({"error": ApiError("A bug of Epochal: the server's terminal shows it.", status=500).described()})
    await response.write(b"data: [DONE]\n\n")
    return response


class Completion:
    """The answer to POST /v1/completions.

    Args:
        model: Its name.
        asked: The request.
        prompt_tokens: Of all prompts.
    """

    prefix, object, streamed = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, asked: Request, prompt_tokens: int) -> None:
        self.asked, self.prompt_tokens, self.tokens = asked, prompt_tokens, 0
        self._head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._texts: dict[int, str] = {}
        self._ends: dict[int, str] = {}
        self._scored: dict[int, list[Scored]] = {}

    def add(self, prompt: int, piece: Piece) -> list[dict[str, Any]]:
        """Takes a piece; returns the events of a stream that tell it.

        Args:
            prompt: Number of the prompt.
            piece: Of the text that follows it.
        """
        index = prompt * self.asked.n + piece.row
        self.tokens += 1
        before = self._texts.get(index, "")
        self._texts[index] = before + piece.text
        scored = [] if piece.scored is None else [piece.scored]
        self._scored.setdefault(index, []).extend(scored)
        if piece.finish is not None:
            self._ends[index] = piece.finish
        if not (piece.text or scored or piece.finish):
            return []
        return [self._event([self._part(index, piece.text, scored, piece.finish, len(before))])]

    def begin(self) -> list[dict[str, Any]]:
        """The first events of a stream."""
        return []

    def end(self) -> list[dict[str, Any]]:
        """The last events of a stream."""
        return [{**self._event([]), "usage": self.usage()}] if self.asked.include_usage else []

    def whole(self) -> dict[str, Any]:
        """All of it at once."""
        parts = [
            self._whole_part(index, self._texts[index], self._scored[index], self._ends[index])
            for index in sorted(self._texts)
        ]
        return {**self._head, "object": self.object, "choices": parts, "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        """Numbers of tokens; END and those of a stop count as written."""
        total = self.prompt_tokens + self.tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens, "total_tokens": total}

    def _event(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self.asked.include_usage else {}
        return {**self._head, "object": self.streamed, "choices": choices, **usage}

    def _part(self, index: int, text: str, scored: list[Scored], finish: str | None, start: int) -> dict[str, Any]:
        """A choice, or what a piece adds to it, from the character `start` on."""
        logprobs = None
        if self.asked.alternatives is not None:
            offsets = [start + sum(len(token.text) for token in scored[:number]) for number in range(len(scored))]
            logprobs = {
                "tokens": [token.text for token in scored],
                "token_logprobs": [token.log_probability for token in scored],
                "top_logprobs": [dict(token.alternatives) for token in scored],
                "text_offset": offsets,
            }
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _whole_part(self, index: int, text: str, scored: list[Scored], finish: str) -> dict[str, Any]:
        return self._part(index, text, scored, finish, 0)


class Chat(Completion):
    """The answer to POST /v1/chat/completions; arguments as of `Completion`."""

    prefix, object, streamed = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def begin(self) -> list[dict[str, Any]]:
        roles = [{"index": index, "delta": {"role": "assistant", "content": ""}} for index in range(self.asked.n)]
        return [self._event([{**role, "logprobs": None, "finish_reason": None}]) for role in roles]

    def _part(self, index: int, text: str, scored: list[Scored], finish: str | None, start: int) -> dict[str, Any]:
        delta = {"content": text} if text else {}
        return {"index": index, "delta": delta, "logprobs": self._logprobs(scored), "finish_reason": finish}

    def _whole_part(self, index: int, text: str, scored: list[Scored], finish: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": self._logprobs(scored), "finish_reason": finish}

    def _logprobs(self, scored: list[Scored]) -> dict[str, Any] | None:
        if self.asked.alternatives is None:
            return None
        told = [
            {
                **token_told(token.text, token.log_probability),
                "top_logprobs": [token_told(*o) for o in token.alternatives],
            }
            for token in scored
        ]
        return {"content": told, "refusal": None}


def token_told(text: str, value: float) -> dict[str, Any]:
    """A token and its log-probability; one that is no whole character has no bytes here."""
    whole = "\N{REPLACEMENT CHARACTER}" not in text
    return {"token": text, "logprob": value, "bytes": list(text.encode("utf-8", "replace")) if whole else None}


def serve(config: DictConfig) -> None:
    """Serves the run that a config names until the process is told to end.

    Args:
        config: As composed from `conf/serve.yaml`.

    Raises:
        ConfigError: If there is no such run, it holds no language model, or the port is none or taken.
    """
    port = checked_port(config.port)
    saved, writer = opened_writer(config)
    name = str(config.name or saved.folder.name)
    model = Model(writer, name, created(saved.folder))

    def tell(port: int) -> None:
        if config.checkpoint is None and config.run == "latest":
            say(f"The newest finished run is {relative(saved.folder)}.")
        what = f"{saved.config.model.name} on {saved.config.dataset.name}"
        say(f"{what} is served at http://{HOST}:{port}/v1 as {name}. Ctrl-C ends it.")
        if not writer.converses:
            say(
                "It was not trained on conversations: /v1/completions goes on with a text, /v1/chat/completions refuses."
            )

    with suppress(KeyboardInterrupt):  # where signals have no handlers of ours, on Windows
        asyncio.run(run_server(application(model), port, tell))


def created(folder: Path) -> int:
    """When a run's last file was written, in seconds since 1970."""
    files = [file for file in folder.glob("*") if file.is_file()]
    return int(max((file.stat().st_mtime for file in files), default=0))
