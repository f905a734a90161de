"""Greedy and beam search, for every encoder-decoder.

Beam search as in Sutskever et al. 2014 (arXiv 1409.3215), section 3.2; length penalty of Wu et al. 2016
(arXiv 1609.08144).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from epochal.core.checks import check_number, check_sizes
from epochal.core.specs import BEGIN, END, PAD
from epochal.models.common.kv_cache import KVCache
from epochal.models.common.layers import evaluating
from epochal.models.common.sampling import check_lengths


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


def _search(
    model: Any, source: Tensor, lengths: Tensor | None, max_length: int, beam_size: int, length_penalty: float
) -> Tensor:
    rows, device = len(source), source.device

    def penalty(length: int) -> float:
        return ((5 + length) / 6) ** length_penalty

    first = torch.arange(rows, device=device)[:, None] * beam_size  # each row's first index in (rows * beam_size,)
    state = model.encode(source, lengths)
    if beam_size > 1:
        state = _select(state, torch.arange(rows, device=device).repeat_interleave(beam_size))
    tokens = torch.full((rows * beam_size,), BEGIN, device=device)
    texts = torch.full((rows, beam_size, max_length), PAD, device=device)  # unfinished hypotheses, most likely first
    scores = torch.full((rows, beam_size), -math.inf, device=device)  # their log-probabilities; -inf: an empty place
    scores[:, 0] = 0.0  # all start alike, so one is enough
    room = torch.full((rows,), beam_size, device=device)  # places of hypotheses that have not ended
    places = torch.arange(beam_size, device=device)
    best, best_score = texts[:, 0].clone(), torch.full((rows,), -math.inf, device=device)  # of those that ended

    for length in range(1, max_length + 1):
        logits, state = model.decode(tokens, state)
        log_probabilities = logits.float().log_softmax(dim=-1)
        log_probabilities[:, [PAD, BEGIN]] = -math.inf
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

        ended = (token == END) & scores.isfinite()
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
    return best[:, : int((best != PAD).sum(dim=1).amax())] if rows else best


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
