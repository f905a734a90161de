"""Texts of tokens, and the gradient of a loss by the state of each time step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from epochal.core.format import cell_width, fitted
from epochal.core.protocols import StateGradients
from epochal.core.specs import BEGIN, END, PAD, UNKNOWN
from epochal.plots.charts import line_chart
from epochal.tasks.artifacts import Artifacts, Profile
from epochal.tasks.base import Task
from epochal.tasks.sequences import gather

EXAMPLES = 64  # over which the gradient norms are averaged
ENOUGH = 16  # rows of one length, for a mean that says something
MOST_DECADES = 8.0  # beyond which a gradient is lost to float32: 1 + 10^-8 is 1, and 10^-38 is 0
SPECIAL = {PAD: "<pad>", UNKNOWN: "<unknown>", BEGIN: "<begin>", END: "<end>"}


def labelled_blocks(columns: dict[str, list[str]]) -> str:
    """A table as one block of lines a row, each line with the name of its column: for texts too long for columns."""
    width = max(map(cell_width, columns))
    rows = zip(*columns.values(), strict=True)
    return "\n\n".join(
        "\n".join(f"{fitted(name, width)}  {cell}" for name, cell in zip(columns, row, strict=True)) for row in rows
    )


def token_labels(tokenizer: Any, ids: list[int]) -> list[str]:
    """One label a token, for the axes of a picture."""
    return [SPECIAL.get(token) or tokenizer.decode([token]).strip() or "_" for token in ids]


def add_state_gradients(
    task: Task, artifacts: Artifacts, loss: Callable[[Tensor, Tensor], Tensor], examples: int = EXAMPLES
) -> None:
    """Shows vanishing gradients: the norm of the loss's gradient by the state of each time step.

    Adds a profile, a picture and two metrics. gradient_decades_lost: by how many powers of ten the norm is smaller at
    the first step than at the last, at most eight; what is beyond depends on where floats end, not on the network.
    gradient_decades_lost_midway: the same over the middle half, from the step at three quarters to that at one quarter,
    for sequences that begin with nothing, such as the black border of an image. The rows are all of one length, the
    longest of which there are enough: a mean over several lengths would blur the profile.

    Args:
        task: Nothing is added if its model cannot measure these gradients.
        artifacts: To which it is added.
        loss: Of the model's outputs and the targets, a sum over examples.
        examples: How many, at most EXAMPLES.
    """
    if not isinstance(task.model, StateGradients) or not task.model.shows_state_gradients:
        return
    with torch.inference_mode(False), torch.enable_grad():
        batch = gather(task, "val", _rows_of_one_length(task.data)[:examples])
        norms = task.model.state_gradients(batch.inputs, lambda out: loss(out, batch.targets))  # (T,)
    exponents = norms.clamp_min(1e-38).log10().tolist()  # the smallest normal float32
    artifacts.profiles["state_gradient"] = Profile("time step", "gradient norm", norms.tolist())
    artifacts.pictures["state_gradient"] = line_chart(
        {"after training so far": (list(range(1, len(exponents) + 1)), exponents)},
        title="Gradient of the loss by each state",
        x_label="time step",
        y_label="norm, power of ten",
    )
    artifacts.metrics |= gradient_metrics(exponents)


def gradient_metrics(exponents: list[float]) -> dict[str, float]:
    """The decades lost over a whole sequence, and over its middle half.

    Args:
        exponents: Powers of ten of the norms, one a step.
    """
    quarter, last = (len(exponents) - 1) // 4, len(exponents) - 1
    return {
        "gradient_decades_lost": decades_lost(exponents[0], exponents[last]),
        "gradient_decades_lost_midway": decades_lost(exponents[quarter], exponents[last - quarter]),
    }


def decades_lost(early: float, late: float) -> float:
    """By how much the power of ten `early` is below `late`, at most MOST_DECADES; negative if it is above."""
    return min(late - early, MOST_DECADES)  # in this order NaN stays NaN


def _rows_of_one_length(data: Any) -> Tensor:
    """Numbers (N,) of validation rows of equal length."""
    lengths = data.lengths("val")
    if lengths is None:
        return torch.arange(min(EXAMPLES, data.rows("val")[1]))
    found, counts = lengths.unique(return_counts=True)
    enough = found[counts >= ENOUGH]
    longest = enough[-1] if len(enough) else found[counts.argmax()]
    return torch.nonzero(lengths == longest).flatten()[:EXAMPLES]
