"""Any image network of the library timm by its name, to compare modern networks with the classics.

Wightman: PyTorch Image Models (https://github.com/huggingface/pytorch-image-models).
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from epochal.core.checks import check_sizes
from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.hub import hub_is_reachable
from epochal.core.specs import Classes, Images

USUAL = (32, 64)  # sides in pixels to suggest before the published one


class Timm(nn.Module):
    """A network of timm, unchanged and with timm's initialisation, with an output layer for our classes.

    Networks whose weights depend on the image's size, such as most transformers, are built for that of the data.

    Args:
        image_shape: (C, H, W) of an input.
        num_classes: Number of logits.
        network: A name from `timm.list_models()`, such as convnext_atto; or with a tag of its weights, such as
            convnext_atto.d2_in1k, which matters only for `load_pretrained`.

    Raises:
        ValueError: If timm is not installed or has no such network, a size is below 1, or the network cannot read
            images of this shape.
    """

    heads: ClassVar[tuple[str, ...]] = ("classes",)
    reads: ClassVar[tuple[type, ...]] = (Images,)

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int, network: str) -> None:
        super().__init__()
        channels, height, width = image_shape
        check_sizes(channels=channels, height=height, width=width, num_classes=num_classes)
        self.published = _published(network)
        self._maps = _maps(network, image_shape)
        if isinstance(self._maps, str):
            published = self.published.input_size[-1]
            sides = (*USUAL, published)
            fitting = [side for side in sides if not isinstance(_maps(network, (channels, side, side)), str)]
            reason = (
                f"It was made for {published}x{published}: dataset.image_size={fitting[0]}" if fitting else self._maps
            )
            raise ValueError(f"network={network} cannot read images of {channels}x{height}x{width}. {reason}")
        self._recipe: dict[str, Any] = {"network": network, "image_shape": image_shape, "num_classes": num_classes}
        self.network = _create(**self._recipe)
        outputs = self.published.classifier
        self.head_parameters = tuple(
            f"network.{name}." for name in ([outputs] if isinstance(outputs, str) else outputs or [])
        )

    @classmethod
    def for_data(cls, inputs: Images, outputs: Classes, **config: Any) -> Timm:
        image_shape = (inputs.channels, inputs.height, inputs.width)
        return cls(image_shape=image_shape, num_classes=outputs.count, **config)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        return self.network(images)

    def stages(self) -> dict[str, nn.Module]:
        """The submodules that timm lists as features, by its names, if their outputs are feature maps (B, C, H, W)."""
        return {name: self.network.get_submodule(name) for name in self._maps}

    def load_pretrained(self) -> str:
        """Loads timm's pretrained weights, through the Hub's cache; returns a sentence that says which.

        Timm adapts them to other numbers of channels and pixels; an output layer for other classes keeps its random
        initialisation.

        Raises:
            ConfigError: If there are none for this network, or they are not in the cache and cannot be downloaded.
        """
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = not hub_is_reachable()  # else each request is retried for half a minute
        cure = "or choose model.pretrained=false."
        if not self.published.has_weights:
            raise ConfigError(
                f"model.pretrained=true: timm has no weights for network={self._recipe['network']}; "
                f"take another, {cure}"
            )
        try:
            self.network.load_state_dict(_create(**self._recipe, pretrained=True).state_dict())
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"model.pretrained=true: timm's weights {self.published.hf_hub_id or self.published.url} are not on "
                f"this machine and cannot be downloaded. Copy them into {constants.HF_HUB_CACHE} from a machine that "
                f"has them, {cure}"
            ) from error
        return f"Weights: timm's {self.published.architecture}.{self.published.tag}."

    def normalisation(self) -> dict[str, list[float]]:
        """Mean and standard deviation of each channel, of pixels in [0, 1], that the pretrained weights expect."""
        scale = {"mean": list(self.published.mean), "std": list(self.published.std)}
        if (channels := self._recipe["image_shape"][0]) == len(scale["mean"]):
            return scale
        return {name: [sum(numbers) / len(numbers)] * channels for name, numbers in scale.items()}


def _published(network: str) -> Any:
    """Timm's description of a network and its weights.

    Raises:
        ValueError: If timm is not installed, or there is no such network.
    """
    try:
        import timm
    except ImportError:
        raise ValueError("timm is not installed: pip install 'epochal[timm]'") from None
    name, _, weights = str(network).partition(".")
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models())
        raise ValueError(f"network={network} is no network of timm.{near} timm.list_models() lists all.")
    if weights and network not in (known := timm.list_pretrained(f"{name}.*")):
        raise ValueError(f"network={network} are no weights that timm has. There are: {' '.join([name, *known])}")
    return timm.get_pretrained_cfg(network)


def _create(*, network: str, image_shape: tuple[int, int, int], num_classes: int, pretrained: bool = False) -> Any:
    import timm

    channels, *sides = image_shape
    size: dict[str, Any] = {"img_size": tuple(sides)} if _published(network).fixed_input_size else {}
    return timm.create_model(network, pretrained=pretrained, in_chans=channels, num_classes=num_classes, **size)


@cache
def _maps(network: str, image_shape: tuple[int, int, int]) -> list[str] | str:
    """Names of a network's features that are feature maps (B, C, H, W), found by a forward pass on the meta device.

    For a network that cannot read such images: the message of its error.
    """
    found = []
    with torch.device("meta"), torch.no_grad():
        try:
            made = _create(network=network, image_shape=image_shape, num_classes=10).eval()
            for info in getattr(made, "feature_info", []):

                def record(module: nn.Module, inputs: Any, output: Any, info: dict[str, Any] = info) -> None:
                    if isinstance(output, Tensor) and output.dim() == 4 and output.shape[1] == info["num_chs"]:
                        found.append(info["module"])

                made.get_submodule(info["module"]).register_forward_hook(record)
            made(torch.empty(2, *image_shape))
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            return " ".join(str(error).split()) or type(error).__name__
    return found
