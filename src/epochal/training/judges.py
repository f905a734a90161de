"""The judge of a policy's answers: the network of a run that learned to classify texts, with its own vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Sequence
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
from epochal.core.specs import Classes, Inputs, Outputs, Tokens, describe, from_plain
from epochal.data.batching import Batch
from epochal.models.common.layers import evaluating
from epochal.models.common.lora import merged
from epochal.models.common.old_names import current_names
from epochal.tasks import Classification
from epochal.tasks.base import model_inputs
from epochal.training.checkpoint_io import read_checkpoint
from epochal.training.networks import fingerprint_of
from epochal.training.run_folder import Run, current_layout, runs_folder

GOOD = ("positive", "good", "yes", "1")  # names of the class that counts, in this order; else the last class does
AT_ONCE = 64  # texts


def resolved(config: DictConfig) -> DictConfig:
    """The config with the folder of a run in place of a model's name in `task.judge`, which stays under `requested`.

    Of a model it is the newest finished run in this run's folder that learned to classify, whichever data it read.

    Raises:
        ConfigError: If there is none, or the run that is named classifies nothing.
    """
    name = config.task.get("judge")
    if name is None:
        return config
    if option_file("model", str(name)) is None or Path(str(name)).is_dir():
        check_classifies(str(name), Run.open(str(name)).config(), config.get("allow") or ())
        return config
    parent = runs_folder(config)
    for file in sorted(parent.glob(f"*_{slug(name)}_*_s*/summary.json"), reverse=True):
        summary = Run(file.parent).summary()
        if tuple(summary.get(key) for key in ("status", "task", "model")) == ("finished", "classification", name):
            config = copy.deepcopy(config)
            with open_dict(config):
                config.requested.setdefault("task", copy.deepcopy(config.task))
                config.task.judge = str(file.parent)
            return config
    raise ConfigError(
        f"task.judge={name}: there is no finished run of model={name} that learned to classify texts in {parent}. Train it "
        "first, or give a run's folder."
    )


def check_classifies(path: str, config: DictConfig, allow: Sequence[str]) -> None:
    """Raises ConfigError unless the config is that of a run that learned to classify."""
    check_targets(config, (*ALLOWED, *allow))
    if not issubclass(target_class(config.task._target_), Classification):
        raise ConfigError(f"task.judge={path} must be a run that learned to classify texts, not {config.task.name}.")


class TextJudge:
    """A classifier of texts as `Policy` asks it.

    Args:
        network: With its weights.
        data: Restored, with its tokenizer.
        good: Number of the class that counts.
        run, fingerprint: Which network it is.
    """

    def __init__(self, network: nn.Module, data: Any, good: int, run: str, fingerprint: str) -> None:
        self.network, self.data, self.good = network.eval().requires_grad_(False), data, good
        self.run, self.fingerprint = run, fingerprint

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N texts -> the probability of the class that counts (N,), on the CPU; 0 for a text without a token."""
        found = []
        for start in range(0, len(texts), AT_ONCE):
            inputs, lengths = self.data.encode(list(texts[start : start + AT_ONCE]))
            segments = self.data.segments(inputs, lengths)
            with evaluating(self.network):
                logits = self.network(*model_inputs(Batch(inputs, inputs, 0, lengths, segments), self.network))
            found.append(logits.float().softmax(1)[:, self.good].masked_fill(lengths == 0, 0.0))
        return torch.cat(found) if found else torch.zeros(0)


def text_judge(path: str, allow: Sequence[str], make_data: Any) -> TextJudge:
    """The judge that `task.judge` names.

    Args:
        path: Of a run's folder.
        allow: Packages of the user's whose classes its config may make.
        make_data: `factories.new_data`.

    Raises:
        ConfigError: If there is no such run, or it is no classifier of texts.
    """
    run = Run.open(path)
    content = read_checkpoint(run.best if run.best.exists() else run.last)
    config = current_layout(content["epochal"]["config"])
    config.callbacks, config.logger = {}, {}
    check_classifies(path, config, allow)
    inputs: Inputs
    outputs: Outputs
    inputs, outputs = (from_plain(spec) for spec in content["epochal"]["specs"])  # type: ignore[assignment]
    if not (isinstance(inputs, Tokens) and isinstance(outputs, Classes)):
        raise ConfigError(
            f"task.judge={path} must be a run that learned to classify texts, and it read {describe(inputs)}."
        )
    network = make_model(config, inputs, outputs)
    weights = merged(current_names(content["state_dict"], network, prefix="model."))
    network.load_state_dict({k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")})
    data = make_data(config, content["epochal"]["data"])
    data.restore(inputs, outputs)
    good = next((outputs.names.index(name) for name in GOOD if name in outputs.names), outputs.count - 1)
    return TextJudge(network, data, good, str(run.folder), fingerprint_of(content["state_dict"]))
