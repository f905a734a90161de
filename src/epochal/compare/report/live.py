"""The page served on this machine, with news while runs go on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
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
NAMES = (ADDRESS, "localhost", "[::1]")  # by which a browser may call this machine; another name is a rebinding attack
REST = 2.0  # seconds between two looks at the folders, at least
SHARE = 0.1  # of the time, at most, that reading may take from the training beside it
NEARBY = 20  # ports tried to name a free one
TYPES = {".png": "image/png", ".txt": "text/plain; charset=utf-8"}


class News:
    """What the page shows, read again when it is asked for and files have changed.

    Args:
        refresh: Reads the runs; unchanged ones cheaply.
    """

    def __init__(self, refresh: Callable[[], Comparison]) -> None:
        self.files: dict[str, Path] = {}  # by address: all that is served beside the page itself
        self._refresh, self._lock = refresh, threading.Lock()
        self._stamp: Any = None
        self._due = 0.0
        self._data: dict[str, Any] = {}

    def data(self) -> dict[str, Any]:
        """The page's contents, at most `REST` seconds old; longer where reading takes long."""
        with self._lock:
            started = time.monotonic()
            if started >= self._due:
                self._read()
                took = time.monotonic() - started
                self._due = started + took + max(REST, took / SHARE)
            return self._data

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
        data["version"] = f"{time.time_ns()}"
        self._stamp, self._data, self.files = stamp, data, files


class Handler(BaseHTTPRequestHandler):
    """Serves the page, its data, and the pictures that it shows; nothing else has an address."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if name not in NAMES:
            self._answer(403, "text/plain", b"This page answers only to its own machine.")
            return
        place, news = urlsplit(self.path), self.server.news
        try:
            if place.path == "/":
                self._answer(200, "text/html; charset=utf-8", document(news.data()).encode())
            elif place.path == "/data.json":
                data = news.data()
                if parse_qs(place.query).get("known") == [data["version"]]:
                    self._answer(204, "application/json", b"")
                else:
                    self._answer(200, "application/json", json.dumps(data, allow_nan=False).encode())
            elif file := news.files.get(place.path):
                self._answer(200, TYPES[file.suffix], file.read_bytes())
            else:
                self._answer(404, "text/plain", b"There is nothing here.")
        except EpochalError as error:  # the folders went away while the page is open
            self._answer(503, "text/plain; charset=utf-8", str(error).encode())
        except FileNotFoundError:
            self._answer(404, "text/plain", b"It was there, but is no more.")

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
        """Nothing: a line each three seconds helps nobody."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = not WINDOWS  # there it would let two servers have one port

    def __init__(self, port: int, news: News) -> None:
        self.news = news
        super().__init__((ADDRESS, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error; all others keep their traceback."""
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def open_server(refresh: Callable[[], Comparison], port: int) -> Server:
    """Reads the runs once and takes the port.

    Raises:
        ConfigError: If the port cannot be had, or there are no runs to show.
    """
    news = News(refresh)
    try:
        server = Server(port, news)
    except OverflowError as error:
        raise ConfigError(f"port={port} is no port; choose one from 1024 to 65535.") from error
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        raise ConfigError(f"Port {port} {why}; choose another, such as port={_free_port(port)}.") from error
    try:
        news.data()
    except BaseException:
        server.server_close()
        raise
    return server


def serve(refresh: Callable[[], Comparison], port: int, console: Console) -> None:
    """Serves the page until Ctrl-C.

    Args:
        refresh: Reads the runs; unchanged ones cheaply. It is called only while a page is open.
        port: On 127.0.0.1.
        console: Is told the address.

    Raises:
        ConfigError: If the port cannot be had, or there are no runs to show.
    """
    with open_server(refresh, port) as server:
        console.print(f"Open http://{ADDRESS}:{server.server_port} in a browser; Ctrl-C ends it.", highlight=False)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("Ended.")


def _free_port(taken: int) -> int:
    """The next that is free."""
    start = min(max(taken + 1, 1024), 65535 - NEARBY)
    for port in range(start, start + NEARBY):
        with socket.socket() as probe:
            try:
                probe.bind((ADDRESS, port))
            except OSError:
                continue
            return port
    return start
