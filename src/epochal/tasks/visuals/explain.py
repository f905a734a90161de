"""Looks into a network that classifies images: its first filters, its feature maps, and where its answer comes from.

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, 2013 (arXiv 1311.2901).
Selvaraju et al.: Grad-CAM, 2017 (arXiv 1610.02391), as captum computes it.
Abnar, Zuidema: Quantifying Attention Flow in Transformers, 2020 (arXiv 2005.00928), for attention rollout.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.data import DataModule
from epochal.plots.canvas import INK, RED
from epochal.plots.images import enlarge, heat_colors, join_images, text_image, titled_sheet, to_uint8
from epochal.tasks import Classification

SHOWN = 4  # images that are explained if none is named
FILTERS, IN_A_ROW = 64, 8  # at most so many filters, and how many of them or of a stage's maps in a row
CELL, LARGE, IMAGE = 72, 112, 224  # pixels, about, of the side of a filter or map, the largest map, an image


def check(task: Any, option: str = "explain") -> None:
    """Raises ConfigError if there is nothing to show of a task's network, or the package that it takes is missing."""
    model = task.model
    stages = feature_stages(model)
    if not isinstance(task, Classification) or not (stages or attends(model) or first_layer(model)):
        raise ConfigError(
            f"{option}=true finds nothing to show in this {type(model).__name__}: it draws the filters, feature maps or "
            "attention of a network that classifies images whole, such as cnn, resnet, vit or mlp."
        )
    if stages and not attends(model) and importlib.util.find_spec("captum") is None:
        raise ConfigError(f"{option}=true needs the package captum: pip install -e '.[explain]'.")


def chosen(data: DataModule, numbers: Any = None) -> list[int]:
    """Which images of the test part to explain; by default the first of each of four classes.

    Raises:
        ConfigError: If a number is none of that part.
    """
    rows, count = data.rows("test")
    if numbers is not None:
        listed = isinstance(numbers, Sequence) and not isinstance(numbers, str) and len(numbers) > 0
        if not listed or not all(type(n) is int and 0 <= n < count for n in numbers):
            raise ConfigError(
                f"images={numbers} must list images of the test part by number, from 0 to {count - 1}, e.g. images=[0,5,7]."
            )
        return list(numbers)
    labels = rows.labels[rows.rows].tolist()  # type: ignore[attr-defined]
    firsts = sorted({label: number for number, label in reversed(list(enumerate(labels)))}.values())[:SHOWN]
    others = [number for number in range(min(count, SHOWN + len(firsts))) if number not in firsts]
    return sorted([*firsts, *others[: SHOWN - len(firsts)]])


def explain(model: Any, data: Any, numbers: Sequence[int]) -> dict[str, Image.Image]:
    """Pictures by file stem: `explain_filters`, `explain_features`, and `explain_grad_cam` or `explain_attention`.

    What does not apply to the network is left out.

    Args:
        model: It is left as it was found: no mode, gradient or hook changes.
        data: Its test part has the images; they are drawn as the network reads them, so shuffled if `permuted`.
        numbers: Of images of the test part, see `chosen`.
    """
    rows, _ = data.rows("test")
    index = rows.rows[list(numbers)]
    weight = next(model.parameters())
    was_training = model.training
    model.eval()
    with torch.inference_mode(False), torch.enable_grad():  # a test without gradients may be going on
        inputs = data.normalise(rows.images[index].to(weight.device))
        pixels = data.pixels(inputs)
        inputs = inputs.to(weight.dtype)
        stages = feature_stages(model)
        features, logits = look(model, stages, inputs)
        confidence, prediction = logits.softmax(1).max(1)
        wide = [name for name, maps in features.items() if maps[0, 0].numel() > 1]  # one pixel has no places to tell
        heat = None
        if attends(model):
            title, heat = "Attention rollout", rollout(model, inputs)
        elif wide:
            title, heat = f"Grad-CAM of {wide[-1]}", grad_cam(model, stages[wide[-1]], inputs, prediction)
    model.train(was_training)

    names = data.classes.names
    images = [
        Explained(
            number=number,
            pixels=artifacts.expand(3, -1, -1).permute(1, 2, 0).numpy(),
            caption=f"image {number}\npredicted {names[guess]} ({share:.0%})\ntruth {names[truth]}",
            wrong=guess != truth,
        )
        for number, artifacts, guess, share, truth in zip(
            numbers, pixels, prediction.tolist(), confidence.tolist(), rows.labels[index].tolist()
        )
    ]
    filters = filter_images(model, (data.inputs.channels, data.inputs.height, data.inputs.width))
    drawn = {}
    if filters is not None:
        drawn["explain_filters"] = filter_sheet(filters)
    if features:
        drawn["explain_features"] = feature_sheet(images, features)
    if heat is not None:
        drawn["explain_attention" if attends(model) else "explain_grad_cam"] = heat_sheet(images, heat, title)
    return drawn


# -- what is looked at --------------------------------------------------------------------------------------------


def feature_stages(model: Any) -> dict[str, nn.Module]:
    """The modules whose outputs (N, C, H, W) are feature maps, by name; none of a network that has none."""
    return model.stages() if hasattr(model, "stages") else {}


def attends(model: Any) -> bool:
    """Whether attention, not convolution, carries what is seen to the answer."""
    return hasattr(model, "rollout")


def first_layer(model: nn.Module) -> nn.Conv2d | nn.Linear | None:
    """The layer that reads pixels: the first convolution, or else the linear layer that follows a Flatten."""
    before = None
    for module in model.modules():
        if isinstance(module, nn.Conv2d) or (isinstance(module, nn.Linear) and isinstance(before, nn.Flatten)):
            return module
        if isinstance(module, nn.Linear):
            return None
        before = module
    return None


def filter_images(model: nn.Module, shape: tuple[int, int, int]) -> Tensor | None:
    """Weights of the first layer as images (filters, C, h, w), the strongest first; a linear layer's are of `shape`."""
    layer = first_layer(model)
    if layer is None:
        return None
    weight = layer.weight.detach().float().cpu()
    weight = weight.unflatten(1, shape) if isinstance(layer, nn.Linear) else weight
    return weight[weight.flatten(1).norm(dim=1).argsort(descending=True, stable=True)]


@torch.no_grad()
def look(model: nn.Module, stages: dict[str, nn.Module], inputs: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What each stage gives (N, C, h, w), and the logits (N, classes)."""
    features: dict[str, Tensor] = {}
    hooks = []
    for name, module in stages.items():

        def keep(module: nn.Module, arguments: Any, output: Tensor, name: str = name) -> None:
            features[name] = output.float().cpu().clone()  # a copy: the next module may work in place

        hooks.append(module.register_forward_hook(keep))
    logits = model.forward(inputs)  # a compiled network would run past the hooks
    for hook in hooks:
        hook.remove()
    return {name: features[name] for name in stages}, logits.float().cpu()


def grad_cam(model: nn.Module, stage: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    """Where the stage has what speaks for the classes (N), (N, h, w): 0 is nothing, 1 the most in an image."""
    from captum.attr import LayerGradCam

    lit = LayerGradCam(model.forward, stage).attribute(inputs, classes.to(inputs.device), relu_attributions=True)
    return brightest_is_one(lit.detach()[:, 0])


def rollout(model: Any, inputs: Tensor) -> Tensor:
    """How much of each patch reaches the answer, (N, rows, columns): 0 is the least, 1 the most in an image."""
    flow = model.rollout(inputs)
    return brightest_is_one(flow - flow.amin((1, 2), keepdim=True))


def brightest_is_one(maps: Tensor) -> Tensor:
    """Maps (N, h, w) of values above zero, each divided by its largest."""
    maps = maps.float().cpu()
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)


# -- how it is drawn ----------------------------------------------------------------------------------------------


class Explained(NamedTuple):
    """An image of the sheets."""

    number: int  # in the test part
    pixels: np.ndarray  # uint8 (H, W, 3)
    caption: str
    wrong: bool  # whether the network is

    def drawn(self, side: int, heat: Tensor | None = None) -> Image.Image:
        """About side pixels large, above its caption; with a map (h, w) also beside itself, with the map laid over it."""
        plain = enlarge(self.pixels, side)
        parts = [plain]
        if heat is not None:
            smooth = F.interpolate(heat[None, None], plain.size[::-1], mode="bilinear")[0, 0].numpy()
            grey = np.asarray(plain.convert("L"), np.float64)[..., None]
            over = 0.4 * grey + 0.6 * heat_colors(smooth)
            parts.append(Image.fromarray(over.round().astype(np.uint8)))
        both = join_images(parts, upright=False, gap=4)
        color = RED if self.wrong else INK
        caption = text_image(self.caption, max(both.width, IMAGE), color=color)
        return join_images([both, caption], upright=True, gap=6)


def filter_sheet(filters: Tensor) -> Image.Image:
    """Filters (N, C, h, w), C 1 or 3, side by side."""
    tiles = []
    for values in (filters[:FILTERS] / filters[:FILTERS].abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)).numpy():
        colour = len(values) == 3
        pixels = to_uint8(values.transpose(1, 2, 0), low=-1, high=1) if colour else None
        tiles.append(enlarge(heat_colors(values[0], signed=True) if pixels is None else pixels, CELL))
    artifacts = f"{len(filters)}" if len(filters) <= FILTERS else f"the strongest {FILTERS} of {len(filters)}"
    reading = (
        "grey is a weight of zero, a colour what the filter looks for"
        if filters.shape[1] == 3
        else "white is a weight of zero, red wants bright pixels, blue dark ones"
    )
    note = f"{artifacts[0].upper()}{artifacts[1:]}, {filters.shape[2]}x{filters.shape[3]} pixels, the strongest first. "
    note += f"Each has a scale of its own: {reading}."
    return titled_sheet(mosaic(tiles, gap=6), "Filters of the first layer", note)


def feature_sheet(images: Sequence[Explained], features: dict[str, Tensor]) -> Image.Image:
    """Each image beside, for each stage, the maps (N, C, h, w) of the channels that are most active in all of them."""
    rows: list[list[Image.Image]] = [[] for _ in images]
    side = min(max(IMAGE // len(features) - 6, CELL), LARGE)  # few stages are as high as the image
    high = min(IMAGE, len(features) * (side + 6))  # and it as they
    for name, maps in features.items():
        channels = maps.abs().mean((0, 2, 3)).argsort(descending=True, stable=True)[:IN_A_ROW]
        chosen_maps = maps[:, channels]
        values = (chosen_maps / chosen_maps.abs().amax((0, 2, 3), keepdim=True).clamp_min(1e-12)).numpy()
        label = text_image(f"{name}\n{maps.shape[1]} maps\n{maps.shape[2]}x{maps.shape[3]}", 110)
        for row, own in zip(rows, values):
            colors = heat_colors(own, signed=bool(values.min() < 0))  # (channels, h, w, 3)
            tiles = [ImageOps.contain(enlarge(tile, 2 * side), (side, side)) for tile in colors]
            row.append(join_images([label, *tiles], upright=False, gap=3, middle=True))
    body = [
        join_images([image.drawn(high), join_images(row, upright=True, gap=6)], upright=False, gap=20)
        for image, row in zip(images, rows)
    ]
    note = (
        f"Of each stage the {IN_A_ROW} most active channels, the same for all images. Black is 0, yellow a channel's "
        "largest value; where a stage has values below zero, white is 0, red above and blue below it."
    )
    return titled_sheet(join_images(body, upright=True, gap=28), "Feature maps", note)


def heat_sheet(images: Sequence[Explained], heat: Tensor, title: str) -> Image.Image:
    """Each image, and beside it the same with a map (N, h, w) laid over it."""
    tiles = [image.drawn(IMAGE, own) for image, own in zip(images, heat)]
    note = (
        "What the predicted class was read from: most where it is yellow, least or nothing where it is dark. "
        f"The map has {heat.shape[1]}x{heat.shape[2]} places."
    )
    return titled_sheet(mosaic(tiles, columns=2, gap=28), title, note)


def mosaic(tiles: Sequence[Image.Image], gap: int, columns: int = IN_A_ROW) -> Image.Image:
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    return join_images([join_images(row, upright=False, gap=gap) for row in rows], upright=True, gap=gap)
