"""Frozen networks beside the one that a run trains: a reference, a reward model. They stay in the runs that made them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from epochal.config.allowlist import ALLOWED, check_targets
from epochal.config.instantiate import make_model, target_class
from epochal.core.errors import ConfigError
from epochal.core.files import relative
from epochal.core.specs import Inputs, Outputs, from_plain
from epochal.data import DataModule
from epochal.data.vocabularies import vocabularies_of
from epochal.models.common.lora import merged
from epochal.models.common.old_names import current_names
from epochal.training.checkpoint_io import read_checkpoint
from epochal.training.run_folder import Run, current_layout
from epochal.training.warm_start import TRAINED, find_run, load_matching_weights, named_runs, parent_in

PREFIX = "model."  # of a network's parameters in a task's
REFERENCE = "reference"  # a copy of the policy at the start, unless a run is named for it


@dataclass(frozen=True)
class Frozen:
    """A network whose weights lie in another run.

    Attributes:
        run: Its folder.
        fingerprint: Of its weights, see `fingerprint_of`.
        network: The network, with its weights.
    """

    run: str
    fingerprint: str
    network: nn.Module

    def record(self) -> dict[str, str]:
        """What a checkpoint and `summary.json` keep of it."""
        return {"run": self.run, "fingerprint": self.fingerprint}


def open_networks(
    config: DictConfig, data: DataModule, known: Mapping[str, Mapping[str, str]] | None
) -> dict[str, Frozen]:
    """The frozen networks that the task needs, each from the run that `init_from` names for it.

    Args:
        config: Of this run, resolved.
        data: Prepared, with this run's vocabulary.
        known: The records of the networks that the run began with, where it is resumed; None: it is new.

    Raises:
        ConfigError: If one is not named, is no such network, has another vocabulary, or changed since the run began.
    """
    needs: tuple[str, ...] = getattr(target_class(config.task._target_), "needs", ())
    given = named_runs(config.init_from)
    found = {}
    for name in needs:
        path = given.get(name) or (given.get(TRAINED) if name == REFERENCE else None)
        record = (known or {}).get(name)
        if record is not None:
            path = record["run"]
        if path is None:
            raise ConfigError(missing(config, needs))
        found[name] = _open(config, data, name, str(path), resumed=record is not None)
        if record is not None and found[name].fingerprint != record["fingerprint"]:
            raise ConfigError(
                f"The {name} of this run was the network of {relative(Run.open(path).folder)}, whose weights changed since; put "
                "them back, or start anew."
            )
    return found


def missing(config: DictConfig, needs: tuple[str, ...]) -> str:
    """A sentence that says which runs a task needs."""
    others = "".join(f", {name}: <run>" for name in needs if name != REFERENCE)
    right = f"{{{TRAINED}: <run>{others}}}" if others else "<run>"
    return f"task={config.task.name} needs init_from={right}: the run whose network it goes on with{', and those beside it' if others else ''}."


def _open(config: DictConfig, data: DataModule, name: str, path: str, *, resumed: bool) -> Frozen:
    try:
        run = find_run(config, path)
        saved = run.config()
        checkpoint = read_checkpoint(run.best if run.best.exists() else run.last)
    except ConfigError as error:
        if resumed:
            raise ConfigError(f"This run needs its {name}, the network of {path}, which is gone: {error}") from error
        raise
    check_vocabulary(name, run, checkpoint["epochal"]["data"], data.state())
    with torch.random.fork_rng(devices=[]):  # what the networks begin with must not change what this run draws
        if name == REFERENCE:
            network = make_model(config, *data.specs(data.learns))
            load_matching_weights(network, parent_in(run, config), config, data.specs(data.learns)[1])
        else:
            network = _own(config, name, run, saved, checkpoint)
    return Frozen(str(run.folder), fingerprint_of(checkpoint["state_dict"]), network)


def _own(config: DictConfig, name: str, run: Run, saved: DictConfig, checkpoint: dict[str, Any]) -> nn.Module:
    """A scoring network as its own run made it.

    Raises:
        ConfigError: If the run learned no scores.
    """
    trained, _, network = network_in(checkpoint, config.get("allow") or ())
    if getattr(target_class(trained.task._target_), "head", None) != "scalar":
        raise ConfigError(
            f"init_from.{name}={relative(run.folder)} learned {saved.task.name}; a {name} model is a run of task=reward_modeling."
        )
    return network


def network_in(
    checkpoint: Mapping[str, Any], allow: Sequence[str] = ()
) -> tuple[DictConfig, tuple[Inputs, Outputs], nn.Module]:
    """The config, the specs and the network of a checkpoint, with its weights, those of LoRA merged.

    Args:
        checkpoint: Of any run, as read.
        allow: Packages of the user's whose classes its config may make.

    Raises:
        ConfigError: If its config would make what is not allowed, or the weights do not fit its model.
    """
    config = current_layout(checkpoint["epochal"]["config"])
    config.callbacks, config.logger = {}, {}
    check_targets(config, (*ALLOWED, *allow))
    inputs, outputs = (from_plain(spec) for spec in checkpoint["epochal"]["specs"])
    with torch.random.fork_rng(devices=[]):  # what the network began with must not change what a run beside it draws
        network: nn.Module = make_model(config, inputs, outputs)
    weights = merged(current_names(checkpoint["state_dict"], network, prefix=PREFIX))
    try:
        network.load_state_dict({k.removeprefix(PREFIX): v for k, v in weights.items() if k.startswith(PREFIX)})
    except RuntimeError as error:
        raise ConfigError(f"The weights of a run of model={config.model.name} do not fit its model.") from error
    return config, (inputs, outputs), network  # type: ignore[return-value]


def check_vocabulary(name: str, run: Run, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raises ConfigError if a network reads other tokens, or conversations in another template, than this run."""
    same = vocabularies_of(theirs) == vocabularies_of(ours)
    if not same or any(theirs.get(key) != ours.get(key) for key in ("tokenizer", "reserved")):
        raise ConfigError(
            f"init_from.{name}={relative(run.folder)} has another vocabulary than the {TRAINED}, so that its ids mean other words; "
            f"train it with init_from=<the {TRAINED}'s run>."
        )
    if "template" in theirs and theirs["template"] != ours.get("template"):
        raise ConfigError(
            f"init_from.{name}={relative(run.folder)} learned with dataset.template={theirs['template']}, and this run has "
            f"{ours.get('template')}; give both the same."
        )


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """A hash of weights, by names and bits."""
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
