"""The room where runs are started and watched: the list, learning curves, start, stop, resume, and the comparison."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path
from typing import Any

from aiohttp import web

from epochal.compare.comparison import Comparison
from epochal.compare.report.live import TYPES, LiveData
from epochal.compare.report.page import document
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
        web.post("/api/runs/{run}/stop", stop),
        web.post("/api/runs/{run}/resume", resume),
        web.get("/api/choices", form),
        web.post("/api/start", start),
        web.get("/api/started/{number:[0-9]{1,6}}", started),
        web.get("/report/", report),
        web.get("/report/data.json", report_data),
        web.get("/report/{file:shown/.+}", report_file),
    ]


async def runs(request: web.Request) -> web.Response:
    found = await asyncio.to_thread(request.app[LAB].runs.listed, request.query.get("known", ""))
    return web.Response(status=204) if found is None else answer(found)


async def run(request: web.Request) -> web.Response:
    return answer(request.app[LAB].runs.told(request.match_info["run"]))


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


async def report(request: web.Request) -> web.Response:
    """The page has its scripts in it and brings a policy that allows those alone, by their hashes."""
    page = await asyncio.to_thread(_document, live(request))
    headers = {"Content-Security-Policy": "frame-ancestors 'none'"}
    return web.Response(text=page, content_type="text/html", headers=headers)


def _document(data: LiveData) -> str:
    return document(data.data())


async def report_data(request: web.Request) -> web.Response:
    found = await asyncio.to_thread(live(request).update, request.query.get("known", ""))
    if found is None:
        return web.Response(status=204)
    return web.Response(text=json.dumps(found, allow_nan=False), content_type="application/json")


async def report_file(request: web.Request) -> web.Response:
    """A picture or text of a run, of those that the page names."""
    path: Path | None = live(request).files.get(f"/{request.match_info['file']}")
    if path is None or not path.is_file():
        raise web.HTTPNotFound
    return web.Response(body=path.read_bytes(), headers={"Content-Type": TYPES[path.suffix]})
