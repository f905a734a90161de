"""The rooms of the lab: each a module with `routes()`, and a script of the same name in `page/`."""

from __future__ import annotations

from types import ModuleType

from epochal.inference.lab import generate, playground, see, training, write

ROOMS: tuple[ModuleType, ...] = (training, playground, see, write, generate)
