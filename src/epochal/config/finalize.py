"""The resolved config of a run."""

from __future__ import annotations

import copy
import inspect

from omegaconf import DictConfig, OmegaConf, open_dict

from epochal.config.compose import conf_folder
from epochal.config.instantiate import resolve, target_class

PLUMBING = ("name", "_target_", "_partial_", "interval")  # keys of a config that are no arguments


def finalize(config: DictConfig) -> DictConfig:
    """A copy in which nothing is left to choose: the task is named, arguments of other choices are gone.

    What was asked for stays under `requested`, so that `resume=auto` knows the run again.
    """
    config = copy.deepcopy(config)
    with open_dict(config):
        config.resume = None
        config.setdefault("requested", {})
        if config.task.name == "auto":
            model, data = target_class(config.model._target_), target_class(config.dataset._target_)
            chosen = next(task for task in data.tasks if task in model.tasks)
            config.requested.task = copy.deepcopy(config.task)
            options = {k: v for k, v in config.task.items() if k != "name"}
            config.task = OmegaConf.merge(OmegaConf.load(conf_folder() / "task" / f"{chosen}.yaml"), options)
        for group in ("optimizer", "scheduler"):
            known = {*inspect.signature(resolve(config[group]._target_)).parameters, *PLUMBING}
            stale = {key for key in config[group] if key not in known}
            if stale:  # such as the betas of a model's own choice, when the command line chose another optimiser
                config.requested[group] = copy.deepcopy(config[group])
                for key in stale:
                    del config[group][key]
        if config.optimizer.get("fused") and config.trainer.gradient_clip_val and "mixed" in config.trainer.precision:
            config.requested.setdefault("optimizer", copy.deepcopy(config.optimizer))
            config.optimizer.fused = False  # Lightning clips no fused optimiser's gradients in mixed precision
    OmegaConf.resolve(config)
    with open_dict(config):
        for key in ("claim", "budgets"):  # the experiment's, not the run's
            config.pop(key, None)
    return config
