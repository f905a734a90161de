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

from epochal.config.allowlist import ALLOWED, check_targets
from epochal.config.compose import option_file
from epochal.config.instantiate import make_model, target_class
from epochal.core.errors import ConfigError
from epochal.core.files import slug
from epochal.core.specs import Classes, Images, from_plain
from epochal.models.common.lora import merged
from epochal.models.common.old_names import current_names
from epochal.tasks import Classification
from epochal.tasks.sample_quality import FeatureNetwork, Features
from epochal.training.checkpoint_io import read_checkpoint
from epochal.training.run_folder import Run, current_layout, runs_folder

INCEPTION = "inception"
PREFIX = "model."  # of the network's parameters in a task's


def resolved(config: DictConfig) -> DictConfig:
    """The config with the folder of a run in place of a model's name in `task.features`, which stays under `requested`.

    Of a model it is the newest finished run in this run's folder that learned to classify the same data set.

    Raises:
        ConfigError: If there is none.
    """
    name = config.task.get("features")
    if name is None or option_file("model", str(name)) is None or Path(str(name)).is_dir():
        return config
    parent = runs_folder(config)
    for file in sorted(parent.glob(f"*_{slug(name)}_{slug(config.dataset.name)}_s*/summary.json"), reverse=True):
        summary = Run(file.parent).summary()
        found = tuple(summary.get(key) for key in ("status", "task", "model", "dataset"))
        if found == ("finished", "classification", name, config.dataset.name):
            config = copy.deepcopy(config)
            with open_dict(config):
                config.requested.setdefault("task", copy.deepcopy(config.task))
                config.task.features = str(file.parent)
            return config
    raise ConfigError(
        f"task.features={name}: there is no finished run of model={name} that learned to classify dataset={config.dataset.name} "
        f"in {parent}. Train it first, or give a run's folder."
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
    config = current_layout(content["epochal"]["config"])
    config.callbacks, config.logger = {}, {}
    check_targets(config, (*ALLOWED, *allow))
    inputs, outputs = (from_plain(spec) for spec in content["epochal"]["specs"])
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
    network = make_model(config, inputs, outputs)
    state = merged(current_names(content["state_dict"], network, prefix=PREFIX))
    state = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"task.features={name}: its weights do not fit its model.") from error
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
    """What a task tells of its networks, if that of a run that is resumed has the weights of before.

    Args:
        known: With "features" as the task tells them now.
        summary: As the process before left it.

    Raises:
        ConfigError: If it has others.
    """
    now, then = known.get("features"), summary.get("features")
    if isinstance(now, dict) and isinstance(then, dict) and now.get("fingerprint") != then.get("fingerprint"):
        raise ConfigError(
            f"The weights of task.features={now['run']} changed since the run began, so that its FID would be another "
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
