"""The room of networks that classify images: draw, choose or drop a picture, and see what each layer makes of it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from epochal.inference.lab import see_compute as compute
from epochal.inference.lab.networks import checkpoint_stamp
from epochal.inference.lab.picture import MOST_NUMBER, opened, packed, picture_of
from epochal.inference.lab.server import LAB, answer, body, whole


def routes() -> list[web.RouteDef]:
    return [
        web.post("/api/see/{run}/about", about),
        web.post("/api/see/{run}/shelf", shelf),
        web.post("/api/see/{run}/file", file),
        web.post("/api/see/{run}/look", look),
        web.post("/api/see/{run}/unit", unit),
        web.get("/api/see/{run}/stamp", stamp),
    ]


async def about(request: web.Request) -> web.Response:
    """Classes, sizes and first filters of a run's network."""
    return await used(request, compute.about)


async def shelf(request: web.Request) -> web.Response:
    """Small versions of the run's test pictures, from the number `start` on."""
    return await used(request, compute.shelf, whole(await body(request), "start", 0, MOST_NUMBER, 0))


async def file(request: web.Request) -> web.Response:
    """The bytes of a picture's file as the pixels that the network reads."""
    content = await request.read()
    return await used(request, file_pixels, content)


def file_pixels(loaded: Any, content: bytes) -> dict[str, Any]:
    data = compute.images_of(loaded)
    return {"pixels": packed(opened(data, data.inputs, content))}


async def look(request: web.Request) -> web.Response:
    """What the network says of a picture: see `see_compute.looked`."""
    data = await body(request)
    return await used(request, compute.looked, picture_of(data), data)


async def unit(request: web.Request) -> web.Response:
    """What one unit reacts to in a picture: see `see_compute.examined`."""
    data = await body(request)
    return await used(request, compute.examined, picture_of(data), compute.unit_of(data))


async def stamp(request: web.Request) -> web.Response:
    """Changes whenever the run has written better weights; a text, as its nanoseconds are more than JavaScript's numbers hold."""
    lab = request.app[LAB]
    record = lab.runs.record(request.match_info["run"])
    return answer({"stamp": str(checkpoint_stamp(record.folder)), "status": record.shown_status})


async def used(request: web.Request, function: Any, *arguments: Any) -> web.Response:
    return answer(await request.app[LAB].networks.use(request.match_info["run"], function, *arguments))
