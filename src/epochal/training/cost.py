"""What a run costs, and which code it ran."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from epochal.core.specs import Tokens


def count_flops(model: nn.Module, specs: tuple[Any, Any]) -> int | None:
    """Floating-point operations of one example forward, two for each multiply-add; None where torch cannot count.

    A GAN's are those of drawing one image and judging it.
    """
    from torch.utils.flop_counter import FlopCounterMode

    shadow: Any = copy.deepcopy(model).to("meta").eval()
    inputs = specs[0]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if "target" in inspect.signature(shadow.forward).parameters:  # it also reads what it has written so far
            shadow(_one(inputs), _one(specs[1]))
        elif hasattr(shadow, "discriminator"):
            shadow.discriminator(shadow.generator(shadow.sample_noise(1)))
        else:
            shadow(_one(inputs))
    return counter.get_total_flops() or None


def _one(fact: Any) -> torch.Tensor:
    """One example without content."""
    if isinstance(fact, Tokens):
        return torch.zeros(1, fact.length, dtype=torch.long, device="meta")
    sizes = [getattr(fact, name) for name in ("length", "channels", "height", "width") if hasattr(fact, name)]
    return torch.zeros(1, *sizes, device="meta")


def git_commit() -> str | None:
    """Of the code that runs, with a plus where it was changed since; None outside a repository."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=here, capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def peak_memory_mb() -> float | None:
    """The most memory that was in use: the GPU's if there is one, else this process's; None where unknown."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
