"""The room of generators: sliders through latent space, a walk between two samples, and the samples by step as a film.

The sliders turn the noise in the directions that change the picture most: the right singular vectors of the generator's
Jacobian at the sample (Ramesh, Choi, LeCun: A Spectral Regularizer for Unsupervised Disentanglement, 2018, arXiv 1812.01161).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import torch
from aiohttp import web
from PIL import Image
from torch import Tensor

from epochal.core.errors import ConfigError
from epochal.core.protocols import AdversarialNetwork
from epochal.inference.lab.server import LAB, answer, body, number, whole
from epochal.inference.notebook import LoadedRun

SLIDERS = 8
FARTHEST = 6.0  # of a slider, in standard deviations of the noise
STEPS = 9  # of a walk, both ends included
CLOSE = 0.05  # length of the step by which the Jacobian is measured
MOST_SEED = 2**31
SIDE = 224  # pixels of the longer side of a picture


def routes() -> list[web.RouteDef]:
    return [
        web.post("/api/generate/{run}/sample", sample),
        web.post("/api/generate/{run}/walk", walk),
        web.get("/api/generate/{run}/film", film),
        web.get("/api/generate/{run}/film/{frame:[0-9]{1,6}}", frame),
    ]


async def sample(request: web.Request) -> web.Response:
    """A picture of the noise of a seed, moved by sliders."""
    data = await body(request)
    moved = sliders_of(data)
    seed, label = whole(data, "seed", 0, MOST_SEED, 1), data.get("label")
    return answer(await request.app[LAB].networks.use(request.match_info["run"], sampled, seed, label, moved))


async def walk(request: web.Request) -> web.Response:
    """Pictures on the way from the noise of one seed to that of another."""
    data = await body(request)
    seeds = whole(data, "seed", 0, MOST_SEED, 1), whole(data, "to", 0, MOST_SEED, 2)
    return answer(await request.app[LAB].networks.use(request.match_info["run"], walked, *seeds, data.get("label")))


async def film(request: web.Request) -> web.Response:
    """The steps at which the run drew its samples."""
    record = request.app[LAB].runs.record(request.match_info["run"])
    return answer({"steps": [picture.step for picture in record.pictures() if is_frame(picture)]})


async def frame(request: web.Request) -> web.Response:
    """One of them, by its number in that list."""
    record = request.app[LAB].runs.record(request.match_info["run"])
    frames = [picture.path for picture in record.pictures() if is_frame(picture)]
    wanted = int(request.match_info["frame"])
    if wanted >= len(frames) or not frames[wanted].is_file():
        raise web.HTTPNotFound
    return web.Response(body=frames[wanted].read_bytes(), content_type="image/png")


def is_frame(picture: Any) -> bool:
    return picture.name == "samples" and picture.step is not None and picture.path.suffix == ".png"


def sliders_of(data: Mapping[str, Any]) -> list[float]:
    """The places of the sliders of a request.

    Raises:
        ConfigError: If they are none.
    """
    given = data.get("sliders", [])
    if not isinstance(given, list) or len(given) > SLIDERS:
        raise ConfigError(f"sliders must be a list of at most {SLIDERS} numbers.")
    return [number({"a slider": value}, "a slider", -FARTHEST, FARTHEST) for value in given]


# -- what is computed -------------------------------------------------------------------------------------------------


def generator_of(loaded: LoadedRun, label: Any) -> tuple[Any, tuple[Tensor, ...], list[str]]:
    """The generator, the label that it draws as its further argument where it has classes, and their names.

    Raises:
        ConfigError: If the run is no GAN, or there is no such class.
    """
    model = loaded.model
    if not isinstance(model, AdversarialNetwork):
        raise ConfigError(f"The network of {loaded.folder.name} generates no pictures.")
    count = getattr(model, "num_classes", None)
    if count is None:
        return model, (), []
    label = 0 if label is None else label
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < count:
        raise ConfigError(f"label must be a whole number from 0 to {count - 1}.")
    classes = getattr(loaded.data, "classes", None)
    names = list(classes.names) if classes is not None else [str(index) for index in range(count)]
    return model, (torch.tensor([label]),), names


def noise_of(model: Any, seed: int) -> Tensor:  # -> (1, N)
    return model.sample_noise(1, torch.Generator().manual_seed(seed))


@torch.no_grad()
def sampled(loaded: LoadedRun, seed: int, label: Any, moved: list[float]) -> dict[str, Any]:
    """The picture, and how far the discriminator takes it for real."""
    model, labels, names = generator_of(loaded, label)
    noise = noise_of(model, seed)
    if any(moved):
        noise = noise + torch.tensor(moved, dtype=noise.dtype) @ directions(model, noise, labels)[: len(moved)]
    image = model.generator(noise, *labels)
    score = model.discriminator(image, *labels).sigmoid().item()
    return {"image": picture(image[0]), "score": score, "classes": names, "sliders": min(SLIDERS, noise.shape[1])}


def directions(model: Any, noise: Tensor, labels: tuple[Tensor, ...]) -> Tensor:  # (1, N) -> (SLIDERS, N)
    """Unit vectors of the noise, the one that changes the picture most first; the largest part of each is positive."""
    count = noise.shape[1]
    steps = torch.cat((noise, noise + CLOSE * torch.eye(count)))
    images = model.generator(steps, *(label.expand(count + 1) for label in labels)).flatten(1)
    _, _, found = torch.linalg.svd((images[1:] - images[:1]).T / CLOSE, full_matrices=False)  # (pixels, N)
    found = found[:SLIDERS]
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    return found * largest.sign()


@torch.no_grad()
def walked(loaded: LoadedRun, seed: int, to: int, label: Any) -> dict[str, Any]:
    """Pictures on the great circle between the noise of two seeds, whose points are as probable as its ends."""
    model, labels, _ = generator_of(loaded, label)
    first, last = noise_of(model, seed), noise_of(model, to)
    angle = torch.arccos((torch.cosine_similarity(first, last)).clamp(-1, 1))
    parts = torch.linspace(0, 1, STEPS)[:, None]
    path = (
        first.lerp(last, parts)
        if angle < 1e-3
        else (torch.sin((1 - parts) * angle) * first + torch.sin(parts * angle) * last) / torch.sin(angle)
    )
    images = model.generator(path, *(label.expand(STEPS) for label in labels))
    return {"images": [picture(image) for image in images]}


def picture(image: Tensor) -> str:
    """An image (C, H, W) in [-1, 1] as the address of a PNG, its pixels enlarged without smoothing."""
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    drawn = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    factor = max(1, SIDE // max(drawn.size))
    drawn = drawn.resize((drawn.width * factor, drawn.height * factor), Image.Resampling.NEAREST)
    file = io.BytesIO()
    drawn.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
