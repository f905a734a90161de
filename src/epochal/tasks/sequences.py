"""Batches of chosen rows, rows grouped by length, tokens of prompts: what tasks on sequences share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from epochal.data.batching import Batch, BatchIndices
from epochal.tasks.base import Task

BINS = 8  # groups of rows by length
MOST_BEAMS = 1000  # with more, beam search takes more memory than it could be worth


def token_counts(batch: Batch) -> dict[str, Tensor]:
    """The metric `tokens`, if the inputs are tokens: how many each row has without padding, (B,) or one for all."""
    if batch.inputs.dtype != torch.int64:
        return {}
    if batch.lengths is None:
        return {"tokens": torch.tensor(batch.inputs.shape[1], dtype=torch.float32, device=batch.inputs.device)}
    return {"tokens": batch.lengths}


def prompt_ids(tokenizer: Any, prompt: str, longest: int | None) -> list[int]:
    """The token ids of a prompt.

    Raises:
        ValueError: If it is empty, has more than `longest` tokens, or has characters that the vocabulary lacks.
    """
    if not prompt:
        raise ValueError("The prompt is empty; give at least one character.")
    if missing := tokenizer.missing(prompt):
        raise ValueError(f"The vocabulary lacks these characters of the prompt: {' '.join(map(repr, missing))}")
    ids: list[int] = tokenizer.encode(prompt).tolist()
    if not ids:
        raise ValueError(f"The prompt {prompt!r} has no tokens in the vocabulary; give other words.")
    if longest is not None and len(ids) > longest:
        raise ValueError(f"The prompt has {len(ids):,} tokens, but {longest:,} are the most that the model reads.")
    return ids


def gather(task: Task, split: str, numbers: Tensor) -> Batch:
    """The rows of a split with these numbers (N,), as a batch on the model's device and of its precision."""
    rows, _ = task.data.rows(split)
    batch = task.data.transfer_batch_to_device(rows[BatchIndices(numbers, 0)], task.device, 0)
    if batch.inputs.is_floating_point():  # as Lightning does with those of its own loops; pixels become floats below
        batch = batch._replace(inputs=batch.inputs.to(task.dtype))
    return task.data.on_after_batch_transfer(batch, 0)


def tested_rows(task: Task) -> Tensor:
    """Row numbers (N,) in the order of a test: by length, if rows have lengths; `trainer.limit_test_batches` leaves some out."""
    lengths = task.data.lengths("test")
    rows = torch.arange(task.data.rows("test")[1]) if lengths is None else lengths.argsort(stable=True)
    return rows[: sum(task.trainer.num_test_batches) * task.data.eval_batch_size]


def length_bins(lengths: np.ndarray) -> list[np.ndarray]:
    """Indices into lengths (N,), grouped from short to long: at most BINS groups of about equal size."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BINS + 1)[1:-1]))
    group = np.searchsorted(edges, lengths)
    return [np.flatnonzero(group == number) for number in np.unique(group)]
