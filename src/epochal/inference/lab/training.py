"""The room where runs are started and watched: the list, learning curves, start, stop, resume, and the comparison."""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

from aiohttp import web

from epochal.compare.comparison import Comparison
from epochal.compare.report.live import LiveData
from epochal.compare.report.live import routes as report_routes
from epochal.compare.request import Request
from epochal.config.compose import choices
from epochal.core.errors import ConfigError
from epochal.inference.lab.server import LAB, answer, body, text

GROUPS = ("model", "dataset", "task", "trainer", "optimizer", "scheduler", "experiment")  # that the form offers
MOST_LINE = 4_000  # characters


def routes() -> list[web.RouteDef]:
    return [
        web.get("/api/runs", runs),
        web.get("/api/runs/{run}", run),
        web.get("/api/runs/{run}/picture", picture),
        web.post("/api/runs/{run}/stop", stop),
        web.post("/api/runs/{run}/resume", resume),
        web.get("/api/choices", form),
        web.post("/api/start", start),
        web.get("/api/started/{number:[0-9]{1,6}}", started),
        *report_routes(live, "/report/"),
    ]


async def runs(request: web.Request) -> web.Response:
    found = await asyncio.to_thread(request.app[LAB].runs.listed, request.query.get("known", ""))
    return web.Response(status=204) if found is None else answer(found)


async def run(request: web.Request) -> web.Response:
    return answer(request.app[LAB].runs.told(request.match_info["run"]))


async def picture(request: web.Request) -> web.Response:
    """A picture that a run wrote, by its name and step."""
    step = request.query.get("step", "")
    wanted = request.query.get("name", ""), int(step) if step.isdecimal() and len(step) < 16 else None
    content = await asyncio.to_thread(request.app[LAB].runs.picture, request.match_info["run"], *wanted)
    if content is None:
        raise web.HTTPNotFound
    return web.Response(body=content, content_type="image/png")


async def stop(request: web.Request) -> web.Response:
    request.app[LAB].runs.stop(request.match_info["run"])
    return answer({})


async def resume(request: web.Request) -> web.Response:
    return answer({"number": request.app[LAB].runs.resume(request.match_info["run"])})


async def form(request: web.Request) -> web.Response:
    """The options of the groups that a training is composed of."""
    found = choices()
    return answer({group: found.get(group, []) for group in GROUPS})


async def start(request: web.Request) -> web.Response:
    """Starts a training; `line` is what would follow `epochal train`."""
    line = text(await body(request), "line", MOST_LINE)
    try:
        arguments = shlex.split(line)
    except ValueError as error:
        raise ConfigError("A quotation mark in the line is not closed.") from error
    return answer({"number": request.app[LAB].runs.start(arguments)})


async def started(request: web.Request) -> web.Response:
    return answer(request.app[LAB].runs.started(int(request.match_info["number"])))


# -- the comparison of all runs: the page of `epochal compare --live` -------------------------------------------------


def live(request: web.Request) -> LiveData:
    """What the report page shows, of the single runs."""
    lab = request.app[LAB]
    if lab.live is None:
        known: list[Any] = []

        def refresh() -> Comparison:
            nonlocal known
            comparison = Request(output_dir=str(lab.runs.output_dir)).compare(known)
            known = comparison.records
            return comparison

        lab.live = LiveData(refresh)
    return lab.live
