"""A run to export, without training: as composed, with the weights that it would begin with."""

from __future__ import annotations

from pathlib import Path

import torch

from epochal.config.finalize import finalize
from epochal.config.instantiate import make_model
from epochal.config.validate import validate
from epochal.inference.load import SavedRun
from epochal.inference.notebook import LoadedRun
from epochal.training.factories import make_data, make_task
from helpers.training import composed


def loaded(*overrides: str) -> LoadedRun:
    """What `epochal.load` would give of a run of these overrides, with larger random weights than it begins with."""
    config = finalize(composed(*overrides))
    validate(config)
    data = make_data(config)
    inputs, outputs = data.specs(data.learns)
    torch.manual_seed(0)
    task = make_task(config, make_model(config, inputs, outputs), total_steps=1)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    config.callbacks, config.logger = {}, {}
    saved = SavedRun(Path("nowhere"), config, inputs, outputs, data.state(), {"state_dict": task.state_dict()})
    return LoadedRun(saved)
