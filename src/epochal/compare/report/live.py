"""Serves the report page on this machine, and updates it while runs go on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from epochal.compare.report.page import contents, document, linked, ranked
from epochal.core.errors import ConfigError, EpochalError
from epochal.core.files import WINDOWS

if TYPE_CHECKING:
    from rich.console import Console

    from epochal.compare.comparison import Comparison

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost", "[::1]")  # accepted Host headers; any other one means DNS rebinding
MIN_INTERVAL = 2.0  # seconds between two reads of the folders
MAX_LOAD = 0.1  # fraction of the time spent on reading, which slows the training down
NEARBY = 20  # ports tried to suggest a free one
TYPES = {".png": "image/png", ".txt": "text/plain; charset=utf-8"}


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


class Handler(BaseHTTPRequestHandler):
    """Serves the page, its data and its pictures, and nothing else."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if name not in HOSTS:
            self._answer(403, "text/plain", b"This page can be opened only on its own machine.")
            return
        live = self.server.live
        try:
            url = urlsplit(self.path)
        except ValueError:  # http://[
            self._answer(400, "text/plain", b"This is no address.")
            return
        try:
            if url.path == "/":
                self._answer(200, "text/html; charset=utf-8", document(live.data()).encode())
            elif url.path == "/data.json":
                data = live.update(parse_qs(url.query).get("known", [""])[0])
                if data is None:
                    self._answer(204, "application/json", b"")
                else:
                    self._answer(200, "application/json", json.dumps(data, allow_nan=False).encode())
            elif file := live.files.get(url.path):
                self._answer(200, TYPES[file.suffix], file.read_bytes())
            else:
                self._answer(404, "text/plain", b"There is nothing here.")
        except EpochalError as error:  # the folders were deleted while the page is open
            self._answer(503, "text/plain; charset=utf-8", str(error).encode())
        except FileNotFoundError:
            self._answer(404, "text/plain", b"The file has been deleted.")

    def _answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing: the page polls every three seconds."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = not WINDOWS  # on Windows it would let two servers share a port

    def __init__(self, port: int, live: LiveData) -> None:
        self.live = live
        super().__init__((ADDRESS, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores browsers that closed the connection; other errors keep their traceback."""
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def open_server(refresh: Callable[[], Comparison], port: int) -> Server:
    """Reads the runs once and binds the port of 127.0.0.1.

    Raises:
        ConfigError: If the port is not available, or there are no runs.
    """
    live = LiveData(refresh)
    try:
        server = Server(port, live)
    except OverflowError as error:
        raise ConfigError(f"port={port} is no port; choose one from 1024 to 65535.") from error
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        raise ConfigError(f"Port {port} {why}; choose another, such as port={_free_port(port)}.") from error
    try:
        live.data()
    except BaseException:
        server.server_close()
        raise
    return server


def serve(refresh: Callable[[], Comparison], port: int, console: Console) -> None:
    """Serves the page until Ctrl-C.

    Args:
        refresh: Reads the runs; cheap for unchanged ones. It is called only while a page is open.
        port: Of 127.0.0.1.
        console: Where the address is printed.

    Raises:
        ConfigError: If the port is not available, or there are no runs.
    """
    with open_server(refresh, port) as server:
        console.print(f"Open http://{ADDRESS}:{server.server_port} in a browser; Ctrl-C ends it.", highlight=False)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("Ended.")


def _free_port(taken: int) -> int:
    """The next free port, for a suggestion."""
    start = min(max(taken + 1, 1024), 65535 - NEARBY)
    for port in range(start, start + NEARBY):
        with socket.socket() as probe:
            try:
                probe.bind((ADDRESS, port))
            except OSError:
                continue
            return port
    return start
