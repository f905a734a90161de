"""Pages and addresses as they are served, for tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from epochal.core.web import run_server


@contextmanager
def served_app(make: Callable[[], web.Application]) -> Iterator[int]:
    """An application, made in the thread that serves it; yields its port."""
    ready, ports = threading.Event(), list[int]()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def tell(port: int) -> None:
        ports.append(port)
        ready.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run_server(make(), 0, tell, stop)))
    thread.start()
    try:
        assert ready.wait(20)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()
        loop.close()
