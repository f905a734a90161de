"""The networks that the lab has open, and the one thread in which they compute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from epochal.inference.notebook import LoadedRun

MOST_BYTES = 2_000_000_000  # of the weights of all networks that are open
END = object()  # of an iterator


class Opened(NamedTuple):
    """A network that is open.

    Attributes:
        run: With its network.
        stamp: When its checkpoint was written, in nanoseconds.
        size: Of its weights, in bytes.
    """

    run: LoadedRun
    stamp: int
    size: int


class Networks:
    """Opens the networks of runs as they are asked for, anew where a checkpoint has changed, and forgets those that were not
    used for longest when they take too much memory.

    One thread does it all, so that two requests never use a network at the same time and the server goes on answering.

    Args:
        folder_of: Finds a run's folder by its id; raises ConfigError if there is none.
        open_folder: Opens the run in a folder.
        most_bytes: Of the weights of all networks that are kept open.
    """

    def __init__(
        self,
        folder_of: Callable[[str], Path],
        open_folder: Callable[[Path], LoadedRun],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._folder_of, self._open, self._most = folder_of, open_folder, most_bytes
        self._opened: dict[Path, Opened] = {}  # the one that was used last stands last
        self._thread = ThreadPoolExecutor(1, "networks")

    async def use(self, run: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function with a run's `LoadedRun` and further arguments, and returns what it returns.

        Raises:
            ConfigError: If there is no such run, or its network cannot be opened.
        """
        return await self._do(self._use, self._folder_of(run), function, *arguments)

    async def stream(self, run: str, function: Callable[..., Generator[Any]], *arguments: Any) -> AsyncGenerator[Any]:
        """The items of a generator that a function makes of a run's `LoadedRun`; others use the thread between them.

        Raises:
            ConfigError: As `use`.
        """
        items = await self.use(run, function, *arguments)
        try:
            while (item := await self._do(next, items, END)) is not END:
                yield item
        finally:
            self._thread.submit(items.close)  # after the step that is perhaps under way

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *arguments))

    def _use(self, folder: Path, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self._at(folder), *arguments)

    def _at(self, folder: Path) -> LoadedRun:
        stamp = checkpoint_stamp(folder)
        known = self._opened.pop(folder, None)
        if known is None or known.stamp != stamp:
            run = self._open(folder)
            size = sum(tensor.nbytes for tensor in run.model.state_dict().values())
            known = Opened(run, stamp, size)
        self._opened[folder] = known
        while sum(opened.size for opened in self._opened.values()) > self._most and len(self._opened) > 1:
            del self._opened[next(iter(self._opened))]
        return known.run


def checkpoint_stamp(folder: Path) -> int:
    """When the weights that a run is opened with were written, in nanoseconds since 1970; 0 if there are none."""
    for file in (folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"):
        try:
            return file.stat().st_mtime_ns
        except OSError:
            continue
    return 0
