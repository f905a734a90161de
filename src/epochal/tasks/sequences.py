"""What objectives on sequences share: rows to look at, rows of like length together, and how far back a loss reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epochal.data.batching import Batch, BatchIndices
from epochal.plots.charts import line_chart
from epochal.tasks.artifacts import Artifacts, Profile
from epochal.tasks.base import Task

LOOKED_AT = 64  # examples whose gradients are averaged
ENOUGH = 16  # so many rows of one length say how far back a loss reaches
BINS = 8  # of rows by length


def reads(batch: Batch) -> tuple[Tensor, ...]:
    """What a network is given: the inputs, and their lengths where they are unlike."""
    return (batch.inputs,) if batch.lengths is None else (batch.inputs, batch.lengths)


def tokens_of(batch: Batch) -> dict[str, Tensor]:
    """The metric `tokens`, where the inputs are some: how many a network reads of a row, without padding; one number if all are alike."""
    if batch.inputs.dtype != torch.int64:
        return {}
    if batch.lengths is None:
        return {"tokens": torch.tensor(float(batch.inputs.shape[1]), device=batch.inputs.device)}
    return {"tokens": batch.lengths}


def prompt_ids(tokenizer: Any, prompt: str, longest: int | None) -> list[int]:
    """A prompt as ids.

    Raises:
        ValueError: If it is empty, longer than so many tokens, or has characters that the vocabulary lacks.
    """
    if not prompt:
        raise ValueError("The prompt is empty; give at least one character.")
    if missing := tokenizer.missing(prompt):
        raise ValueError(f"The vocabulary lacks these characters of the prompt: {' '.join(map(repr, missing))}")
    ids: list[int] = tokenizer.encode(prompt).tolist()
    if not ids:
        raise ValueError(f"Nothing is left of the prompt {prompt!r} in tokens.")
    if longest is not None and len(ids) > longest:
        raise ValueError(f"The prompt has {len(ids):,} tokens, but {longest:,} are the most that the model reads.")
    return ids


def gather(task: Task, split: str, numbers: Tensor) -> Batch:
    """These rows of a split as the network reads them, on its device."""
    rows, _ = task.data.rows(split)
    batch = task.data.transfer_batch_to_device(rows[BatchIndices(numbers, 0)], task.device, 0)
    return task.data.on_after_batch_transfer(batch, 0)


def tested_order(data: Any, split: str) -> Tensor:
    """Row numbers in the order in which a validation or test goes through them."""
    lengths = data.lengths(split)
    return torch.arange(data.rows(split)[1]) if lengths is None else lengths.argsort(stable=True)


def bins(lengths: np.ndarray) -> list[np.ndarray]:
    """Places of the shortest rows, of longer ones, and so on: at most BINS groups, about equally many in each."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BINS + 1)[1:-1]))
    group = np.searchsorted(edges, lengths)
    return [np.flatnonzero(group == number) for number in np.unique(group)]


def show_state_gradients(
    task: Task, artifacts: Artifacts, loss: Callable[[Tensor, Tensor], Tensor], examples: int = LOOKED_AT
) -> None:
    """How far back the loss of a network's answer reaches: the long-term dependency, looked at.

    Adds a profile, a picture and the metric gradient_decades_lost, powers of ten between the last step and the first.
    Rows of unlike length would blur it, so all that are looked at have one: the longest of which there are enough.

    Args:
        task: Around the network; nothing is added where that has no states to look at.
        shown: Where to.
        loss: Of what the network gives and the targets, a sum over examples.
        examples: How many are looked at.
    """

    if not getattr(task.model, "shows_state_gradients", False):
        return
    with torch.inference_mode(False), torch.enable_grad():
        batch = gather(task, "val", _of_one_length(task.data)[:examples])
        norms = task.model.state_gradients(batch.inputs, lambda out: loss(out, batch.targets))
    exponents = norms.clamp_min(1e-38).log10().tolist()  # float32 ends there
    artifacts.profiles["state_gradient"] = Profile("time step", "gradient norm", norms.tolist())
    artifacts.pictures["state_gradient"] = line_chart(
        {"after training so far": (list(range(1, len(exponents) + 1)), exponents)},
        title="Gradient of the loss by each state",
        x_label="time step",
        y_label="norm, power of ten",
    )
    artifacts.metrics["gradient_decades_lost"] = exponents[-1] - exponents[0]


def _of_one_length(data: Any) -> Tensor:
    """Numbers of validation rows that are equally long."""
    lengths = data.lengths("val")
    if lengths is None:
        return torch.arange(min(LOOKED_AT, data.rows("val")[1]))
    found, counts = lengths.unique(return_counts=True)
    enough = found[counts >= ENOUGH]
    longest = enough[-1] if len(enough) else found[counts.argmax()]
    return torch.nonzero(lengths == longest).flatten()[:LOOKED_AT]
