"""Greedy and beam search, for every encoder-decoder, and for language models that go on from a prompt.

Beam search as in Sutskever et al. 2014 (arXiv 1409.3215), section 3.2; length penalty of Wu et al. 2016
(arXiv 1609.08144).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from epochal.core.checks import check_number, check_sizes
from epochal.core.specs import BEGIN, END, PAD
from epochal.models.common.kv_cache import KVCache
from epochal.models.common.layers import evaluating
from epochal.models.common.sampling import check_generation, check_lengths, without


@torch.no_grad()
def generate(
    model: Any,
    source: Tensor,
    lengths: Tensor | None = None,
    *,
    max_length: int,
    beam_size: int = 1,
    length_penalty: float = 0.0,
) -> Tensor:  # (B, ...) -> (B, T)
    """The target that a model predicts for each row of the source.

    The beam_size most likely hypotheses are extended at each step. One that ends leaves the beam and is not replaced,
    so a beam of one is greedy search: always the most likely token. Of the hypotheses that ended, the best by

        log-probability / ((5 + length) / 6) ^ length_penalty

    is returned, and the search stops once no unfinished hypothesis can become better than it, as a log-probability only
    falls. A hypothesis cut off by max_length counts only where none has ended. PAD and BEGIN are never generated. Each
    row is searched independently of the others in the batch.

    Args:
        model: A `core.protocols.EncoderDecoder`; it runs in evaluation mode and gets its mode back.
        source: Token ids (B, S), or images (B, C, H, W).
        lengths: Number of tokens of each row that are not padding (B,); None: all.
        max_length: Maximum number of tokens to generate, the END included.
        beam_size: Number of hypotheses; 1 is greedy search.
        length_penalty: 0 takes the highest log-probability, which favours short targets; 1 is close to the highest
            log-probability per token. Not negative.

    Returns:
        Ids without BEGIN, each row up to its END and then PAD; as wide as its longest row.

    Raises:
        ValueError: If max_length or beam_size is below 1, the penalty negative, or lengths do not fit the source.
    """
    check_sizes(max_length=max_length, beam_size=beam_size)
    check_number("length_penalty", length_penalty, 0)
    if lengths is not None:
        check_lengths(lengths, source)
    with evaluating(model):
        return _search(model, source, lengths, max_length, beam_size, length_penalty)


@torch.no_grad()
def continued(
    model: Any,
    prompt: Tensor,
    *,
    length: int,
    beam_size: int,
    stop: int | None = None,
    forbidden: Sequence[int] = (),
    pad: int = PAD,
) -> Tensor:  # (B, T) -> (B, T + length)
    """The most probable text of those that beam search finds after each prompt, by the sum of its log-probabilities.

    Args:
        model: A decoder-only network with `initial_state` and `next_logits`, whose states have the batch first.
        prompt: Token ids, at least one in each row, all rows of one length.
        length: Number of tokens to add at most.
        beam_size: Number of hypotheses.
        stop, forbidden, pad: As of `sampling.AutoregressiveModel.generate`.

    Raises:
        ValueError: If the prompt is empty, an argument out of range, or all ids are forbidden.
    """
    check_generation(prompt, length=length, temperature=0, top_k=None)
    check_sizes(beam_size=beam_size)
    room = prompt.new_full((len(prompt), length), pad)
    if length:
        with evaluating(model):
            ids = _Ids(pad, begin=pad, end=-1 if stop is None else stop)
            found = _search(_Continuation(model, forbidden), prompt, None, length, beam_size, 0.0, ids)
        room[:, : found.shape[1]] = found
    return torch.cat((prompt, room), dim=1)


class _Ids(NamedTuple):
    pad: int = PAD
    begin: int = BEGIN
    end: int = END
    never: tuple[int, ...] = ()  # are generated


ENCODER_DECODER = _Ids(never=(PAD, BEGIN))


class _Continuation:
    """A language model as `_search` reads it: the prompt is the source, and the first token is not read."""

    def __init__(self, model: Any, forbidden: Sequence[int]) -> None:
        self.model, self.forbidden = model, forbidden

    def encode(self, source: Tensor, lengths: None) -> dict[str, Any]:
        return {"text": source, "begun": False, "state": self.model.initial_state(source.shape[1])}

    def decode(self, tokens: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        text = torch.cat((state["text"], tokens[:, None]), dim=1) if state["begun"] else state["text"]
        logits, after = self.model.next_logits(text, state["state"])
        return without(logits, self.forbidden), {"text": text, "begun": True, "state": after}


def _search(
    model: Any,
    source: Tensor,
    lengths: Tensor | None,
    max_length: int,
    beam_size: int,
    length_penalty: float,
    ids: _Ids = ENCODER_DECODER,
) -> Tensor:
    rows, device = len(source), source.device

    def penalty(length: int) -> float:
        return ((5 + length) / 6) ** length_penalty

    first = torch.arange(rows, device=device)[:, None] * beam_size  # each row's first index in (rows * beam_size,)
    state = model.encode(source, lengths)
    if beam_size > 1:
        state = _select(state, torch.arange(rows, device=device).repeat_interleave(beam_size))
    tokens = torch.full((rows * beam_size,), ids.begin, device=device)
    texts = torch.full(
        (rows, beam_size, max_length), ids.pad, device=device
    )  # unfinished hypotheses, most likely first
    scores = torch.full((rows, beam_size), -math.inf, device=device)  # their log-probabilities; -inf: an empty place
    scores[:, 0] = 0.0  # all start alike, so one is enough
    room = torch.full((rows,), beam_size, device=device)  # places of hypotheses that have not ended
    places = torch.arange(beam_size, device=device)
    best, best_score = texts[:, 0].clone(), torch.full((rows,), -math.inf, device=device)  # of those that ended

    for length in range(1, max_length + 1):
        logits, state = model.decode(tokens, state)
        log_probabilities = logits.float().log_softmax(dim=-1)
        log_probabilities[:, list(ids.never)] = -math.inf
        vocab_size = logits.shape[-1]
        extended = scores[:, :, None] + log_probabilities.view(rows, beam_size, vocab_size)
        scores, chosen = extended.flatten(1).topk(beam_size, dim=1)  # (rows, beam_size)
        scores = scores.masked_fill(places >= room[:, None], -math.inf)
        parent, token = chosen // vocab_size, chosen % vocab_size
        if beam_size > 1:
            texts = texts.gather(1, parent[:, :, None].expand_as(texts))
            state = _select(state, (first + parent).flatten())
        texts[:, :, length - 1] = token
        tokens = token.flatten()

        ended = (token == ids.end) & scores.isfinite()
        score, place = scores.masked_fill(~ended, -math.inf).max(dim=1)  # the best that ends at this step
        better = score / penalty(length) > best_score
        best_score = torch.where(better, score / penalty(length), best_score)
        best = torch.where(better[:, None], texts[torch.arange(rows, device=device), place], best)
        room = room - ended.sum(dim=1)
        scores = scores.masked_fill(ended, -math.inf)
        bound = scores.amax(dim=1) / penalty(max_length)  # as if every further token had probability 1
        if (bound <= best_score).all():
            break
    unfinished = texts[torch.arange(rows, device=device), scores.argmax(dim=1)]
    best = torch.where(best_score.isfinite()[:, None], best, unfinished)
    filled = (best != ids.pad) * torch.arange(1, max_length + 1, device=device)
    return best[:, : int(filled.amax())] if rows else best


def _select(state: Any, rows: Tensor) -> Any:
    """The state of these rows, whatever it is nested in."""
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if isinstance(state, KVCache):
        return state.select(rows)
    if isinstance(state, dict):
        return {name: _select(part, rows) for name, part in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_select(part, rows) for part in state)
    return state
