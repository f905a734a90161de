"""What an image classifier has learned: filters of its first layer, feature maps, and where its prediction comes from.

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, 2013 (arXiv 1311.2901).
Selvaraju et al.: Grad-CAM, 2017 (arXiv 1610.02391).
Abnar, Zuidema: Quantifying Attention Flow in Transformers, 2020 (arXiv 2005.00928), for attention rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.core.protocols import AttentionRollout, FeatureStages
from epochal.data import DataModule
from epochal.plots.canvas import INK, RED
from epochal.plots.images import enlarge, heat_colors, join_images, text_image, titled_sheet, to_uint8
from epochal.tasks.base import Task

IMAGES = 4  # that are explained if none is named
FILTERS, COLUMNS = 64, 8  # at most so many filters, and how many of them or of a stage's maps stand in a row
CELL, LARGE, IMAGE = 72, 112, 224  # about the pixels of the side of a filter or map, of the largest map, of an image


def check(task: Task, option: str = "explain") -> None:
    """Checks that there is something to explain.

    Args:
        task: Around the model.
        option: The config key that asks for it, for the message.

    Raises:
        ConfigError: If the task does not classify images whole, or nothing of its model can be drawn.
    """
    model = task.model
    if not task.explainable or not (feature_stages(model) or has_rollout(model) or first_layer(model)):
        raise ConfigError(
            f"{option}=true finds nothing to show in this {type(model).__name__}: it draws the filters, feature maps "
            "or attention of a network that classifies images whole, such as cnn, resnet, vit or mlp."
        )


def choose_images(data: DataModule, numbers: Any = None) -> list[int]:
    """Numbers of the test images to explain.

    Args:
        data: Whose test part has the images.
        numbers: None chooses the first image of each of four classes.

    Raises:
        ConfigError: If a number is not one of the test part.
    """
    rows, count = data.rows("test")
    if numbers is not None:
        listed = isinstance(numbers, Sequence) and not isinstance(numbers, str) and len(numbers) > 0
        if not listed or not all(type(n) is int and 0 <= n < count for n in numbers):
            raise ConfigError(
                f"images={numbers} must list images of the test part by number, from 0 to {count - 1}, "
                "e.g. images=0,5,7."
            )
        return list(numbers)
    labels = rows.labels[rows.rows].tolist()  # type: ignore[attr-defined]
    firsts = sorted({label: number for number, label in reversed(list(enumerate(labels)))}.values())[:IMAGES]
    others = [number for number in range(min(count, IMAGES + len(firsts))) if number not in firsts]
    return sorted([*firsts, *others[: IMAGES - len(firsts)]])


def explain(model: Any, data: Any, numbers: Sequence[int]) -> dict[str, Image.Image]:
    """Pictures by file stem: `explain_filters`, `explain_features`, and `explain_grad_cam` or `explain_attention`.

    Those that do not apply to the model are left out.

    Args:
        model: Left unchanged, with its mode, gradients and hooks.
        data: Its test part has the images; they are drawn as the model reads them, so shuffled if `permuted`.
        numbers: Of images of the test part, see `choose_images`.
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
        features, logits = feature_maps(model, stages, inputs)
        confidence, prediction = logits.softmax(1).max(1)
        heat, title = heat_maps(model, stages, features, inputs, prediction)
    model.train(was_training)

    names = data.classes.names
    images = [
        ExplainedImage(
            pixels=image.expand(3, -1, -1).permute(1, 2, 0).numpy(),
            caption=f"image {number}\npredicted {names[predicted]} ({probability:.0%})\ntruth {names[truth]}",
            wrong=predicted != truth,
        )
        for number, image, predicted, probability, truth in zip(
            numbers, pixels, prediction.tolist(), confidence.tolist(), rows.labels[index].tolist()
        )
    ]
    filters = filter_images(model, (data.inputs.channels, data.inputs.height, data.inputs.width))
    pictures = {}
    if filters is not None:
        pictures["explain_filters"] = filter_sheet(filters)
    if features:
        pictures["explain_features"] = feature_sheet(images, features)
    if heat is not None:
        name = "explain_attention" if has_rollout(model) else "explain_grad_cam"
        pictures[name] = heat_sheet(images, heat, title)
    return pictures


# -- what is computed ---------------------------------------------------------------------------------------------


def feature_stages(model: Any) -> dict[str, nn.Module]:
    """The modules whose outputs (N, C, H, W) are feature maps, by name; empty if the model has none."""
    return model.stages() if isinstance(model, FeatureStages) else {}


def has_rollout(model: Any) -> bool:
    """Whether attention, not convolution, carries the image to the prediction."""
    return isinstance(model, AttentionRollout)


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
    """Weights of the first layer as images (filters, C, h, w), largest norm first; None if no layer reads pixels.

    Args:
        model: Of which.
        shape: (C, H, W) of the inputs, which is also that of the weights of a linear layer.
    """
    layer = first_layer(model)
    if layer is None:
        return None
    weight = layer.weight.detach().float().cpu()
    weight = weight.unflatten(1, shape) if isinstance(layer, nn.Linear) else weight
    return weight[weight.flatten(1).norm(dim=1).argsort(descending=True, stable=True)]


@torch.no_grad()
def feature_maps(model: nn.Module, stages: dict[str, nn.Module], inputs: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The output (N, C, h, w) of each stage by name, and the logits (N, classes), on the CPU."""
    features: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, module in stages.items():

            def keep(module: nn.Module, arguments: Any, output: Tensor, name: str = name) -> None:
                features[name] = output.float().cpu().clone()  # a copy: the next module may work in place

            hooks.enter_context(module.register_forward_hook(keep))
        logits = model.forward(inputs)  # a compiled network's __call__ would not run the hooks
    return {name: features[name] for name in stages}, logits.float().cpu()


def grad_cam(model: nn.Module, stage: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    """Where the feature maps A of a stage speak for a class: ReLU(sum over channels k of w_k A_k).

    The weight w_k is the gradient of the class's logit by A_k, averaged over places. Selvaraju et al. 2017, section 3.

    Args:
        model: In evaluation mode, or the images of a batch would influence each other.
        stage: A module of it with outputs (N, C, h, w).
        inputs: Images (N, C, H, W).
        classes: (N,).

    Returns:
        (N, h, w) in [0, 1]; 1 is the largest value of each image.
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        maps.append(output.detach().requires_grad_())  # the gradient need not reach further down
        return maps[-1].clone()  # a copy: the next module may work in place

    with stage.register_forward_hook(keep):
        logits = model.forward(inputs)  # a compiled network's __call__ would not run the hook
    score = logits.gather(1, classes.to(logits.device)[:, None]).sum()  # the logits of one image depend on it alone
    (gradient,) = torch.autograd.grad(score, maps[-1])
    weights = gradient.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
    return divided_by_largest((weights * maps[-1].detach()).sum(1).relu())


def rollout(model: Any, inputs: Tensor) -> Tensor:
    """How much of each patch reaches the prediction, (N, rows, columns), scaled to [0, 1] in each image."""
    flow = model.rollout(inputs)
    return divided_by_largest(flow - flow.amin((1, 2), keepdim=True))


def divided_by_largest(maps: Tensor) -> Tensor:
    """Maps (N, h, w) of values that are not negative, each divided by its largest."""
    maps = maps.float().cpu()
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)


def heat_maps(
    model: Any, stages: dict[str, nn.Module], features: dict[str, Tensor], inputs: Tensor, prediction: Tensor
) -> tuple[Tensor | None, str]:
    """Heat maps (N, h, w) of the predicted classes (N,), and their title; None if the model has neither of the two."""
    if has_rollout(model):
        return rollout(model, inputs), "Attention rollout"
    wide = [name for name, maps in features.items() if maps[0, 0].numel() > 1]  # a single pixel shows no place
    if wide:
        return grad_cam(model, stages[wide[-1]], inputs, prediction), f"Grad-CAM of {wide[-1]}"
    return None, ""


# -- how it is drawn ----------------------------------------------------------------------------------------------


class ExplainedImage(NamedTuple):
    """An image of the sheets."""

    pixels: np.ndarray  # uint8 (H, W, 3)
    caption: str
    wrong: bool  # whether the prediction is

    def draw(self, side: int, heat: Tensor | None = None) -> Image.Image:
        """The image, about side pixels large, above its caption.

        Args:
            side: Pixels of the longer side.
            heat: A map (h, w) in [0, 1]; the image is then drawn again beside itself, in grey below the map.
        """
        image = enlarge(self.pixels, side)
        parts = [image]
        if heat is not None:
            smooth = F.interpolate(heat[None, None], image.size[::-1], mode="bilinear")[0, 0].numpy()
            grey = np.asarray(image.convert("L"), np.float64)[..., None]
            over = 0.4 * grey + 0.6 * heat_colors(smooth)
            parts.append(Image.fromarray(over.round().astype(np.uint8)))
        both = join_images(parts, vertical=False, gap=4)
        caption = text_image(self.caption, max(both.width, IMAGE), color=RED if self.wrong else INK)
        return join_images([both, caption], vertical=True, gap=6)


def filter_sheet(filters: Tensor) -> Image.Image:
    """Filters (N, C, h, w), C 1 or 3, side by side."""
    tiles = []
    for values in (filters[:FILTERS] / filters[:FILTERS].abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)).numpy():
        in_colour = len(values) == 3
        pixels = to_uint8(values.transpose(1, 2, 0), low=-1, high=1) if in_colour else None
        tiles.append(enlarge(heat_colors(values[0], signed=True) if pixels is None else pixels, CELL))
    which = f"{len(filters)}" if len(filters) <= FILTERS else f"The strongest {FILTERS} of {len(filters)}"
    legend = (
        "grey is a weight of zero, a colour what the filter responds to"
        if filters.shape[1] == 3
        else "white is a weight of zero, red responds to bright pixels, blue to dark ones"
    )
    note = f"{which}, {filters.shape[2]}x{filters.shape[3]} pixels, the strongest first. "
    note += f"Each has a scale of its own: {legend}."
    return titled_sheet(tile(tiles, gap=6), "Filters of the first layer", note)


def feature_sheet(images: Sequence[ExplainedImage], features: dict[str, Tensor]) -> Image.Image:
    """Each image beside its feature maps.

    Args:
        images: N.
        features: Maps (N, C, h, w) of each stage; drawn are those of the channels with the largest mean absolute value.
    """
    rows: list[list[Image.Image]] = [[] for _ in images]
    side = min(max(IMAGE // len(features) - 6, CELL), LARGE)  # a few stages are together as high as the image
    height = min(IMAGE, len(features) * (side + 6))  # and the image is as high as they are
    for name, maps in features.items():
        channels = maps.abs().mean((0, 2, 3)).argsort(descending=True, stable=True)[:COLUMNS]
        chosen_maps = maps[:, channels]
        values = (chosen_maps / chosen_maps.abs().amax((0, 2, 3), keepdim=True).clamp_min(1e-12)).numpy()
        label = text_image(f"{name}\n{maps.shape[1]} maps\n{maps.shape[2]}x{maps.shape[3]}", 110)
        for row, of_image in zip(rows, values):
            colors = heat_colors(of_image, signed=bool(values.min() < 0))  # (channels, h, w, 3)
            tiles = [ImageOps.contain(enlarge(pixels, 2 * side), (side, side)) for pixels in colors]
            row.append(join_images([label, *tiles], vertical=False, gap=3, centered=True))
    body = [
        join_images([image.draw(height), join_images(row, vertical=True, gap=6)], vertical=False, gap=20)
        for image, row in zip(images, rows)
    ]
    note = (
        f"Of each stage the {COLUMNS} most active channels, the same for all images. Black is 0, yellow a channel's "
        "largest value; where a stage has values below zero, white is 0, red above and blue below it."
    )
    return titled_sheet(join_images(body, vertical=True, gap=28), "Feature maps", note)


def heat_sheet(images: Sequence[ExplainedImage], heat: Tensor, title: str) -> Image.Image:
    """Each of N images, and beside it the same with its map (N, h, w) laid over it."""
    tiles = [image.draw(IMAGE, of_image) for image, of_image in zip(images, heat)]
    note = (
        "What the predicted class was read from: most where it is yellow, least or nothing where it is dark. "
        f"The map has {heat.shape[1]}x{heat.shape[2]} places."
    )
    return titled_sheet(tile(tiles, columns=2, gap=28), title, note)


def tile(pictures: Sequence[Image.Image], gap: int, columns: int = COLUMNS) -> Image.Image:
    """Pictures in rows of so many columns, gap pixels apart."""
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    return join_images([join_images(row, vertical=False, gap=gap) for row in rows], vertical=True, gap=gap)
