"""The lab's server: a page on this machine where one sees networks learn, and tries them.

It answers on 127.0.0.1 alone, to requests whose Host and Origin are its own (against DNS rebinding and other pages), and does
something only for those that bring the random token of the address it printed. No path of a request is ever opened.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import traceback
import webbrowser
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from aiohttp import web
from omegaconf import DictConfig

from epochal.compare.report.live import LiveData
from epochal.core.errors import ConfigError, EpochalError
from epochal.core.files import expanded, relative
from epochal.core.format import say
from epochal.core.web import HOST, check_host, checked_port, run_server
from epochal.inference.lab.networks import Networks
from epochal.inference.lab.runs import Runs
from epochal.inference.load import open_run
from epochal.inference.notebook import LoadedRun

LARGEST = 10_000_000  # bytes of a request
TOKEN = "X-Lab-Token"  # the header's name
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Lab:
    """What the rooms share.

    Attributes:
        runs: Below the outputs folder.
        networks: Those that are open.
        token: Without which nothing is started, stopped or computed.
        live: The comparison of all runs, once somebody has looked at it.
    """

    runs: Runs
    networks: Networks
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    live: LiveData | None = None


LAB = web.AppKey("lab", Lab)
READING = web.AppKey("reading", asyncio.Task)


def application(lab: Lab) -> web.Application:
    """The page and the addresses that it asks."""
    from epochal.inference.lab.rooms import ROOMS

    app = web.Application(client_max_size=LARGEST, middlewares=[sentences, guarded])
    app[LAB] = lab
    app.add_routes([web.get("/", page), web.get("/page/{name}", file)])
    for room in ROOMS:
        app.add_routes(room.routes())

    async def read_runs(app: web.Application) -> None:  # while the browser opens
        app[READING] = asyncio.create_task(asyncio.to_thread(app[LAB].runs.records))

    async def close(app: web.Application) -> None:
        app[LAB].networks.close()

    app.on_startup.append(read_runs)
    app.on_cleanup.append(close)
    return app


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses what other pages of the browser may have sent, and without the token all but reading."""
    check_host(request)
    if request.headers.get("Origin", f"http://{request.host}") != f"http://{request.host}":
        raise web.HTTPForbidden(text="Another page may ask nothing of this one.")
    acts = (
        request.method not in ("GET", "HEAD") or "Upgrade" in request.headers
    )  # a websocket can send no header of ours
    given = request.headers.get(TOKEN) or request.query.get("token", "")
    if acts and not secrets.compare_digest(given.encode(), request.app[LAB].token.encode()):
        raise web.HTTPForbidden(
            text="Open the page by the address that the terminal shows: it holds a key that is missing here."
        )
    response = await handler(request)
    if not response.prepared:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
    return response


@web.middleware
async def sentences(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever is wrong into a sentence that the page shows."""
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        return answer({"error": f"That is more than {LARGEST // 1_000_000} MB, the most that is read."}, 413)
    except web.HTTPException as error:
        text = error.text if error.status == 403 else "There is nothing here."
        return answer({"error": text}, error.status)
    except EpochalError as error:
        return answer({"error": str(error)}, 400)
    except (ConnectionError, asyncio.CancelledError):  # the page was closed
        raise
    except Exception:
        traceback.print_exc()
        return answer({"error": "A bug of Epochal: the terminal of the lab shows it."}, 500)


def answer(data: Any, status: int = 200) -> web.Response:
    """JSON, with NaN and infinities as null."""
    try:
        text = json.dumps(data, allow_nan=False)
    except ValueError:
        text = json.dumps(finite(data))
    return web.Response(text=text, status=status, content_type="application/json", headers=HEADERS)


def finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


async def body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        ConfigError: If it is none.
    """
    try:
        found = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise ConfigError("The request is no JSON.") from error
    if not isinstance(found, dict):
        raise ConfigError("The request is no JSON object.")
    return found


def number(data: Mapping[str, Any], key: str, least: float, most: float, default: float | None = None) -> float:
    """A number of a request.

    Raises:
        ConfigError: If it is missing where there is no default, none, or out of range.
    """
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigError(f"{key} must be a number from {least:g} to {most:g}.")
    return value


def whole(data: Mapping[str, Any], key: str, least: int, most: int, default: int | None = None) -> int:
    """A whole number of a request; raises ConfigError as `number`."""
    value = number(data, key, least, most, default)
    if not isinstance(value, int):
        raise ConfigError(f"{key} must be a whole number from {least} to {most}.")
    return value


def text(data: Mapping[str, Any], key: str, most: int, default: str | None = None) -> str:
    """A text of a request.

    Raises:
        ConfigError: If it is missing where there is no default, none, or longer than `most` characters.
    """
    value = data.get(key, default)
    if not isinstance(value, str):
        raise ConfigError(f"{key} must be a text.")
    if len(value) > most:
        raise ConfigError(f"{key} has {len(value):,} characters; at most {most:,} are read.")
    return value


async def page(request: web.Request) -> web.Response:
    return web.Response(text=files()["lab.html"], content_type="text/html")


async def file(request: web.Request) -> web.Response:
    """A script or style of the page, of a fixed list."""
    name = request.match_info["name"]
    if name not in files():
        raise web.HTTPNotFound
    return web.Response(text=files()[name], content_type=TYPES[name.rpartition(".")[2]])


def files() -> dict[str, str]:
    """The texts of the page by name; read anew each time, they are small."""
    folder = resources.files("epochal.inference.lab").joinpath("page")
    return {
        entry.name: entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.rpartition(".")[2] in TYPES
    }


def lab(config: DictConfig) -> None:
    """Serves the lab until the process is told to end.

    Args:
        config: As composed from `conf/lab.yaml`.

    Raises:
        ConfigError: If the port is none or taken.
    """
    port = checked_port(config.port)
    outputs, allow = expanded(str(config.output_dir)).absolute(), tuple(config.allow)
    runs = Runs(outputs, allow)
    shared = Lab(runs, Networks(runs.folder, lambda folder: LoadedRun(open_run(folder, allow))))

    def tell(port: int) -> None:
        address = f"http://{HOST}:{port}/?token={shared.token}"
        say(f"The lab of {relative(outputs)}: {address}\nCtrl-C ends it; trainings that it started go on.")
        if config.open:
            webbrowser.open(address)

    with suppress(KeyboardInterrupt):  # where signals have no handlers of ours, on Windows
        asyncio.run(run_server(application(shared), port, tell))
