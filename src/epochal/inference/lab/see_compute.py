"""What the room of images computes: probabilities, feature maps, attention, heat maps, and what one unit reacts to."""

from __future__ import annotations

import base64
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.core.specs import Classes
from epochal.data import ImageData, pictures
from epochal.data.image_decoding import to_pixels
from epochal.inference.lab.server import text, whole
from epochal.inference.notebook import LoadedRun
from epochal.models.vit import ViT, attention_rollout
from epochal.tasks.visuals.explain import divided_by_largest, feature_maps, feature_stages, filter_images, heat_maps
from epochal.training.factories import new_data

MOST_PIXELS = 40_000_000  # of a file; its header is asked before it is decoded
MOST_SIDE = 512  # of a drawing
MOST_CHARACTERS = 8_000_000  # of a picture in a request, in base64
MAPS, MOST_MAPS = 24, 512  # of a layer, if nothing is said, and at most
KERNELS = 64  # slices of a kernel, and filters of the first layer, at most
THUMBNAIL, SHELF = 64, 30  # pixels of a side, and how many test pictures are shown at once
CENTRED = 64  # pixels of the side up to which grey data are taken for digits and the like
DIGIT = 20 / 28  # of the picture's side that MNIST's makers gave to a digit's longer side
SMALL = 16  # pixels of the side up to which a digit fills the picture, as in dataset=digits
REACTS = 0.1  # of the largest gradient: what has less is left out of a unit's patch
SCALE = 0.995  # the quantile of a layer's values that is drawn with the strongest colour
UNITS = nn.ReLU | nn.GELU | nn.SiLU | nn.Tanh | nn.Sigmoid

_prepared: weakref.WeakKeyDictionary[LoadedRun, ImageData] = weakref.WeakKeyDictionary()  # with their rows


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
    spec = data.inputs
    if "pixels" in picture:
        return torch.from_numpy(unpacked(picture, "pixels", (spec.channels, spec.height, spec.width)))
    width = whole(picture, "width", 1, MOST_SIDE)
    return drawn(data, unpacked(picture, "drawn", (-1, width)))


def unpacked(data: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Bytes of a request in base64 as uint8 of a shape, of which one side may be -1; raises ConfigError if they are none."""
    try:
        content = base64.b64decode(text(data, key, MOST_CHARACTERS), validate=True)
        return np.frombuffer(content, np.uint8).reshape(shape).copy()
    except ValueError as error:
        raise ConfigError(f"{key} must be the bytes of a picture in base64, of {shape} pixels.") from error


def packed(values: Tensor) -> str:
    """Values in [0, 255] as bytes in base64."""
    return base64.b64encode(values.round().clamp(0, 255).byte().contiguous().numpy().tobytes()).decode()


def opened(loaded: LoadedRun, content: bytes) -> Tensor:
    """An encoded picture as pixels of the size that the network reads, uint8 (C, H, W).

    Raises:
        ConfigError: If it is no picture that can be read, or has too many pixels.
    """
    data = images_of(loaded)
    try:
        image = pictures.open_picture(content)  # reads the header alone
    except pictures.errors() as error:
        raise ConfigError(f"This file is no picture that can be read: it {pictures.fault(error)}.") from error
    if image.width * image.height > MOST_PIXELS:
        raise ConfigError(
            f"This picture has {image.width:,} x {image.height:,} pixels; at most {MOST_PIXELS:,} are read."
        )
    try:
        image.load()
    except pictures.errors() as error:
        raise ConfigError(f"This file is no picture that can be read: it {pictures.fault(error)}.") from error
    return torch.from_numpy(to_pixels(image, data.inputs, data.span, data.background).copy())


def drawn(data: ImageData, ink: np.ndarray) -> Tensor:
    """A drawing as a picture of the data, uint8 (C, H, W).

    Grey pictures of few pixels are made as MNIST's were: the ink is scaled into a box that leaves a margin, keeping its shape,
    and moved so that its centre of mass is the centre of the picture (LeCun et al., The MNIST Database). Where the data are
    dark on bright, so is the picture.

    Args:
        data: Whose `inputs` and mean are known.
        ink: uint8 (h, w), 255 where there is ink.
    """
    spec = data.inputs
    small = spec.channels == 1 and max(spec.height, spec.width) <= CENTRED
    fitted = centred(ink, spec.height, spec.width) if small else resized(ink, spec.height, spec.width)
    if float(data.mean.mean()) > 0.5:
        fitted = 255 - fitted
    return torch.from_numpy(fitted)[None].expand(spec.channels, -1, -1).contiguous()


def resized(ink: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(Image.fromarray(ink).resize((width, height), Image.Resampling.BILINEAR))


def centred(ink: np.ndarray, height: int, width: int) -> np.ndarray:
    """The ink (h, w) in a picture (height, width) by its centre of mass, see `drawn`; black if there is none."""
    picture = np.zeros((height, width), np.uint8)
    rows, columns = (np.flatnonzero((ink > 32).any(axis)) for axis in (1, 0))
    if not len(rows):
        return picture
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    longest = min(height, width) * (1.0 if min(height, width) <= SMALL else DIGIT)
    scale = longest / max(cut.shape)
    small = resized(cut, max(1, round(cut.shape[0] * scale)), max(1, round(cut.shape[1] * scale)))
    mass = small.astype(float) / max(small.sum(), 1)
    centre = [float((mass.sum(1 - axis) * (np.arange(small.shape[axis]) + 0.5)).sum()) for axis in (0, 1)]
    top, left = (
        min(max(round(side / 2 - middle), 0), side - part)  # the box stays inside
        for side, middle, part in zip(picture.shape, centre, small.shape)
    )
    picture[top : top + small.shape[0], left : left + small.shape[1]] = small
    return picture


def with_rows(loaded: LoadedRun) -> ImageData:
    """The run's data with their rows, read as in an evaluation.

    Raises:
        ConfigError: If they are no longer there.
    """
    if loaded not in _prepared:
        data = new_data(loaded.config, loaded.data_state)
        data.prepare()
        assert isinstance(data, ImageData)
        _prepared[loaded] = data
    return _prepared[loaded]


def shelf(loaded: LoadedRun, start: int) -> dict[str, Any]:
    """Small versions of the test pictures from a number on: their bytes (N, C, h, w) and classes."""
    classes_of(loaded)
    rows, count = with_rows(loaded).rows("test")
    numbers = range(min(start, count), min(start + SHELF, count))
    index = rows.rows[list(numbers)]
    images = rows.images[index].float()
    if max(images.shape[2:]) > THUMBNAIL:
        images = F.interpolate(images, size=(THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)
    return {
        "count": count,
        "numbers": list(numbers),
        "labels": [int(label) for label in rows.labels[index]],
        "shape": list(images.shape[1:]),
        "pixels": packed(images),
    }


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
    found["bright"] = float(loaded.data.mean.mean()) > 0.5
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
