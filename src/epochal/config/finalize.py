"""From a composed config to the resolved config of a run."""

from __future__ import annotations

import copy

from omegaconf import DictConfig, OmegaConf, open_dict

from epochal.config.compose import choices, load_option
from epochal.config.instantiate import parameters, target_class
from epochal.config.objectives import common_tasks
from epochal.config.schema import NOT_ARGUMENTS, is_mixed, whole_numbers
from epochal.core.files import absolute_if_there, expanded


def finalize(config: DictConfig) -> DictConfig:
    """Resolved copy: every `auto` filled in, stale keys dropped.

    What was typed instead stays under `requested`, by which `resume=auto` recognises the run.
    """
    config = copy.deepcopy(config)
    with open_dict(config):
        config.resume = None
        config.setdefault("requested", {})
        if config.task.name == "auto":
            config.requested.task = copy.deepcopy(config.task)
            config.task = task_config(config)
        for group in ("optimizer", "scheduler"):
            taken = parameters(config[group]._target_)
            stale = [key for key in config[group] if taken is not None and key not in (*taken, *NOT_ARGUMENTS)]
            if stale:  # such as the betas of a model's own choice, when the command line chose another optimiser
                config.requested[group] = copy.deepcopy(config[group])
                for key in stale:
                    del config[group][key]
        if config.optimizer.get("fused") and config.trainer.gradient_clip_val and is_mixed(config.trainer.precision):
            config.requested.setdefault("optimizer", copy.deepcopy(config.optimizer))
            config.optimizer.fused = False  # Lightning clips no fused optimiser's gradients in mixed precision
    OmegaConf.resolve(config)
    for key, value in whole_numbers(config):
        OmegaConf.update(config, key, value)
    make_paths_absolute(config)
    with open_dict(config):
        for key in ("claim", "budgets"):  # the experiment's, not the run's
            config.pop(key, None)
    return config


def make_paths_absolute(config: DictConfig) -> None:
    """Makes the paths of a resolved config absolute, so that the run can be resumed and tested from any folder."""
    config.output_dir = str(expanded(config.output_dir).absolute())
    if "path" in config.dataset:
        config.dataset.path = absolute_if_there(config.dataset.path)
    if isinstance(config.model.get("pretrained"), str):
        config.model.pretrained = absolute_if_there(config.model.pretrained)
    if "/" in str(config.dataset.get("tokenizer")):  # else the name of a kind
        config.dataset.tokenizer = absolute_if_there(config.dataset.tokenizer)
    for key in ("features", "judge"):
        if config.task.get(key) is not None:
            config.task[key] = absolute_if_there(config.task[key])
    if isinstance(config.get("init_from"), DictConfig) or config.get("init_from") not in choices().get("task", []):
        config.init_from = absolute_if_there(OmegaConf.to_container(config).get("init_from"))  # type: ignore[union-attr]


def task_config(config: DictConfig) -> DictConfig:
    """The task's group; of `auto` that of the first of the data set's objectives that the model can learn, as in its YAML.

    Options that were typed (`task.samples=1`) count for the objective that is chosen.
    """
    if config.task.name != "auto":
        return config.task
    model, data = target_class(config.model._target_), target_class(config.dataset._target_)
    chosen = common_tasks(data, model)[0]
    options = {key: value for key, value in config.task.items() if key != "name"}
    merged = OmegaConf.merge(load_option("task", chosen), options)
    assert isinstance(merged, DictConfig)
    return merged
