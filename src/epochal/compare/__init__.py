"""Compares runs: table, figures, report and verdict, from their folders alone. This module can be called:

    import epochal.compare

    epochal.compare("outputs/runs", x="model.depth", y="train/error")
    epochal.compare(experiment="depth_degradation")

prints the table, writes the report, and returns the `Comparison`, which a notebook shows with its figures. The arguments
are those of `epochal.compare.command.compare`. Importing it loads neither that module nor torch.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epochal.compare.comparison import Comparison


class CallableModule(ModuleType):
    """A module that is also a function: `epochal.compare` holds the submodules, and compares runs when called."""

    def __call__(self, *paths: Any, **options: Any) -> Comparison:
        """See `epochal.compare.command.compare`."""
        from epochal.compare.command import compare

        return compare(*paths, **options)


sys.modules[__name__].__class__ = CallableModule
