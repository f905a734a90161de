"""From a run's folder to its network: to test it on data, or to use it from a notebook."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from epochal.config.allowlist import ALLOWED, check_resolved, check_targets
from epochal.config.instantiate import make_model
from epochal.config.validate import wrong_roles
from epochal.core.errors import ConfigError
from epochal.core.files import expanded
from epochal.core.format import say
from epochal.core.program import command_line
from epochal.core.specs import Inputs, Outputs, class_count, from_plain
from epochal.data import DataModule
from epochal.tasks import Task
from epochal.tasks.post_training.policy import UsesFrozen
from epochal.training.checkpoint_io import load_weights, read_checkpoint
from epochal.training.factories import make_task
from epochal.training.features import feature_network
from epochal.training.networks import open_networks
from epochal.training.run_folder import Run, current_layout
from epochal.training.trainer import quiet

EXPORTED, WEIGHTS = "config.json", "model.safetensors"  # of a folder that `epochal export to=safetensors` wrote
TRIALS = ("debug", "overfit")  # trainers whose runs only show that something runs, or can learn at all


@dataclass
class SavedRun:
    """What a checkpoint holds of its run.

    Attributes:
        folder: The run's, or the one that the checkpoint lies in.
        config: Resolved, without callbacks and loggers.
        inputs, outputs: What the network reads and gives.
        data: The state of its data: normalisation, tokenizer.
        checkpoint: All of it.
    """

    folder: Path
    config: DictConfig
    inputs: Inputs
    outputs: Outputs
    data: dict[str, Any]
    checkpoint: dict[str, Any]

    def task(self, data: DataModule | None = None) -> Task:
        """The objective around the network, with the weights of the checkpoint.

        Args:
            data: Of the run, prepared: then the frozen networks that the task measures with are opened too.

        A network of features that is no longer there is left out, which is said: nothing else needs it.
        """
        config = self.config
        if (features := config.task.get("features")) is not None:
            try:
                feature_network(features, config.get("allow", ()))
            except ConfigError as error:
                say(f"No sample quality is measured: {error}")
                config = copy.deepcopy(config)
                config.task.features = None
        if (judge := config.task.get("judge")) is not None and not (Path(judge) / "config.yaml").is_file():
            say(f"No answers are judged: {judge}, the run of the judge, is gone.")
            config = copy.deepcopy(config)
            config.task.judge = None
        task = make_task(
            config,
            make_model(self.config, self.inputs, self.outputs),
            total_steps=1,
            classes=class_count(self.outputs),
        )
        if isinstance(task, UsesFrozen) and data is not None:
            networks = open_networks(self.config, data, self.checkpoint.get("epochal", {}).get("networks"))
            task.attach({name: frozen.network for name, frozen in networks.items()})
        load_weights(task, self.checkpoint)
        return task


def read_run(file: Path, folder: Path, allow: tuple[str, ...] = ()) -> SavedRun:
    """Reads a checkpoint.

    Args:
        file: The checkpoint.
        folder: Of its run.
        allow: Packages of the user's whose classes its config may make.

    Raises:
        ConfigError: If the file is no checkpoint, or its config would make what is not allowed.
    """
    quiet()
    content = read_checkpoint(file)
    config = current_layout(content["epochal"]["config"])
    config.callbacks, config.logger = {}, {}  # of the training; nothing of them is made here
    check_targets(config, (*ALLOWED, *allow))
    if wrong := list(wrong_roles(config)):
        raise ConfigError("\n".join(wrong))
    try:
        inputs, outputs = (from_plain(spec) for spec in content["epochal"]["specs"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} is of another version of Epochal: its specs cannot be read.") from error
    return SavedRun(folder, config, inputs, outputs, content["epochal"]["data"], content)  # type: ignore[arg-type]


def read_export(folder: Path, allow: tuple[str, ...] = ()) -> SavedRun:
    """Reads a folder that `epochal export to=safetensors` wrote.

    Args:
        folder: With config.json and model.safetensors.
        allow: Packages of the user's whose classes its config may make.

    Raises:
        ConfigError: If it is no such folder, or damaged, or its config would make what is not allowed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    quiet()
    try:
        described = json.loads((folder / EXPORTED).read_text("utf-8"))
        check_resolved(described["config"])
        config = OmegaConf.create({"callbacks": {}, "logger": {}, **described["config"]})
        inputs, outputs = (from_plain(spec) for spec in described["specs"])
        state = {f"model.{name}": tensor for name, tensor in load_file(folder / WEIGHTS).items()}
        data = dict(described["data"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigError(
            f"{folder} is no run, and no folder that epochal export to=safetensors wrote, or it is damaged: {error}."
        ) from error
    check_targets(config, (*ALLOWED, *allow))
    if "tokenizer" in config.dataset and "tokenizer" in data:  # was a path there; the state holds it
        config.dataset.tokenizer = "byte"
    return SavedRun(folder, config, inputs, outputs, data, {"state_dict": state})  # type: ignore[arg-type]


def opened(config: DictConfig) -> SavedRun:
    """What `run` or `checkpoint` of a command names.

    Raises:
        ConfigError: If the folder or file is no run's.
    """
    allow = tuple(config.allow)
    if config.checkpoint is None:
        return open_run(config.run, allow, config.output_dir)
    if config.run != "latest":
        raise ConfigError(f"run={config.run} and checkpoint={config.checkpoint} both name the weights; leave one out.")
    file = Path(config.checkpoint).expanduser().absolute()
    folder = file.parent.parent if (file.parent.parent / "config.yaml").is_file() else file.parent
    return read_run(file, folder, allow)


def open_run(run: str | Path, allow: tuple[str, ...] = (), output_dir: str = "outputs") -> SavedRun:
    """Reads the best checkpoint of a run, or where there is none the last.

    Args:
        run: Its folder, or one that `epochal export to=safetensors` wrote; "latest" is the newest finished run in
            `output_dir`, see `latest`.
        allow: Packages of the user's whose classes its config may make.
        output_dir: The outputs folder.

    Raises:
        ConfigError: If there is no such run, or it has no checkpoint that can be read.
    """
    folder = str(expanded(run).absolute())
    if run != "latest" and os.path.isfile(f"{folder}/{WEIGHTS}") and not os.path.isfile(f"{folder}/config.yaml"):
        return read_export(Path(folder), allow)
    found = Run.open(run) if run != "latest" else latest(Path(output_dir))
    found.config()
    return read_run(found.best if found.best.exists() else found.last, found.folder, allow)


def latest(outputs: Path) -> Run:
    """The newest run that finished and was meant to learn: none of trainer=debug or trainer=overfit.

    Raises:
        ConfigError: If there is none.
    """
    files = sorted(outputs.glob("*/*/checkpoints/last.ckpt"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        run = Run(file.parent.parent)
        try:
            if run.summary().get("status") == "finished" and run.config().trainer.get("name") not in TRIALS:
                return run
        except ConfigError:  # a folder of something else
            continue
    if files:
        raise ConfigError(
            f"None of the runs in {outputs} has finished, other than with trainer=debug or trainer=overfit; name one with "
            "run=<folder>."
        )
    raise ConfigError(f"There is no run in {outputs} yet; {command_line('train')} makes one.")
