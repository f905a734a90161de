"""The network in whose features generated images are compared with real ones: a run's classifier, or Inception."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from torch import Tensor, nn

from epochal.config.compose import option_file
from epochal.config.instantiate import target_class
from epochal.core.errors import ConfigError
from epochal.core.files import slug
from epochal.core.specs import Classes, Images
from epochal.tasks import Classification
from epochal.tasks.sample_quality import FeatureNetwork, Features
from epochal.training.checkpoint_io import read_checkpoint
from epochal.training.networks import network_in
from epochal.training.run_folder import Run, runs_folder

INCEPTION = "inception"


def resolved(config: DictConfig) -> DictConfig:
    """The config with the folder of a run in place of a model's name in `task.features`, which stays under `requested`.

    Of a model it is the newest finished run in this run's folder that learned to classify the same data set.

    Raises:
        ConfigError: If there is none.
    """
    return with_run_of_model(config, "features", dataset=config.dataset.name)


def with_run_of_model(config: DictConfig, key: str, dataset: str | None = None) -> DictConfig:
    """The config with the folder of a model's newest finished classifier in place of its name in an option of the task.

    Args:
        config: Of a run, whose folder is searched; it is returned as it is where the option names no model.
        key: The option.
        dataset: That it must have learned; None: any.

    Raises:
        ConfigError: If there is none.
    """
    name = config.task.get(key)
    if name is None or option_file("model", str(name)) is None or Path(str(name)).is_dir():
        return config
    parent, data = runs_folder(config), "*" if dataset is None else slug(dataset)
    for file in sorted(parent.glob(f"*_{slug(name)}_{data}_s*/summary.json"), reverse=True):
        summary = Run(file.parent).summary()
        learned = tuple(summary.get(each) for each in ("status", "task", "model"))
        if learned == ("finished", "classification", name) and dataset in (None, summary.get("dataset")):
            config = copy.deepcopy(config)
            with open_dict(config):
                config.requested.setdefault("task", copy.deepcopy(config.task))
                config.task[key] = str(file.parent)
            return config
    what = "" if dataset is None else f" dataset={dataset}"
    raise ConfigError(
        f"task.{key}={name}: there is no finished run of model={name} that learned to classify{what} in {parent}. Train it "
        "first, or give a run's folder."
    )


def feature_network(name: str, allow: Sequence[str] = ()) -> FeatureNetwork:
    """The network that `task.features` names.

    Args:
        name: A run's folder, or "inception".
        allow: Packages of the user's whose classes its config may make.

    Raises:
        ConfigError: If there is no such run, it is no classifier of images, or Inception's weights cannot be had.
    """
    if name == INCEPTION:
        return Inception()
    run = Run.open(name)
    run.config()
    content = read_checkpoint(run.best if run.best.exists() else run.last)
    config, (inputs, outputs), network = network_in(content, allow)
    if not (
        issubclass(target_class(config.task._target_), Classification)
        and isinstance(inputs, Images)
        and isinstance(outputs, Classes)
    ):
        raise ConfigError(
            f"task.features={name} must be a run that learned to classify images, not {config.task.name}."
        )
    if config.dataset.get("permuted"):
        raise ConfigError(f"task.features={name} learned from images whose pixels are permuted; name another run.")
    return FeatureNetwork(
        network,
        mean=torch.tensor(content["epochal"]["data"]["mean"]),
        std=torch.tensor(content["epochal"]["data"]["std"]),
        image_shape=(inputs.channels, inputs.height, inputs.width),
        run=str(run.folder),
        fingerprint=fingerprint(network),
    )


def fingerprint(network: nn.Module) -> str:
    """A hash of a network's parameters and buffers, 16 hexadecimal digits."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def unchanged(known: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """What a task tells of the networks that it measures with, if they have the weights of before in a run that is resumed.

    Args:
        known: With "features" or "judge" as the task tells them now.
        summary: As the process before left it.

    Raises:
        ConfigError: If one has others.
    """
    for key, measure in (("features", "FID"), ("judge", "share of good answers")):
        now, then = known.get(key), summary.get(key)
        if isinstance(now, dict) and isinstance(then, dict) and now.get("fingerprint") != then.get("fingerprint"):
            raise ConfigError(
                f"The weights of task.{key}={now['run']} changed since the run began, so that its {measure} would be another "
                "measure; start anew."
            )
    return known


class Inception(FeatureNetwork):
    """Inception-v3 as torchmetrics has it, the network of published scores: 2,048 features, no classes.

    Raises:
        ConfigError: If its package is not installed, or its weights cannot be downloaded.
    """

    def __init__(self) -> None:
        if find_spec("torch_fidelity") is None:
            raise ConfigError(
                "task.features=inception needs the package torch-fidelity (pip install torch-fidelity); a classifier's run "
                "needs none."
            )
        from torchmetrics.image.fid import NoTrainInceptionV3

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
        except OSError as error:
            raise ConfigError(
                f"The weights of task.features=inception cannot be downloaded ({error}); name a classifier's run."
            ) from error
        one = torch.ones(1)  # it normalises by itself
        super().__init__(network, mean=one, std=one, image_shape=None, run=INCEPTION, fingerprint=fingerprint(network))

    def read(self, images: Tensor) -> Features:
        device = next(self.network.parameters()).device
        colours = images.to(device).expand(-1, 3, -1, -1)  # a grey image has three equal ones
        return Features(self.network(colours).double(), None)
