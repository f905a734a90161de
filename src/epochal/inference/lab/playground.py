"""The room where points are put into the plane, and a small network is watched while it learns them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from epochal.core.errors import ConfigError
from epochal.core.files import write_atomically
from epochal.data import Points
from epochal.data.points import HEADER, KINDS, LEAST_OWN, MOST_CLASSES, SPAN
from epochal.inference.lab.runs import LOGS, Runs
from epochal.inference.lab.server import LAB, answer, body, number, text, whole
from epochal.models.mlp import ACTIVATIONS

FOLDER = "playground"  # in the folder of what the lab's trainings print
MOST_POINTS = 2_000  # that a page sends
MOST_LAYERS, MOST_WIDTH = 6, 64
MOST_STEPS = 200_000
LOOK = 0.03  # seconds between two looks for a frame
ALIVE = 1.0  # seconds between two looks at the process
KEPT = 20  # folders with frames, the newest


def routes() -> list[web.RouteDef]:
    return [
        web.post("/api/playground/points", points),
        web.post("/api/playground/start", start),
        web.post("/api/playground/{number:[0-9]{1,6}}/controls", controls),
        web.get("/api/playground/{number:[0-9]{1,6}}", frames),
    ]


async def points(request: web.Request) -> web.Response:
    """The points that a training with these settings would learn from, as [[x, y, class], ...] for training and validation."""
    chosen = made(await body(request))
    return answer(await asyncio.to_thread(drawn, chosen))


def drawn(options: Mapping[str, Any]) -> dict[str, Any]:
    data = Points(name="points", **options)
    data.prepare()
    found = {}
    for split in ("train", "val"):
        rows, _ = data.rows(split)
        places = rows.points[:, 0].round(decimals=3).tolist()
        found[split] = [[x, y, label] for (x, y), label in zip(places, rows.labels.tolist(), strict=True)]
    return {**found, "classes": len(data.classes.names)}


def made(data: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a made data set.

    Raises:
        ConfigError: If one is wrong.
    """
    kind = text(data, "kind", 20)
    if kind not in KINDS:
        raise ConfigError(f"kind must be one of {', '.join(KINDS)}.")
    classes = 2 if kind == "xor" else whole(data, "classes", 2, MOST_CLASSES, 2)
    noise = float(number(data, "noise", 0, 1, 0.1))
    return {"kind": kind, "classes": classes, "noise": noise, "train_size": 300, "validation": 200}


def own(data: Mapping[str, Any]) -> str:
    """A CSV file of the points [[x, y, class], ...] that were made by clicking.

    Raises:
        ConfigError: If they are none, too few or too many, or of one class.
    """
    given = data.get("points")
    if not isinstance(given, list) or not LEAST_OWN <= len(given) <= MOST_POINTS:
        raise ConfigError(f"Put {LEAST_OWN} to {MOST_POINTS:,} points into the plane.")
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(HEADER)
    seen = set()
    for point in given:
        if not isinstance(point, list) or len(point) != 3:
            raise ConfigError("A point is given as x, y and class.")
        values = dict(zip(HEADER, point, strict=True))
        label = whole(values, "class", 0, MOST_CLASSES - 1)
        seen.add(label)
        writer.writerow([float(number(values, name, -SPAN, SPAN)) for name in ("x", "y")] + [label])
    if len(seen) < 2:
        raise ConfigError("Put points of two classes at least into the plane.")
    return written.getvalue()


def network(data: Mapping[str, Any]) -> list[str]:
    """The overrides of a training but for its data.

    Raises:
        ConfigError: If a setting is wrong.
    """
    hidden = data.get("hidden")
    if not isinstance(hidden, list) or len(hidden) > MOST_LAYERS:
        raise ConfigError(f"hidden must be a list of at most {MOST_LAYERS} widths.")
    widths = [whole({"width": width}, "width", 1, MOST_WIDTH) for width in hidden]
    activation = text(data, "activation", 20)
    if activation not in ACTIVATIONS:
        raise ConfigError(f"activation must be one of {', '.join(ACTIVATIONS)}.")
    return [
        "model=mlp",
        f"model.hidden=[{','.join(map(str, widths))}]",
        f"model.activation={activation}",
        "scheduler=constant",  # the page turns the learning rate
        f"optimizer.lr={number(data, 'learning_rate', 1e-5, 1):g}",
        f"optimizer.weight_decay={number(data, 'weight_decay', 0, 10):g}",
        f"duration={whole(data, 'steps', 10, MOST_STEPS)}steps",
        f"seed={whole(data, 'seed', 0, 1_000_000, 1)}",
        "trainer.check_val_every_n_epoch=null",  # an epoch of a few points is a step or two
        "trainer.val_check_interval=500",
        "logger=none",
    ]


async def start(request: web.Request) -> web.Response:
    """Starts a training; the answer is its number, and the line that would do the same in a terminal."""
    data = await body(request)
    arguments, runs = network(data), request.app[LAB].runs
    clicked = own(data) if data.get("kind") == "own" else None
    chosen = {} if clicked is not None else made(data)
    folder = await asyncio.to_thread(new_folder, runs)
    if clicked is not None:
        file = folder / "points.csv"
        write_atomically(file, clicked)
        count = clicked.count("\n") - 1
        chosen = {"kind": "own", "path": f'"{file}"', "batch_size": min(32, count - 2 * (count // 5))}
    overrides = [arguments[0], "dataset=points", *(f"dataset.{key}={value}" for key, value in chosen.items())]
    started = runs.start([*overrides, *arguments[1:]], watched=folder)
    return answer({"number": started, "line": runs.started(started)["line"]})


def new_folder(runs: Runs) -> Path:
    """A folder for the frames and points of a training; of older ones only those with points are kept, for runs to be resumed."""
    parent = runs.output_dir / LOGS / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    for old in sorted(path for path in parent.iterdir() if path.is_dir())[:-KEPT]:
        if not (old / "points.csv").exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = parent / f"{datetime.now():%Y-%m-%d_%H-%M-%S_%f}"
    folder.mkdir()
    return folder


async def controls(request: web.Request) -> web.Response:
    """Turns the learning rate and the weight decay of a training, or stops it."""
    data = await body(request)
    folder, _ = request.app[LAB].runs.watched(int(request.match_info["number"]))
    told = {
        "learning_rate": number(data, "learning_rate", 1e-5, 1),
        "weight_decay": number(data, "weight_decay", 0, 10),
        "stop": data.get("stop") is True,
    }
    write_atomically(folder / "controls.json", json.dumps(told))
    return answer({})


async def frames(request: web.Request) -> web.WebSocketResponse:
    """Sends each frame of a training as soon as it is there, and how the training ended."""
    runs, at = request.app[LAB].runs, int(request.match_info["number"])
    folder, _ = runs.watched(at)
    connection = web.WebSocketResponse(heartbeat=20)
    await connection.prepare(request)
    listening = asyncio.create_task(closed(connection))
    shown, looked, ended = 0, 0.0, False
    try:
        while not listening.done():
            if time.monotonic() - looked > ALIVE:  # before the frame, so that the last one is not missed
                looked, ended = time.monotonic(), runs.watched(at)[1] is not None
            file = folder / "frame.json"
            stamp = file.stat().st_mtime_ns if file.exists() else 0
            if stamp != shown:
                shown = stamp
                await connection.send_str(file.read_text())
            if ended:
                told = await asyncio.to_thread(runs.started, at)
                await connection.send_str(json.dumps({"ended": told["status"], "said": told["said"]}))
                break
            await asyncio.sleep(LOOK)
    except (ConnectionError, FileNotFoundError):  # the page was closed, or the folder is gone
        pass
    finally:
        listening.cancel()
    await connection.close()
    return connection


async def closed(connection: web.WebSocketResponse) -> None:
    """Returns when the page has closed the connection; what it sends is not read."""
    async for _ in connection:
        pass
