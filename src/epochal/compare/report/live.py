"""Serves the report page on this machine, and updates it while runs go on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from epochal.compare.report.page import contents, document, linked, ranked
from epochal.core.errors import EpochalError
from epochal.core.web import HOST, check_host, checked_port, run_server

if TYPE_CHECKING:
    from rich.console import Console

    from epochal.compare.comparison import Comparison

MIN_INTERVAL = 2.0  # seconds between two reads of the folders
MAX_LOAD = 0.1  # fraction of the time spent on reading, which slows the training down
TYPES = {".png": "image/png", ".txt": "text/plain; charset=utf-8"}
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class LiveData:
    """The data of the page, read again on request when files have changed.

    Args:
        refresh: Reads the runs; cheap for unchanged ones.
    """

    def __init__(self, refresh: Callable[[], Comparison]) -> None:
        self.files: dict[str, Path] = {}  # by URL path: all files that are served
        self._refresh, self._lock = refresh, threading.Lock()
        self._stamp: Any = None
        self._due = 0.0
        self._data: dict[str, Any] = {}
        self._session, self._count = secrets.token_hex(4), 0
        self._changes: dict[tuple[str, str], tuple[int, str]] = {}  # of each part: when it changed last, and its text

    def data(self) -> dict[str, Any]:
        """The page's contents, at most `MIN_INTERVAL` seconds old, or older where reading takes long."""
        with self._lock:
            started = time.monotonic()
            if started >= self._due:
                self._read()
                took = time.monotonic() - started
                self._due = started + took + max(MIN_INTERVAL, took / MAX_LOAD)
            return self._data

    def update(self, known: str) -> dict[str, Any] | None:
        """What has changed since a version, or everything if that is of another server; None if nothing has.

        Of runs and their pictures only those that changed are in it, and the names of all if one came, went or moved.
        """
        data = self.data()
        session, _, since = known.partition("-")
        if known == data["version"]:
            return None
        if session != self._session or not since.isdecimal():
            return data
        with self._lock:
            new = {part for part, (count, _) in self._changes.items() if count > int(since)}
            runs = {run["name"]: run for run in data["runs"]}
            found = {key: data[key] for kind, key in new if kind == "page"}
            found["runs"] = [runs[name] for kind, name in new if kind == "run"]
            shown: dict[str, list[Any]] = {name: [] for kind, name in new if kind == "shown"}
            for entry in data["shown"]:
                if entry["run"] in shown:
                    shown[entry["run"]].append(entry)
            order = {"order": list(runs)} if ("order", "") in new else {}
            return {**found, **order, "shown": shown, "since": known, "version": data["version"]}

    def _note(self, data: dict[str, Any]) -> None:
        """Notes which parts of the page differ from before."""
        shown: dict[str, list[Any]] = {run["name"]: [] for run in data["runs"]}
        for entry in data["shown"]:
            shown[entry["run"]].append(entry)
        parts: dict[tuple[str, str], Any] = {("order", ""): list(shown)}
        parts |= {("run", run["name"]): run for run in data["runs"]}
        parts |= {("shown", name): entries for name, entries in shown.items()}
        parts |= {("page", key): value for key, value in data.items() if key not in ("runs", "shown", "version")}
        changes = {}
        for part, value in parts.items():
            text = hashlib.sha256(json.dumps(value).encode()).hexdigest()
            old = self._changes.get(part)
            changes[part] = old if old is not None and old[1] == text else (self._count, text)
        self._changes = changes

    def _read(self) -> None:
        comparison = self._refresh()
        stamp = [[(r.folder, r.stamp, r.shown_status) for r in comparison.records], comparison.skipped]
        if stamp == self._stamp:
            return
        files: dict[str, Path] = {}

        def address(path: Path) -> str:
            place = f"shown/{hashlib.sha256(os.fsencode(path)).hexdigest()[:24]}{path.suffix}"
            files[f"/{place}"] = path
            return place

        data = contents(comparison, linked(ranked(comparison), address), live=True)
        self._count += 1
        data["version"] = f"{self._session}-{self._count}"
        self._note(data)
        self._stamp, self._data, self.files = stamp, data, files


def routes(live: Callable[[web.Request], LiveData], place: str = "/") -> list[web.RouteDef]:
    """The page of a comparison, its data and its pictures, and nothing else.

    Args:
        live: What the page shows, for a request.
        place: Where the page is; all else is below it.
    """

    async def page(request: web.Request) -> web.Response:
        """The page has its scripts in it and brings a policy that allows those alone, by their hashes."""
        text = await asyncio.to_thread(lambda: document(live(request).data()))
        return web.Response(
            text=text, content_type="text/html", headers={"Content-Security-Policy": "frame-ancestors 'none'"}
        )

    async def news(request: web.Request) -> web.Response:
        """What has changed since the version that the page knows; 204 if nothing has."""
        data = await asyncio.to_thread(live(request).update, request.query.get("known", ""))
        if data is None:
            return web.Response(status=204)
        return web.Response(text=json.dumps(data, allow_nan=False), content_type="application/json")

    async def shown(request: web.Request) -> web.Response:
        """A picture or text of a run, of those that the page names."""
        file = live(request).files.get(f"/{request.match_info['file']}")
        if file is None:
            raise web.HTTPNotFound
        try:
            content = await asyncio.to_thread(file.read_bytes)
        except FileNotFoundError as error:
            raise web.HTTPNotFound from error
        return web.Response(body=content, headers={"Content-Type": TYPES[file.suffix]})

    return [web.get(place, page), web.get(f"{place}data.json", news), web.get(f"{place}{{file:shown/.+}}", shown)]


def application(live: LiveData) -> web.Application:
    """The page of a comparison, for its own machine alone."""
    app = web.Application(middlewares=[guarded])
    app.add_routes(routes(lambda request: live))
    return app


@web.middleware
async def guarded(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        check_host(request)
        response = await handler(request)
    except web.HTTPException as error:
        response = web.Response(
            text=error.text if error.status == 403 else "There is nothing here.", status=error.status
        )
    except EpochalError as error:  # the folders were deleted while the page is open
        response = web.Response(text=str(error), status=503)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def serve(refresh: Callable[[], Comparison], port: int, console: Console) -> None:
    """Serves the page until Ctrl-C.

    Args:
        refresh: Reads the runs; cheap for unchanged ones. It is called only while a page is open.
        port: Of 127.0.0.1; 0 takes a free one.
        console: Where the address is printed.

    Raises:
        ConfigError: If the port is none or taken, or there are no runs.
    """
    live, port = LiveData(refresh), checked_port(port)

    def tell(port: int) -> None:
        live.data()
        console.print(f"Open http://{HOST}:{port} in a browser; Ctrl-C ends it.", highlight=False)

    with suppress(KeyboardInterrupt):  # where signals have no handlers of ours, on Windows
        asyncio.run(run_server(application(live), port, tell))
    console.print("Ended.")
