"""Optimisers and learning-rate schedules, by the names of the configs."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, OneCycleLR

from epochal.core.checks import check_fraction, check_number, check_positive


def sgd(model: nn.Module, *, lr: float, momentum: float, nesterov: bool, weight_decay: float) -> Optimizer:
    """Stochastic gradient descent; Nesterov's look-ahead needs a momentum above 0.

    Raises:
        ValueError: If momentum is not in [0, 1).
    """
    check_fraction("momentum", momentum)
    return torch.optim.SGD(
        model.parameters(), lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, weight_decay=weight_decay
    )


def adamw(
    model: nn.Module, *, lr: float, betas: tuple[float, float], weight_decay: float, fused: bool | None = None
) -> Optimizer:
    """AdamW (Loshchilov & Hutter 2017). Matrices and kernels decay; biases and norms, having one dimension, do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(betas[0], betas[1]), fused=fused)


def constant(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """A constant learning rate."""
    return LambdaLR(optimizer, lambda step: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, *, warmup: int | float, final: float) -> LRScheduler:
    """Linear warm-up, then cosine decay.

    Args:
        warmup: Steps of the rise, or a fraction of all.
        final: The last learning rate, as a fraction of the highest.

    Raises:
        ValueError: If warmup is negative, or final not in [0, 1].
    """
    check_number("warmup", warmup, 0)
    check_number("final", final, 0, most=1)
    rise = steps_of(warmup, total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        done = min((step - rise) / max(total_steps - rise, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, factor)


def inverse_sqrt(optimizer: Optimizer, total_steps: int, *, warmup: int | float) -> LRScheduler:
    """Linear warm-up, then decay with 1 / sqrt(step) (Vaswani et al. 2017, arXiv 1706.03762, equation 3).

    The paper's highest learning rate follows from the width of the network and the warm-up; here it is the optimiser's.

    Args:
        warmup: Steps of the rise, or a fraction of all.

    Raises:
        ValueError: If warmup is negative.
    """
    check_number("warmup", warmup, 0)
    rise = max(steps_of(warmup, total_steps), 1)
    return LambdaLR(optimizer, lambda step: min((step + 1) / rise, math.sqrt(rise / (step + 1))))


def multistep(optimizer: Optimizer, total_steps: int, *, milestones: list[int | float], gamma: float) -> LRScheduler:
    """Multiplies the learning rate by gamma at each milestone: a step, or a fraction of all steps.

    Raises:
        ValueError: If gamma is not above 0.
    """
    check_positive("gamma", gamma)
    return MultiStepLR(optimizer, [steps_of(m, total_steps) for m in milestones], gamma)


def one_cycle(
    optimizer: Optimizer, total_steps: int, *, warmup: float, initial: float, final: float, cycle_momentum: bool
) -> LRScheduler:
    """One-cycle policy (Smith & Topin 2017, arXiv 1708.07120).

    Args:
        warmup: Fraction of the steps that rise.
        initial, final: The first and last learning rates, as fractions of the highest.
        cycle_momentum: Move the momentum the other way.

    Raises:
        ValueError: If the warm-up is no fraction, or initial or final not in (0, 1].
    """
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup={warmup} must be a fraction from 0 to 1")
    check_positive("initial", initial, most=1)
    check_positive("final", final, most=1)
    # one step more than are taken: torch's cycle ends before its last step, and divides by zero if it has three or less
    total = max(total_steps, 3) + 1
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        pct_start=max(warmup, 2 / total),
        div_factor=1 / initial,
        final_div_factor=initial / final,
        cycle_momentum=cycle_momentum,
    )


def steps_of(part: int | float, total_steps: int) -> int:
    """A number of steps, given as an integer or as a fraction of all steps."""
    return round(part * total_steps) if isinstance(part, float) and part < 1 else int(part)
