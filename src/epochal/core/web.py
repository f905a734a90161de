"""What the pages and addresses that are served on this machine have in common: one way to open a port, and whom they answer."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

from aiohttp import web

from epochal.core.errors import ConfigError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # of this machine in the Host header; any other one means DNS rebinding
MOST_PORT = 65_535


def check_host(request: web.Request) -> None:
    """Raises HTTPForbidden unless the request names this machine."""
    if request.host.partition(":")[0] not in NAMES:  # without a port where that is 80
        raise web.HTTPForbidden(
            text=f"This is answered only on its own machine, under the names {' and '.join(NAMES)}."
        )


def checked_port(port: Any) -> int:
    """A port as it stands in a config.

    Raises:
        ConfigError: If it is none.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= MOST_PORT:
        raise ConfigError(f"port={port} must be a whole number from 0 to {MOST_PORT}; 0 takes a free one.")
    return port


async def run_server(
    app: web.Application, port: int, tell: Callable[[int], None], stop: asyncio.Event | None = None
) -> None:
    """Serves until SIGINT, SIGTERM, or an event.

    Args:
        app: To be served.
        port: 0 takes a free one.
        tell: Called with the port when requests are taken.
        stop: Ends it.

    Raises:
        ConfigError: If the port cannot be opened.
    """
    stop = stop or asyncio.Event()
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    async with AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, HOST, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"port={port} of {HOST} cannot be opened ({error.strerror or error}); give another, or port=0 for a free one."
            ) from error
        if sys.platform != "win32":
            for number in (signal.SIGINT, signal.SIGTERM):
                with suppress(RuntimeError, ValueError):  # of another thread than the main one
                    asyncio.get_running_loop().add_signal_handler(number, stop.set)
        tell(runner.addresses[0][1])
        await stop.wait()
