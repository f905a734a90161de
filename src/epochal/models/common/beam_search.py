"""Writing a sequence token by token: greedy and beam search, for every model that reads one thing and writes another.

Beam search as in Sutskever et al. 2014 (arXiv 1409.3215), section 3.2; length penalty of Wu et al. 2016 (arXiv 1609.08144).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from epochal.core.specs import BEGIN, END, PAD
from epochal.models.common.layers import check_sizes


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
    """The sequences that a model writes for each row of the source.

    The beam_size likeliest beginnings are gone on with at each step. One that ends leaves the beam for good, and its
    place with it, so a beam of one is greedy: always the likeliest token. Of those that ended the best is taken, by

        log-probability / ((5 + length) / 6) ^ length_penalty

    and the search stops where nothing that is still being written can become better than it: a log-probability only
    falls. What max_length cuts off counts only where nothing has ended. PAD and BEGIN are never written. Every row is
    searched alone, whatever stands beside it in the batch.

    Args:
        model: Has encode(source, lengths) -> state and decode(tokens (B,), state) -> (logits (B, V), state). A state
            is a tensor whose dimension 0 is the batch, or a dict, list or tuple of states; anything else in it belongs
            to all rows. It writes in evaluation mode and is left as it was.
        source: Token ids (B, S), or images (B, C, H, W).
        lengths: Tokens of each row that are not padding (B,); None: all.
        max_length: Most tokens to write, the END among them.
        beam_size: Beginnings that are kept; 1 is greedy.
        length_penalty: 0 takes the likeliest as a whole, which favours short ones; 1 nearly the likeliest by token.

    Returns:
        Ids without BEGIN, each row up to its END and then PAD; as wide as its longest row.

    Raises:
        ValueError: If a size is below 1, the penalty below 0, or lengths do not fit the source.
    """
    check_sizes(max_length=max_length)
    if isinstance(beam_size, bool) or not isinstance(beam_size, int) or beam_size < 1:
        raise ValueError(f"beam_size={beam_size} must be a whole number of at least 1; 1 is greedy.")
    if not 0 <= length_penalty < math.inf:
        raise ValueError(f"length_penalty={length_penalty} must be at least 0, and finite.")
    if lengths is not None:
        _check_lengths(lengths, source)
    was_training = model.training
    model.eval()
    try:
        return _search(model, source, lengths, max_length, beam_size, length_penalty)
    finally:
        model.train(was_training)


def _check_lengths(lengths: Tensor, source: Tensor) -> None:
    if lengths.shape != source.shape[:1]:
        raise ValueError(f"lengths must be one a row, of shape ({len(source)},), not {tuple(lengths.shape)}.")
    if lengths.numel() and not (lengths.min() >= 1 and lengths.max() <= source.shape[1]):
        raise ValueError(f"lengths must be from 1 to {source.shape[1]}, the width of the source.")


def _search(
    model: Any, source: Tensor, lengths: Tensor | None, max_length: int, beam_size: int, length_penalty: float
) -> Tensor:
    rows, device = len(source), source.device

    def penalty(length: int) -> float:
        return ((5 + length) / 6) ** length_penalty

    first = torch.arange(rows, device=device)[:, None] * beam_size  # each row's first place in (rows * beam_size,)
    state = model.encode(source, lengths)
    if beam_size > 1:
        state = _select(state, torch.arange(rows, device=device).repeat_interleave(beam_size))
    tokens = torch.full((rows * beam_size,), BEGIN, device=device)
    texts = torch.full((rows, beam_size, max_length), PAD, device=device)  # those being written, likeliest first
    scores = torch.full((rows, beam_size), -math.inf, device=device)  # their log-probabilities; -inf: nobody's place
    scores[:, 0] = 0.0  # all begin alike, so one is enough
    room = torch.full((rows,), beam_size, device=device)  # places of beginnings that have not ended
    places = torch.arange(beam_size, device=device)
    best, best_score = texts[:, 0].clone(), torch.full((rows,), -math.inf, device=device)  # of those that ended

    for length in range(1, max_length + 1):
        logits, state = model.decode(tokens, state)
        log_probabilities = logits.float().log_softmax(dim=-1)
        log_probabilities[:, [PAD, BEGIN]] = -math.inf
        vocab_size = logits.shape[-1]
        ways = scores[:, :, None] + log_probabilities.view(rows, beam_size, vocab_size)
        scores, way = ways.flatten(1).topk(beam_size, dim=1)  # (rows, beam_size)
        scores = scores.masked_fill(places >= room[:, None], -math.inf)
        came_from, token = way // vocab_size, way % vocab_size
        if beam_size > 1:
            texts = texts.gather(1, came_from[:, :, None].expand_as(texts))
            state = _select(state, (first + came_from).flatten())
        texts[:, :, length - 1] = token
        tokens = token.flatten()

        ended = (token == END) & scores.isfinite()
        score, place = scores.masked_fill(~ended, -math.inf).max(dim=1)  # this step's best to end
        better = score / penalty(length) > best_score
        best_score = torch.where(better, score / penalty(length), best_score)
        best = torch.where(better[:, None], texts[torch.arange(rows, device=device), place], best)
        room = room - ended.sum(dim=1)
        scores = scores.masked_fill(ended, -math.inf)
        hope = scores.amax(dim=1) / penalty(max_length)  # as if all that is still to come were certain
        if (hope <= best_score).all():
            break
    likeliest = texts[torch.arange(rows, device=device), scores.argmax(dim=1)]
    best = torch.where(best_score.isfinite()[:, None], best, likeliest)
    return best[:, : int((best != PAD).sum(dim=1).amax())] if rows else best


def _select(state: Any, rows: Tensor) -> Any:
    """The state of these rows."""
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if isinstance(state, dict):
        return {name: _select(part, rows) for name, part in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_select(part, rows) for part in state)
    return state
