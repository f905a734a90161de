"""What the room of images computes: probabilities, feature maps, attention, heat maps, and what one unit reacts to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.core.specs import Classes
from epochal.data import ImageData
from epochal.inference.lab.picture import SHELF, is_bright, packed, sent, thumbnails, with_rows
from epochal.inference.lab.server import text, whole
from epochal.inference.notebook import LoadedRun
from epochal.models.vit import ViT, attention_rollout
from epochal.tasks.visuals.explain import divided_by_largest, feature_maps, feature_stages, filter_images, heat_maps

MAPS, MOST_MAPS = 24, 512  # of a layer, if nothing is said, and at most
KERNELS = 64  # slices of a kernel, and filters of the first layer, at most
REACTS = 0.1  # of the largest gradient: what has less is left out of a unit's patch
SCALE = 0.995  # the quantile of a layer's values that is drawn with the strongest colour
UNITS = nn.ReLU | nn.GELU | nn.SiLU | nn.Tanh | nn.Sigmoid


class Unit(NamedTuple):
    """A unit of a layer, as a request names it.

    Attributes:
        layer: Its name, of `layers`.
        channel: From 0.
        place: Row and column in the map; None is where the map is largest.
    """

    layer: str
    channel: int
    place: tuple[int, int] | None


# -- pictures ---------------------------------------------------------------------------------------------------------


def classes_of(loaded: LoadedRun) -> tuple[str, ...]:
    """The names of the classes.

    Raises:
        ConfigError: If the run does not classify images.
    """
    outputs = loaded.specs[1]
    if not isinstance(outputs, Classes) or not isinstance(loaded.data, ImageData):
        raise ConfigError(f"The network of {loaded.folder.name} does not tell classes of images apart.")
    return outputs.names


def images_of(loaded: LoadedRun) -> ImageData:
    """The run's data; raises ConfigError as `classes_of`."""
    classes_of(loaded)
    assert isinstance(loaded.data, ImageData)
    return loaded.data


def pixels_of(loaded: LoadedRun, picture: Mapping[str, Any]) -> Tensor:
    """The picture of a request as pixels of the size that the network reads, uint8 (C, H, W).

    Args:
        loaded: The run.
        picture: {"test": number of a picture of the test part}, or in base64 {"drawn": grey pixels, row by row, white ink on
            black, "width": of a row}, or {"pixels": (C, H, W) from an earlier answer}.

    Raises:
        ConfigError: If it is none of them.
    """
    if "test" in picture:
        rows, count = with_rows(loaded).rows("test")
        chosen = whole(picture, "test", 0, count - 1)
        return rows.images[rows.rows[chosen]]
    data = images_of(loaded)
    return sent(picture, data.inputs, centre=True, bright=is_bright(data))


def shelf(loaded: LoadedRun, start: int) -> dict[str, Any]:
    """Small versions of the test pictures from a number on: their bytes (N, C, h, w) and classes."""
    classes_of(loaded)
    rows, count = with_rows(loaded).rows("test")
    numbers = range(min(start, count), min(start + SHELF, count))
    index = rows.rows[list(numbers)]
    labels = [int(label) for label in rows.labels[index]]
    return {"count": count, "numbers": list(numbers), "labels": labels, **thumbnails(rows.images[index])}


# -- the network ------------------------------------------------------------------------------------------------------


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules whose outputs are shown, by name: feature stages, a ViT's blocks, or else the units after each activation."""
    found = feature_stages(model)
    if isinstance(model, ViT):
        return found | {f"block {i}": block for i, block in enumerate(model.blocks, 1)}
    return found or {
        f"layer {i}": module for i, module in enumerate((m for m in model.modules() if isinstance(m, UNITS)), 1)
    }


def as_maps(model: nn.Module, output: Tensor) -> Tensor:  # (1, ...) -> (C, h, w)
    """A layer's output as maps: tokens by their patches, without a class token; units as maps of one place."""
    if output.dim() == 4:
        return output[0]
    if output.dim() == 3 and isinstance(model, ViT):
        return output[0, int(model.has_class_token) :].T.unflatten(1, model.grid)
    return output.reshape(-1, 1, 1)


def read_by(loaded: LoadedRun, pixels: Tensor) -> Tensor:  # uint8 (C, H, W) -> (1, C, H, W)
    """The inputs of the network."""
    return loaded.data.normalise(pixels[None]).to(next(loaded.model.parameters()).dtype)


def about(loaded: LoadedRun) -> dict[str, Any]:
    """What does not depend on the picture: classes, sizes, and the filters of the first layer, the strongest first."""
    names, spec = classes_of(loaded), loaded.data.inputs
    filters = filter_images(loaded.model, (spec.channels, spec.height, spec.width))
    found: dict[str, Any] = {"classes": list(names), "shape": [spec.channels, spec.height, spec.width]}
    found["bright"] = is_bright(images_of(loaded))
    if filters is not None:
        shown = filters[:KERNELS] / filters[:KERNELS].abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
        found["filters"] = {"count": len(filters), "shape": list(shown.shape), "values": packed(127.5 * (shown + 1))}
    return found


def looked(loaded: LoadedRun, picture: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What the network says of a picture, and what its layers make of it.

    Args:
        loaded: The run.
        picture: See `pixels_of`.
        wanted: "layers": false for the probabilities alone; "maps": of a layer at most; "heat": the class whose heat map is
            made, null for the most probable.

    Raises:
        ConfigError: If the picture or what is wanted is none.
    """
    names, most = classes_of(loaded), whole(wanted, "maps", 1, MOST_MAPS, MAPS)
    pixels = pixels_of(loaded, picture)
    model, inputs = loaded.model, read_by(loaded, pixels)
    chosen = layers(model) if wanted.get("layers", True) else {}
    outputs, logits = feature_maps(model, chosen, inputs)
    best = int(logits.argmax())
    found: dict[str, Any] = {
        "probabilities": logits.softmax(1)[0].tolist(),
        "best": best,
        "step": loaded.step,
        "pixels": packed(pixels),
        "seen": packed(loaded.data.pixels(inputs)[0]),  # shuffled where the data are `permuted`
    }
    if "test" in picture:
        rows, _ = with_rows(loaded).rows("test")
        found["truth"] = int(rows.labels[rows.rows[picture["test"]]])
    if chosen:
        given = best if wanted.get("heat") is None else wanted["heat"]
        of_class = whole({"heat": given}, "heat", 0, len(names) - 1)
        found["layers"] = [drawn_maps(name, as_maps(model, output), most) for name, output in outputs.items()]
        found |= looks(model, outputs, inputs, of_class)
    return found


def drawn_maps(name: str, maps: Tensor, most: int) -> dict[str, Any]:
    """Maps (C, h, w) as bytes on one scale; of more than `most` the strongest, in their order."""
    strongest = maps.abs().mean((1, 2)).topk(min(most, len(maps))).indices.sort().values
    shown = maps[strongest]
    signed = bool(maps.min() < 0)
    scale = float(shown.abs().flatten().quantile(SCALE)) if shown.numel() < 2**24 else float(shown.abs().amax())
    scale = scale or float(shown.abs().amax()) or 1.0
    values = 127.5 * (shown / scale + 1) if signed else 255 * shown / scale
    return {
        "name": name,
        "shape": list(maps.shape),
        "shown": strongest.tolist(),
        "largest": [round(value, 4) for value in shown.amax((1, 2)).tolist()],
        "signed": signed,
        "values": packed(values),
    }


def looks(model: nn.Module, outputs: Mapping[str, Tensor], inputs: Tensor, of_class: int) -> dict[str, Any]:
    """Where the network looks: `heat`, by Grad-CAM of a class or attention rollout, None where it has neither; and in `attention`
    where each head of each block of a ViT looks, from the class token or on average over all patches.
    """
    if isinstance(model, ViT):
        weights = model.attention_maps(inputs)  # of each block (1, heads, T, T)
        flow = attention_rollout(weights, model.grid)
        heat = divided_by_largest(flow - flow.amin((1, 2), keepdim=True))
        read = [each[0, :, 0, 1:] if model.has_class_token else each[0].mean(1) for each in weights]
        maps = [divided_by_largest(each.unflatten(1, model.grid)) for each in read]
        blocks = [
            {"name": f"block {i}", "shape": list(each.shape), "values": packed(255 * each)}
            for i, each in enumerate(maps, 1)
        ]
        return {"heat": told_heat(heat, "Attention rollout", None), "attention": blocks}
    stages = feature_stages(model)
    features = {name: outputs[name] for name in stages}
    found, title = heat_maps(model, stages, features, inputs, torch.tensor([of_class]))
    return {"heat": None if found is None else told_heat(found, title, of_class), "attention": []}


def told_heat(heat: Tensor, title: str, of_class: int | None) -> dict[str, Any]:  # (1, h, w) in [0, 1]
    return {"title": title, "class": of_class, "shape": list(heat.shape[1:]), "values": packed(255 * heat[0])}


# -- one unit ---------------------------------------------------------------------------------------------------------


def unit_of(data: Mapping[str, Any]) -> Unit:
    """The unit that a request names; raises ConfigError if it names none."""
    place = data.get("place")
    if place is not None:
        if not isinstance(place, list) or len(place) != 2:
            raise ConfigError("place must be a row and a column.")
        place = tuple(whole({"place": side}, "place", 0, 100_000) for side in place)
    return Unit(text(data, "layer", 200), whole(data, "channel", 0, 1_000_000), place)


def examined(loaded: LoadedRun, picture: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
    """What a unit reacts to in a picture, and the weights behind it.

    The gradient of the unit by the pixels is zero where it does not look: the rectangle of the others is its receptive field,
    as far as this picture reaches it through each ReLU and maximum. The smaller `patch` leaves out those with less than a
    tenth of the largest gradient (the effective receptive field: Luo et al. 2016, arXiv 1701.04128).

    Raises:
        ConfigError: If there is no such unit.
    """
    classes_of(loaded)
    model, module = loaded.model, layers(loaded.model).get(unit.layer)
    if module is None:
        raise ConfigError(f"The network has no layer of the name {unit.layer!r}.")
    inputs = read_by(loaded, pixels_of(loaded, picture)).requires_grad_()
    output, behind = traced(model, module, inputs)
    maps = as_maps(model, output)
    if unit.channel >= len(maps):
        raise ConfigError(f"The layer {unit.layer} has maps from 0 to {len(maps) - 1}.")
    chosen = maps[unit.channel]
    row, column = unit.place or divmod(int(chosen.argmax()), chosen.shape[1])
    if row >= chosen.shape[0] or column >= chosen.shape[1]:
        raise ConfigError(f"A map of {unit.layer} has {chosen.shape[0]} x {chosen.shape[1]} places.")
    (gradient,) = torch.autograd.grad(chosen[row, column], inputs)
    strength = gradient[0].abs().amax(0)  # (H, W)
    signed = gradient[0].gather(0, gradient[0].abs().argmax(0, keepdim=True))[0]
    return {
        "layer": unit.layer,
        "channel": unit.channel,
        "place": [row, column],
        "value": chosen[row, column].item(),
        "map": drawn_maps(unit.layer, chosen[None].detach(), 1),
        "field": rectangle(strength, 1e-6),
        "patch": rectangle(strength, REACTS),
        "gradient": packed(127.5 * (signed / strength.max().clamp_min(1e-12) + 1)),
        "kernel": kernel_of(loaded, behind, unit.channel, len(maps)),
    }


def traced(model: nn.Module, module: nn.Module, inputs: Tensor) -> tuple[Tensor, list[tuple[str, nn.Module]]]:
    """The output of a module with its gradients, and the layers with weights that ran before it, by name."""
    ran: list[tuple[str, nn.Module]] = []
    kept: list[tuple[Tensor, int]] = []
    with torch.enable_grad(), ExitStack() as hooks:
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):

                def note(layer: nn.Module, arguments: Any, output: Tensor, name: str = name) -> None:
                    ran.append((name, layer))

                hooks.enter_context(layer.register_forward_hook(note))

        def keep(module: nn.Module, arguments: Any, output: Tensor) -> None:
            kept.append((output.clone(), len(ran)))  # a copy: the next module may work in place

        hooks.enter_context(module.register_forward_hook(keep))
        model.forward(inputs)  # a compiled network's __call__ would not run the hooks
    output, count = kept[-1]
    return output, ran[:count]


def rectangle(strength: Tensor, least: float) -> list[int] | None:
    """Top, left, height and width of where a map (H, W) reaches a part of its largest value; None if it is zero."""
    largest = strength.max()
    if not largest > 0:
        return None
    reached = strength >= least * largest
    rows, columns = reached.any(1).nonzero().flatten(), reached.any(0).nonzero().flatten()
    return [int(rows[0]), int(columns[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1]


def kernel_of(
    loaded: LoadedRun, behind: list[tuple[str, nn.Module]], channel: int, channels: int
) -> dict[str, Any] | None:
    """The weights that make a map of what the last layer of as many outputs reads; None if there is no such layer."""
    fitting = [(name, layer) for name, layer in behind if layer.weight.shape[0] == channels]  # type: ignore[index]
    if not fitting:
        return None
    name, layer = fitting[-1]
    weight = layer.weight[channel].detach().float()  # type: ignore[index]  # (inputs, h, w) or (inputs,)
    spec = loaded.data.inputs
    if weight.dim() == 1:  # of a linear layer: a picture if it reads the pixels
        first = name == behind[0][0] and len(weight) == spec.channels * spec.height * spec.width
        weight = weight.view((spec.channels, spec.height, spec.width) if first else (-1, 1, 1))
    strongest = weight.flatten(1).norm(dim=1).topk(min(KERNELS, len(weight))).indices.sort().values
    shown = weight[strongest] / weight.abs().amax().clamp_min(1e-12)
    return {
        "name": name,
        "shape": list(weight.shape),
        "shown": strongest.tolist(),
        "values": packed(127.5 * (shown + 1)),
    }
