"""All checks of a run, its model on its data included, without starting it."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig

from epochal.config.compose import plain
from epochal.config.finalize import finalize
from epochal.config.instantiate import make_model
from epochal.config.validate import validate
from epochal.models.pretrained.torchvision import normalisation
from epochal.training import published
from epochal.training.factories import make_data
from epochal.training.networks import open_networks
from epochal.training.trainer import check_lengths, quiet
from epochal.training.warm_start import adapt, is_task, load_matching_weights, named_runs, parent_of


def check(config: DictConfig, seen: dict[str, Any]) -> None:
    """Checks a config, and its model on its data, without a run.

    Args:
        config: As composed.
        seen: The data of configs that were checked before, by their settings, so that no set is read twice.

    Raises:
        ConfigError: With every conflict in one message.
    """
    quiet()
    validate(config)
    config = published.with_sizes(finalize(config))
    of_grid = any(
        is_task(str(run)) for run in named_runs(config.init_from).values()
    )  # a task's run may be of this grid
    parent = None if of_grid else parent_of(config)
    key = str((plain(config.dataset), config.task.name, config.init_from))
    data = seen[key] = seen.get(key) or make_data(
        config, parent.data if parent is not None else published.data_state(config)
    )
    with torch.device("meta"):
        model = make_model(config, *data.specs(data.learns))
    if parent is not None:
        load_matching_weights(model, parent, config, data.specs(data.learns)[1])
    if config.model.get("pretrained") and not published.source_of(config):
        normalisation(model)  # says so if there are no weights for it
    if parent is not None:
        open_networks(config, data, None)
    adapt(model, config)
    check_lengths(config, data)
