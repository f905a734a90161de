"""Published weights to begin with (`model.pretrained`): torchvision's or timm's, or a folder or repository of the Hugging Face
Hub with a GPT, BERT or LLaMA, whose sizes and tokenizer the run takes too."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, open_dict
from rich.console import Console
from torch import nn

from epochal.core.errors import ConfigError
from epochal.core.multirun import in_grid, typed_alone
from epochal.core.specs import Outputs, class_count
from epochal.data import DataModule
from epochal.data.tokenizers import HuggingFace
from epochal.models.pretrained import huggingface, torchvision
from epochal.models.pretrained.huggingface_names import CLASSES

OF_THE_DATA = (
    "name",
    "head",
    "num_outputs",
    "next_sentence",
    "vocab_size",
)  # what a network takes from the data and the task


def source_of(config: DictConfig) -> str | None:
    """The folder or repository that `model.pretrained` names; None for other weights, and without any.

    Raises:
        ConfigError: If it should be one, and is true or false.
    """
    given = config.model.get("pretrained")
    if isinstance(given, bool) and given and config.model.name in CLASSES:
        raise ConfigError(
            f"model.pretrained={str(given).lower()}: name the weights, a folder or a repository of the Hub, e.g. "
            "model.pretrained=openai-community/gpt2."
        )
    return given if isinstance(given, str) else None


def with_sizes(config: DictConfig, overrides: Sequence[str] = ()) -> DictConfig:
    """A finalized config with the sizes of the weights that `model.pretrained` names, if it names any.

    Args:
        config: Is changed.
        overrides: As typed.

    Raises:
        ConfigError: If they are those of another model, or a size that was typed is another.
    """
    source = source_of(config)
    if source is None:
        return config
    found, _ = huggingface.read_config(source)
    if found["name"] != config.model.name:
        raise ConfigError(f"model.pretrained={source} is a {found['name']}; choose model={found['name']}.")
    typed = {key.lstrip("+") for key in (override.partition("=")[0] for override in overrides)}
    if "model.variant" in typed_alone(overrides):
        raise ConfigError(
            f"model.variant={config.model.variant}: the sizes are those of model.pretrained={source}; leave it out."
        )
    with open_dict(config):
        config.requested.setdefault("model", copy.deepcopy(config.model))
        for key, value in found.items():
            if key in OF_THE_DATA:
                continue
            own = config.model.get(key)
            if key in ("dropout", "context_length") and own is not None:
                continue
            if f"model.{key}" in typed and own != value:
                raise ConfigError(
                    f"model.{key}={own}: the weights of model.pretrained={source} have {value}; leave it out."
                )
            config.model[key] = value
    return config


def data_state(config: DictConfig) -> dict[str, Any] | None:
    """The tokenizer of the weights, as the state of data; None without such weights.

    Raises:
        ConfigError: If it has more ids than the weights' embedding.
    """
    source = source_of(config)
    if source is None:
        return None
    folder = huggingface.fetch(source)
    tokenizer, rows = HuggingFace.open(folder), huggingface.read_config(folder)[0]["vocab_size"]
    if len(tokenizer) > rows:
        raise ConfigError(
            f"model.pretrained={source}: tokenizer.json has {len(tokenizer):,} ids and the embedding {rows:,}, so it is of "
            "another network; put the network's own there."
        )
    tokenizer = tokenizer.with_size(rows)
    return tokenizer.state() | {"special_tokens": tokenizer.adds_special}


def load(
    model: nn.Module, config: DictConfig, data: DataModule, outputs: Outputs, console: Console, *, fresh: bool
) -> None:
    """Makes the data fit the weights that `model.pretrained` asks for, and loads them.

    Args:
        outputs: What the network must return.
        fresh: Whether no checkpoint of this run follows, whose weights would replace them.

    Raises:
        ConfigError: If there are none for this network, or they cannot be had.
    """
    if not config.model.get("pretrained"):
        return
    if source := source_of(config):
        if fresh:
            labels = getattr(outputs, "names", ()) if class_count(outputs) is not None else ()
            console.print(huggingface.load_pretrained(model, source, labels=labels), soft_wrap=True)
        return
    data.load_state(torchvision.normalisation(model))
    data.prepare()
    if fresh:
        console.print(torchvision.load_pretrained(model, progress=not in_grid()))
