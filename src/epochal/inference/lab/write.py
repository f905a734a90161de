"""The room of text: a language model chooses its next token in view, a translation and a caption show what they attend to, a
classifier which words decided.

Logit lens: nostalgebraist 2020, "interpreting GPT". Gradient x input: Shrikumar et al. 2016 (arXiv 1605.01713).
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from aiohttp import web
from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.core.protocols import SourceAttention, StreamsTokens
from epochal.core.specs import END, Classes, Tokens
from epochal.data.batching import Batch
from epochal.data.chat_template import Message
from epochal.data.tokenizers import Tokenizer
from epochal.inference.lab import caption
from epochal.inference.lab.picture import MOST_NUMBER, picture_of
from epochal.inference.lab.server import HEADERS, LAB, answer, body, number, text, whole
from epochal.inference.notebook import LoadedRun
from epochal.inference.writing import Settings, Writer
from epochal.models.common.attention import MultiHeadAttention
from epochal.models.common.causal import CausalTransformer
from epochal.models.common.sampling import distribution, without
from epochal.tasks.base import model_inputs
from epochal.tasks.sequences import prompt_ids
from epochal.tasks.visuals.attention import decoder_inputs
from epochal.tasks.visuals.sequences import token_labels

MOST_CHARACTERS = 20_000  # of a text
MOST_TOKENS = 500  # that are written at once
MOST_MESSAGES = 200
LISTED, LENS = 20, 3  # most probable tokens that are listed: of the next token, and by layer
SIGNS = {ord(" "): "␣", ord("\n"): "⏎", ord("\t"): "⇥"}
SHOWN = 128  # tokens, the last ones, that are shown one by one


def routes() -> list[web.RouteDef]:
    return [
        web.get("/api/write/{run}", about),
        web.post("/api/write/{run}/next", next_tokens),
        web.post("/api/write/{run}/go", go_on),
        web.post("/api/write/{run}/translate", translation),
        web.post("/api/write/{run}/classify", classification),
        web.post("/api/write/{run}/shelf", shelf),
        web.post("/api/write/{run}/file", file),
        web.post("/api/write/{run}/caption", captioning),
        web.post("/api/chat/{run}", chat),
    ]


async def about(request: web.Request) -> web.Response:
    return answer(await request.app[LAB].networks.use(request.match_info["run"], described))


async def next_tokens(request: web.Request) -> web.Response:
    data = await body(request)
    settings = settings_of(data)
    found = await request.app[LAB].networks.use(
        request.match_info["run"], looked_into, text(data, "text", MOST_CHARACTERS), settings
    )
    return answer(found)


async def translation(request: web.Request) -> web.Response:
    source = text(await body(request), "text", MOST_CHARACTERS)
    return answer(await request.app[LAB].networks.use(request.match_info["run"], translated, source))


async def classification(request: web.Request) -> web.Response:
    given = text(await body(request), "text", MOST_CHARACTERS)
    return answer(await request.app[LAB].networks.use(request.match_info["run"], classified, given))


async def shelf(request: web.Request) -> web.Response:
    """Small versions of a captioner's test pictures, from the number `start` on."""
    start = whole(await body(request), "start", 0, MOST_NUMBER, 0)
    return answer(await request.app[LAB].networks.use(request.match_info["run"], caption.shelf, start))


async def file(request: web.Request) -> web.Response:
    """The bytes of a picture's file as the pixels that a captioner reads."""
    content = await request.read()
    return answer(await request.app[LAB].networks.use(request.match_info["run"], caption.file_pixels, content))


async def captioning(request: web.Request) -> web.Response:
    picture = picture_of(await body(request))
    return answer(await request.app[LAB].networks.use(request.match_info["run"], caption.captioned, picture))


async def go_on(request: web.Request) -> web.StreamResponse:
    """The tokens that follow a text, a line of JSON each, as soon as it is drawn."""
    data = await body(request)
    return await streamed(request, written, text(data, "text", MOST_CHARACTERS), settings_of(data))


async def chat(request: web.Request) -> web.StreamResponse:
    """The answer to a conversation, a line of JSON for each piece of it."""
    data = await body(request)
    return await streamed(request, answered, messages_of(data), settings_of(data))


async def streamed(request: web.Request, function: Any, *arguments: Any) -> web.StreamResponse:
    """A response of JSON lines; an error after the first line is a line of its own."""
    pieces = request.app[LAB].networks.stream(request.match_info["run"], function, *arguments)
    response = web.StreamResponse(headers=HEADERS | {"Content-Type": "application/jsonl"})
    try:
        async for piece in pieces:
            if not response.prepared:
                await response.prepare(request)
            await response.write(json.dumps(piece).encode() + b"\n")
    finally:
        await pieces.aclose()
    if not response.prepared:
        await response.prepare(request)
    return response


def settings_of(data: Mapping[str, Any]) -> Settings:
    """How to draw, of a request.

    Raises:
        ConfigError: If a value is out of range.
    """
    top_k, top_p = whole(data, "top_k", 0, 1_000_000, 0), number(data, "top_p", 0, 1, 1)
    if not top_p:
        raise ConfigError("top_p=0 would leave no token to draw; give a number above 0, 1 for all.")
    return Settings(
        length=whole(data, "length", 1, MOST_TOKENS, 1),
        temperature=number(data, "temperature", 0, 100, 1),
        top_k=top_k or None,
        top_p=top_p,
        seed=whole(data, "seed", 0, 2**53, 0) or None,
        alternatives=5,
    )


def messages_of(data: Mapping[str, Any]) -> list[Message]:
    """The conversation of a request.

    Raises:
        ConfigError: If it is none.
    """
    messages = data.get("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= MOST_MESSAGES:
        raise ConfigError(f"messages must be a list of 1 to {MOST_MESSAGES} messages.")
    if not all(isinstance(message, dict) for message in messages):
        raise ConfigError('A message is such as {"role": "user", "content": "Hello"}.')
    roles = [text(message, "role", 20) for message in messages]
    texts = [text(message, "content", MOST_CHARACTERS) for message in messages]
    return [{"role": role, "content": content} for role, content in zip(roles, texts)]


# -- what is computed -------------------------------------------------------------------------------------------------


def kind_of(loaded: LoadedRun) -> str:
    """What the network does with a text: continue, translate or classify it, or write a caption.

    Raises:
        ConfigError: If it does none of these.
    """
    if isinstance(loaded.model, StreamsTokens) and isinstance(loaded.tokenizer, Tokenizer):
        return "continue"
    if hasattr(loaded.data, "source_tokenizer") and hasattr(loaded.data, "target_tokenizer"):
        return "translate"
    if caption.captions_images(loaded):
        return "caption"
    if isinstance(loaded.specs[1], Classes) and loaded.tokenizer is not None:
        return "classify"
    raise ConfigError(f"The network of {loaded.folder.name} neither reads text that one could type nor writes any.")


def described(loaded: LoadedRun) -> dict[str, Any]:
    """What the page needs to know of a network."""
    model, kind = loaded.model, kind_of(loaded)
    attends = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    found = {"kind": kind, "parameters": sum(parameter.numel() for parameter in model.parameters())}
    if kind == "continue":
        found |= {"context": model.context_length, "layers": len(attends), "converses": loaded.data.conversational}
    if kind == "caption":
        found |= caption.about(loaded)
    return found | {"looks": isinstance(model, CausalTransformer)}


def writer_of(loaded: LoadedRun) -> Writer:
    if kind_of(loaded) != "continue":
        raise ConfigError(f"The network of {loaded.folder.name} is no language model.")
    return Writer(
        loaded.model, loaded.tokenizer, begins=loaded.data.prompt is None, converses=loaded.data.conversational
    )


def ids_of(writer: Writer, given: str) -> list[int]:
    """Ids of a text, without its beginning where it is longer than the context.

    Raises:
        ConfigError: If it is empty or has characters that the vocabulary lacks.
    """
    try:
        return writer.text_prompt(given, cut=True)
    except ValueError as error:
        raise ConfigError(str(error)) from error


@torch.no_grad()
def looked_into(loaded: LoadedRun, given: str, settings: Settings) -> dict[str, Any]:
    """What a language model makes of a text: the probabilities of the next token before and after the settings of drawing,
    and of a Transformer the attention of each head of the last token, and what each layer would have said.
    """
    writer = writer_of(loaded)
    ids = ids_of(writer, given)
    inside = Inside(loaded.model) if isinstance(loaded.model, CausalTransformer) else None
    if inside is None:
        logits, _ = loaded.model.next_logits(torch.tensor([ids]), loaded.model.initial_state(len(ids)))
    else:
        logits = inside.read(torch.tensor([ids]))
    logits = without(logits, writer.forbidden)
    shown = ids[-SHOWN:]
    found = {
        "tokens": [token_text(writer.tokenizer, token) for token in shown],
        "left_out": len(ids) - len(shown),
        "next": listed(logits[0], settings, writer.tokenizer),
        "entropy": entropy_bits(logits[0]),
    }
    if inside is not None:
        found["attention"] = [
            [[round(weight, 4) for weight in head[-SHOWN:]] for head in layer.tolist()] for layer in inside.attention()
        ]
        found["lens"] = [
            [[token_text(writer.tokenizer, token), round(p, 4)] for token, p in best(layer, LENS)]
            for layer in inside.lens(writer.forbidden)
        ]
    return found


def listed(logits: Tensor, settings: Settings, tokenizer: Any) -> list[dict[str, Any]]:  # (V,)
    """The most probable next tokens: as the network says, and as they are drawn with temperature, top_k and top_p."""
    plain, drawn = logits.float().softmax(-1), drawn_from(logits, settings)
    order = plain.argsort(descending=True)[:LISTED].tolist()
    return [
        {
            "id": token,
            "text": tokenizer.decode([token]),
            "shown": token_text(tokenizer, token),
            "probability": plain[token].item(),
            "drawn": drawn[token].item(),
        }
        for token in order
    ]


def drawn_from(logits: Tensor, settings: Settings) -> Tensor:  # (V,) -> (V,)
    """The distribution that tokens are drawn from."""
    if settings.temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    return distribution(logits[None], temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p)[0]


def entropy_bits(logits: Tensor) -> float:  # (V,)
    """How undecided the network is, in bits."""
    logs = logits.float().log_softmax(-1)
    return float(-(logs.exp() * logs).nan_to_num().sum() / torch.log(torch.tensor(2.0)))


def best(logits: Tensor, count: int) -> list[tuple[int, float]]:  # (V,)
    """The most probable tokens and their probabilities."""
    values, ids = logits.float().softmax(-1).topk(min(count, len(logits)))
    return list(zip(ids.tolist(), values.tolist()))


class Inside:
    """Reads a text with a causal Transformer and keeps what its layers did at the last token.

    Args:
        model: Left unchanged.
    """

    def __init__(self, model: CausalTransformer) -> None:
        self.model = model
        self._maps: list[Tensor] = []
        self._outputs: list[Tensor] = []

    def read(self, tokens: Tensor) -> Tensor:  # (1, T) -> (1, V)
        """The logits of the next token."""
        handles = []
        try:
            for block in self.model.blocks:
                attention: Any = block.attention
                handles.append(attention.register_forward_pre_hook(self._ask, with_kwargs=True))
                handles.append(block.register_forward_hook(lambda _, __, output: self._outputs.append(output[:, -1])))
            return self.model(tokens)[:, -1]
        finally:
            for handle in handles:
                handle.remove()

    def _ask(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "maps": self._maps}

    def attention(self) -> list[Tensor]:
        """Weights of the last token over all tokens, (heads, T) of each layer; each head's sum to 1."""
        return [maps[0, :, -1] for maps in self._maps]

    def lens(self, forbidden: Sequence[int]) -> list[Tensor]:
        """What the head says of each layer's output, logits (V,) each: the network's own are the last."""
        return [without(self.model.readout(output), forbidden)[0] for output in self._outputs]


def token_text(tokenizer: Any, token: int) -> str:
    """A token to be read alone: a blank as ␣, a new line as ⏎, what cannot be printed by its number."""
    shown = tokenizer.decode([token]).translate(SIGNS)
    shown = "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in shown)
    return shown or token_labels(tokenizer, [token])[0]


def written(loaded: LoadedRun, given: str, settings: Settings) -> Generator[dict[str, Any]]:
    """The tokens that follow a text."""
    writer = writer_of(loaded)
    yield from pieces(writer, ids_of(writer, given), settings)


def answered(loaded: LoadedRun, messages: list[Message], settings: Settings) -> Generator[dict[str, Any]]:
    """The pieces of an answer to a conversation."""
    writer = writer_of(loaded)
    if not writer.converses:
        raise ConfigError(f"{loaded.folder.name} was not trained on conversations; it can only go on with a text.")
    try:
        prompt = writer.conversation_prompt(messages)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    yield from pieces(writer, prompt, settings)


def pieces(writer: Writer, prompt: list[int], settings: Settings) -> Generator[dict[str, Any]]:
    with closing(writer.write(prompt, settings)) as found:
        for piece in found:
            scored = piece.scored
            told = None if scored is None else [list(pair) for pair in scored.alternatives]
            yield {
                "text": piece.text,
                "finish": piece.finish,
                "log_probability": None if scored is None else scored.log_probability,
                "alternatives": told,
            }


@torch.no_grad()
def translated(loaded: LoadedRun, source: str) -> dict[str, Any]:
    """A translation, and from which tokens of the source each of its tokens comes, where the network attends.

    Raises:
        ConfigError: If it translates nothing, or cannot read the text.
    """
    if kind_of(loaded) != "translate":
        raise ConfigError(f"The network of {loaded.folder.name} translates nothing.")
    data: Any = loaded.data
    model, config, reads = loaded.model, loaded.config.task, loaded.specs[0]
    assert isinstance(reads, Tokens)
    try:
        ids = [*prompt_ids(data.source_tokenizer, source, longest=reads.length - 1), END]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    options = {key: config[key] for key in ("beam_size", "length_penalty") if key in config}
    longest = 2 * len(ids) + 10
    target = model.generate(torch.tensor([ids]), max_length=longest, **options)[0].tolist()
    target = target[: target.index(END) + 1] if END in target else target
    found = {
        "text": data.target_tokenizer.decode(target),
        "source": token_labels(data.source_tokenizer, ids),
        "target": token_labels(data.target_tokenizer, target),
        "attention": None,
    }
    if isinstance(model, SourceAttention) and target:
        inputs = decoder_inputs([target], torch.device("cpu"))
        weights = model.attention(torch.tensor([ids]), inputs, torch.tensor([len(ids)]))
        if weights is not None:
            found["attention"] = [[round(w, 4) for w in row] for row in weights[0, :, : len(ids)].tolist()]
    return found


def classified(loaded: LoadedRun, given: str) -> dict[str, Any]:
    """The classes of a text, and for the most probable one what each token adds to its logit: gradient x input.

    Raises:
        ConfigError: If it classifies no text, or cannot read it.
    """
    if kind_of(loaded) != "classify":
        raise ConfigError(f"The network of {loaded.folder.name} classifies no text.")
    if not given.strip():
        raise ConfigError("The text is empty; give at least one word.")
    inputs, lengths = loaded.data.encode([given])
    segments = None if lengths is None else loaded.data.segments(inputs, lengths)
    kept: list[Tensor] = []
    embedding = next(module for module in loaded.model.modules() if isinstance(module, nn.Embedding))

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    handle = embedding.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = loaded.model(*model_inputs(Batch(inputs, inputs, 0, lengths, segments), loaded.model))
            chosen = int(logits[0].argmax())
            (gradient,) = torch.autograd.grad(logits[0, chosen], kept[0])
    finally:
        handle.remove()
    weights = (gradient * kept[0]).sum(-1)[0].detach()  # (T,)
    names = loaded.specs[1].names  # type: ignore[union-attr]
    return {
        "classes": [[name, p] for name, p in zip(names, logits[0].detach().softmax(-1).tolist())],
        "chosen": chosen,
        "tokens": token_labels(loaded.tokenizer, inputs[0].tolist()),
        "weights": weights.tolist(),
    }
