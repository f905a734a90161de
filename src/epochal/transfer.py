"""Weights to begin with: those of another run (`init_from`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn

from epochal.callbacks import read_checkpoint
from epochal.errors import ConfigError
from epochal.resume import runs_folder
from epochal.runs import Run
from epochal.validate import conf_folder

# how the names of a network's last layers begin, where its class does not say it in `heads`
HEADS = ("head.", "auxiliary.")
NAMED = 4  # weights in a message


def source(config: DictConfig) -> Run | None:
    """The run that `init_from` names: by its folder, or by the task that it learned.

    Of a task it is the newest finished run in this run's folder with the same model, data set and seed.

    Raises:
        ConfigError: If there is none.
    """
    if config.init_from is None:
        return None
    name = str(config.init_from)
    if not is_task(name):
        run = Run.open(name)
        run.config()
        return run
    parent = runs_folder(config)
    wanted = (name, config.model.name, config.dataset.name, config.seed)
    for file in sorted(parent.glob(f"*_s{config.seed}*/summary.json"), reverse=True):
        summary = Run(file.parent).summary()
        found = tuple(summary.get(key) for key in ("task", "model", "dataset", "seed"))
        if found == wanted and summary.get("status") == "finished":
            return Run(file.parent)
    raise ConfigError(
        f"init_from={name}: there is no finished run of it with model={config.model.name}, dataset={config.dataset.name} "
        f"and seed={config.seed} in {parent}. Train it first with task={name}, or give a run's folder."
    )


def is_task(name: str) -> bool:
    """Whether `init_from` gives a task instead of a folder."""
    return (conf_folder() / "task" / f"{name}.yaml").is_file() and not Path(name).is_dir()


def weights(run: Run) -> dict[str, Any]:
    """The checkpoint of a run's best weights.

    Raises:
        ConfigError: If it has none, or they are damaged.
    """
    return read_checkpoint(run.best if run.best.exists() else run.last)


def begin_with(model: nn.Module, checkpoint: dict[str, Any], config: DictConfig) -> None:
    """Puts another run's weights into a network; a head that learned something else keeps its fresh start.

    Raises:
        ConfigError: If the two are not the same network up to their heads, naming what does not fit.
    """
    prefix = "model."
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    own = model.state_dict()
    heads = tuple(getattr(model, "heads", HEADS))
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    wrong = [
        _misfit(k, own.get(k), state.get(k)) for k in {**own, **state} if k not in fitting and not k.startswith(heads)
    ]
    if wrong:
        more = f" and {len(wrong) - NAMED:,} more" if len(wrong) > NAMED else ""
        raise ConfigError(
            f"init_from={config.init_from} holds weights of model={checkpoint['epochal']['config']['model']['name']} that do not "
            f"fit this model={config.model.name}: {', '.join(wrong[:NAMED])}{more}."
        )
    if not next(model.parameters()).is_meta:
        model.load_state_dict(fitting, strict=False)


def _misfit(name: str, here: Tensor | None, there: Tensor | None) -> str:
    if there is None:
        return f"{name} is missing there"
    if here is None:
        return f"{name} is missing here"
    return f"{name} is {tuple(there.shape)} there, {tuple(here.shape)} here"
