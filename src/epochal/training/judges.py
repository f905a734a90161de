"""The judge of a policy's answers: the network of a run that learned to classify texts, with its own vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from epochal.config.allowlist import ALLOWED, check_targets
from epochal.config.instantiate import target_class
from epochal.core.errors import ConfigError
from epochal.core.specs import Classes, Tokens, describe
from epochal.data.batching import Batch
from epochal.models.common.layers import evaluating
from epochal.tasks import Classification
from epochal.tasks.base import model_inputs
from epochal.training.checkpoint_io import read_checkpoint
from epochal.training.features import with_run_of_model
from epochal.training.networks import fingerprint_of, network_in
from epochal.training.run_folder import Run

GOOD = ("positive", "good", "yes", "1")  # names of the class that counts, in this order; else the last class does
AT_ONCE = 64  # texts


def resolved(config: DictConfig) -> DictConfig:
    """The config with the folder of a run in place of a model's name in `task.judge`, which stays under `requested`.

    Of a model it is the newest finished run in this run's folder that learned to classify, whichever data it read.

    Raises:
        ConfigError: If there is none, or the run that is named classifies nothing.
    """
    config = with_run_of_model(config, "judge")
    if (path := config.task.get("judge")) is not None:
        check_classifies(str(path), Run.open(str(path)).config(), config.get("allow") or ())
    return config


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
    config, (inputs, outputs), network = network_in(content, allow)
    check_classifies(path, config, allow)
    if not (isinstance(inputs, Tokens) and isinstance(outputs, Classes)):
        raise ConfigError(
            f"task.judge={path} must be a run that learned to classify texts, and it read {describe(inputs)}."
        )
    data = make_data(config, content["epochal"]["data"])
    data.restore(inputs, outputs)
    good = next((outputs.names.index(name) for name in GOOD if name in outputs.names), outputs.count - 1)
    return TextJudge(network, data, good, str(run.folder), fingerprint_of(content["state_dict"]))
