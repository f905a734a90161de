"""FLOPs and memory of a run, and the commit of its code."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from epochal.core.protocols import AdversarialNetwork, EncoderDecoder
from epochal.core.specs import Tokens


def count_flops(model: nn.Module, specs: tuple[Any, Any]) -> int | None:
    """FLOPs of the forward pass of one example, two for each multiply-add; None where torch cannot count them.

    A GAN's are those of generating one image and discriminating it.

    Args:
        model: The network; a copy of it is counted, on the meta device.
        specs: Of its inputs and outputs.
    """
    from torch.utils.flop_counter import FlopCounterMode

    network: Any = copy.deepcopy(model).to("meta").eval()
    inputs = specs[0]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if isinstance(model, EncoderDecoder):
            network(_one(inputs), _one(specs[1]))
        elif isinstance(model, AdversarialNetwork):
            labels = [torch.zeros(1, dtype=torch.long, device="meta")] if getattr(network, "num_classes", None) else []
            network.discriminator(network.generator(network.sample_noise(1), *labels), *labels)
        else:
            network(_one(inputs))
    return counter.get_total_flops() or None


def flops_of(
    model: nn.Module, specs: tuple[Any, Any], mean_lengths: tuple[float | None, float | None]
) -> dict[str, Any]:
    """The values of `summary.json` about FLOPs.

    Args:
        model: The network.
        specs: Of its inputs and outputs.
        mean_lengths: Of inputs and outputs in tokens, padding included; None where all are as long as the specs say.

    Returns:
        "flops": see `count_flops`, of texts as long as they may be; where they are shorter also "flops_at_mean_length",
        of one example whose texts have the mean length, and "mean_lengths".
    """
    found: dict[str, Any] = {"flops": count_flops(model, specs)}
    if any(mean is not None for mean in mean_lengths):
        shorter = [
            spec if mean is None else dataclasses.replace(spec, length=max(1, min(spec.length, round(mean))))
            for spec, mean in zip(specs, mean_lengths, strict=True)
        ]
        found["flops_at_mean_length"] = count_flops(model, (shorter[0], shorter[1]))
        found["mean_lengths"] = list(mean_lengths)
    return found


def _one(spec: Any) -> torch.Tensor:
    """One example on the meta device."""
    if isinstance(spec, Tokens):
        return torch.zeros(1, spec.length, dtype=torch.long, device="meta")
    sizes = [getattr(spec, name) for name in ("length", "channels", "height", "width") if hasattr(spec, name)]
    return torch.zeros(1, *sizes, device="meta")


def git_commit() -> str | None:
    """The commit of the code that runs, with a plus if files differ from it; None outside a repository."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=here, capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def reset_peak_memory() -> None:
    """Lets `peak_memory_mb` begin anew, for the next run of the same process.

    Where the system cannot reset the resident peak (macOS), it stays that of the whole process.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # of Linux: sets the peak to what is resident now


def peak_memory_mb() -> float | None:
    """Peak memory since `reset_peak_memory` in MB: allocated on the GPU if there is one, else resident of this process.

    None where unknown.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    with contextlib.suppress(OSError, ValueError, StopIteration):  # getrusage's peak is never reset
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1e3
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
