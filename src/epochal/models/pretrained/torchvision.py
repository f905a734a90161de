"""Torchvision's pretrained weights in our networks: the same tensors under our names."""

from __future__ import annotations

import io
import pickle
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.core.protocols import Pretrained, ReshapedWeights, TorchvisionWeights

AUXILIARY = "auxiliary."  # prefix of auxiliary heads; torchvision documents that it never trained its own
OWN_SCALE = {"googlenet": (0.5, 0.5)}  # mean and std where torchvision's network itself converts from the usual ones
OTHERS = ("efficientnet_v2_*", "vit_h_*")  # networks of torchvision without a counterpart here
TIMEOUT = 30  # seconds without an answer
ALTERNATIVE = "or choose model.pretrained=false."


def translate(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Torchvision's parameters and buffers (or their gradients) under the names of our network.

    Args:
        state: Under torchvision's names.
        model: A `core.protocols.TorchvisionWeights`, and `ReshapedWeights` if its shapes differ too.
    """
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in model.torchvision_keys:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return model.reshape_torchvision(renamed) if isinstance(model, ReshapedWeights) else renamed


def load_pretrained(model: Any, *, progress: bool = True) -> str:
    """Loads pretrained weights, torchvision's or of the network's own source; returns a sentence that says which.

    They are read from torch.hub's cache, into which they are downloaded if they are missing. An output layer for other
    classes than ImageNet's keeps its random initialisation, and so do auxiliary heads.

    Args:
        model: One of our networks.
        progress: Show a progress bar while downloading.

    Raises:
        ConfigError: If there are no weights for such a network, or they are not in the cache and cannot be downloaded.
    """
    if isinstance(model, Pretrained):
        return model.load_pretrained()
    weights = _weights(model)
    state = translate(_download(weights, progress=progress), model)
    state = {name: tensor for name, tensor in state.items() if not name.startswith(AUXILIARY)}
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(AUXILIARY)}
    counters = {name for name in own if name.endswith(".num_batches_tracked")}  # which older files lack
    unlike = {n for n in {*own, *state} if n not in own or n not in state or own[n].shape != state[n].shape} - counters
    classes = len(weights.meta["categories"])
    heads = {n for n in unlike if n in own and n in state and len(state[n]) == classes != len(own[n])}
    if wrong := sorted(unlike - heads):
        raise ConfigError(
            f"{_file(weights)} does not hold the weights of torchvision's {model.torchvision_name}: {wrong[0]} "
            f"does not fit. Delete the file, so that it is downloaded anew, {ALTERNATIVE}"
        )
    model.load_state_dict({name: tensor for name, tensor in state.items() if name not in heads}, strict=False)
    begins = ", ".join(sorted({name.rpartition(".")[0] for name in heads}))
    return f"Weights: torchvision's {weights}" + (f"; {begins} begins afresh, for other classes" if heads else "") + "."


def normalisation(model: Any) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel, of pixels in [0, 1], that the pretrained weights expect.

    Raises:
        ConfigError: If there are no weights for such a network.
    """
    if isinstance(model, Pretrained):
        return model.normalisation()
    transform = _weights(model).transforms()
    mean, std = transform.mean, transform.std
    if model.torchvision_name in OWN_SCALE:
        mean, std = ([number] * 3 for number in OWN_SCALE[model.torchvision_name])
    return {"mean": list(mean), "std": list(std)}


def _weights(model: Any) -> Any:
    """Torchvision's newest weights for this network; nothing is downloaded yet.

    Raises:
        ConfigError: If torchvision is not installed, or has no weights for this network.
    """
    try:
        from torchvision.models import get_model_weights, list_models
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"model.pretrained=true needs torchvision: pip install 'epochal[pretrained]', {ALTERNATIVE}"
        ) from error

    name = model.torchvision_name if isinstance(model, TorchvisionWeights) else None
    if name is None:
        family = list_models(include=f"{type(model).__name__.lower()}*", exclude=OTHERS)
        which = f", but with model.input=imagenet for {' '.join(family)}" if family else ""
        raise ConfigError(
            f"model.pretrained=true: torchvision has no weights for this network{which}; choose one that has, "
            f"{ALTERNATIVE}"
        )
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    if first.in_channels != 3:
        raise ConfigError(
            f"model.pretrained=true: torchvision's weights of {name} read colour images, and the "
            f"data has {first.in_channels} channel{'s' * (first.in_channels > 1)}: choose colour images, {ALTERNATIVE}"
        )
    return get_model_weights(name).DEFAULT


def _file(weights: Any) -> Path:
    """Where torch.hub caches them."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)


def _download(weights: Any, *, progress: bool) -> dict[str, Tensor]:
    """Torchvision's state dict, from the cache or downloaded into it.

    Raises:
        ConfigError: If it cannot be downloaded, or the file is damaged.
    """
    file = _file(weights)
    try:
        with _timeout(), redirect_stdout(io.StringIO()):  # torch.hub prints to it, the bar to stderr
            return weights.get_state_dict(progress=progress, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        if file.exists():
            raise ConfigError(f"{file} is damaged. Delete it, so that it is downloaded anew, {ALTERNATIVE}") from error
        reason = str(getattr(error, "reason", None) or error).strip().splitlines()
        raise ConfigError(
            f"model.pretrained=true: {weights.url} cannot be downloaded "
            f"({reason[0] if reason else type(error).__name__}). Put a copy of it into {file.parent} (TORCH_HOME chooses another place), {ALTERNATIVE}"
        ) from error


@contextmanager
def _timeout() -> Iterator[None]:
    """A time limit on each answer while downloading; torch.hub has none, and would wait forever for a silent server."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
