"""What the framework costs: its speed beside a bare PyTorch loop, and beside the usual Lightning recipe.

    python benchmarks/throughput.py                        every case, with the default logger: about 15 minutes
    python benchmarks/throughput.py --cases lenet gpt      two of them
    python benchmarks/throughput.py --logger wandb none    how much of it is the logger
    python benchmarks/throughput.py --repeats 9 --seconds 10 --json throughput.json     for a noisy machine

One thread on the CPU. The contenders take turns (A B A B ...), each ratio is of neighbours in time, and the median of
the ratios counts: quote the ratios, not the speeds. "CPU time" is the same ratio without the time in which other
processes had the core; where it is far from the ratio by the clock, the machine was busy.

framework  build(compose(...)) and job.fit() as in train.py, with run folder, metrics.csv and a progress bar drawn for
           a terminal. Without validations, but for the case `epoch`.
bare       The same network in the same memory layout (channels_last where the framework has it), optimiser and schedule
           on floats that lie ready in memory: gather, forward, loss, zero_grad, backward, clip where the config clips,
           step. No augmentation, though for cifar10 the framework crops and flips; no metrics, no check for NaN.
recipe     torchvision's MNIST with ToTensor and Normalize through a shuffling DataLoader (no workers) into a Lightning
           Trainer with its progress bar, torchmetrics updated and logged each step; network and optimiser as above.

Time runs from the end of one optimiser step to the end of a later one, by the same hook for all three. In `epoch` that
is one pass over MNIST and, for framework and recipe, one validation with all that belongs to it; its seconds are scaled
to 60,000 images. Data as train.py finds it (EPOCHAL_DATA, or the Hub), else random numbers of the same shape.
"""

import argparse
import gc
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}  # torch loads later

MLP = ["model=mlp", "model.hidden=[64,128,64]", "dataset=mnist"]
CASES: dict[str, tuple[list[str], float | None]] = {  # overrides of conf/train.yaml, least ratio to the bare loop
    "lenet": (["model=lenet", "dataset=mnist"], 0.90),
    "resnet": (["model=resnet", "model.depth=20", "dataset=cifar10"], 0.97),
    "gpt": (["model=gpt", "dataset=shakespeare"], 0.97),
    "mlp": (MLP, None),
    "epoch": (MLP, None),
}
RECIPE_TARGET = 10.0  # times as fast as the recipe
WARM_UP = 5  # steps before the clock
SINK = open(os.devnull, "w")  # noqa: SIM115  # as long as the process lives


class Clock:
    """The moments, by the wall and of this process's CPU time, after each optimiser step."""

    def __enter__(self) -> "Clock":
        from torch.optim.optimizer import register_optimizer_step_post_hook

        gc.collect()
        self.ticks: list[tuple[float, float]] = []
        self.hook = register_optimizer_step_post_hook(
            lambda *_: self.ticks.append((time.perf_counter(), time.process_time()))
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self.hook.remove()

    def seconds(self, steps: int) -> list[float]:
        """Wall and CPU seconds of so many steps after the warm-up."""
        return [end - start for start, end in zip(self.ticks[WARM_UP], self.ticks[WARM_UP + steps], strict=True)]


def make(overrides: list[str], steps: int) -> Any:
    """A run of the framework, of so many steps after the warm-up."""
    from rich.console import Console

    from epochal.build import build
    from epochal.cli import compose

    overrides = [*overrides, "trainer=cpu", f"duration={WARM_UP + steps + 1}steps", f"log_every={min(50, steps)}"]
    config = compose(overrides, "train", Path(__file__).absolute().parents[1] / "conf")
    return build(config, console=Console(file=SINK, force_terminal=True, width=100))


def framework(overrides: list[str], steps: int) -> list[float]:
    """Seconds of so many steps, the way train.py takes them."""
    job = make(overrides, steps)
    with Clock() as clock:
        job.fit()
    job.report()  # ends the W&B run
    return clock.seconds(steps)


def bare(overrides: list[str], steps: int) -> list[float]:
    """Seconds of so many steps of a plain loop."""
    import torch
    from torch.nn.functional import cross_entropy

    job = make([*overrides, "logger=none"], steps)
    model, optimizer, schedule = network(job)
    clip, size = job.config.trainer.gradient_clip_val, job.config.dataset.batch_size
    rows, count = job.data.rows("train")
    if job.config.task.name == "language_modeling":
        windows = rows.tokens.long().unfold(0, rows.length + 1, rows.length)  # (N, T + 1)
        inputs, targets = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
    else:
        inputs, targets = job.data.normalise(rows.images[rows.rows]), rows.labels[rows.rows]
        inputs = inputs.permute(0, 2, 3, 1).contiguous()  # (N, H, W, C), so that a batch is channels_last at once
    with Clock() as clock:
        while len(clock.ticks) <= WARM_UP + steps:
            for index in torch.randperm(count).split(size)[: count // size]:
                batch = inputs[index]
                logits = model(batch.permute(0, 3, 1, 2) if batch.dim() == 4 else batch)
                loss = cross_entropy(logits.flatten(0, -2), targets[index].flatten())
                optimizer.zero_grad()
                loss.backward()
                if clip:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                schedule.step()
                if len(clock.ticks) > WARM_UP + steps:
                    break
    return clock.seconds(steps)


def recipe(overrides: list[str], steps: int) -> list[float]:
    """Seconds of so many steps, one epoch and its validation, the usual way."""
    import pytorch_lightning as pl
    from torch import nn
    from torch.utils.data import DataLoader
    from torchmetrics.classification import MulticlassAccuracy
    from torchvision import datasets
    from torchvision.transforms import Compose, Normalize, ToTensor

    class Digits(datasets.MNIST):  # its __getitem__ is the recipe's; the images are those of the framework's split
        def __init__(self, rows: Any) -> None:
            datasets.VisionDataset.__init__(self, "", transform=Compose([ToTensor(), Normalize(0.1307, 0.3081)]))
            self.data, self.targets = rows.images[rows.rows][:, 0], rows.labels[rows.rows]

    class Recipe(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.optimizer, self.schedule = network(job)
            self.accuracy = nn.ModuleDict({"fit": MulticlassAccuracy(10), "val": MulticlassAccuracy(10)})

        def configure_optimizers(self) -> Any:
            return [self.optimizer], [{"scheduler": self.schedule, "interval": "step"}]

        def training_step(self, batch: Any, batch_idx: int, split: str = "fit") -> Any:
            logits = self.model(batch[0])
            loss = nn.functional.cross_entropy(logits, batch[1])
            self.accuracy[split].update(logits, batch[1])
            self.log(f"{split}_loss", loss, prog_bar=True)
            self.log(f"{split}_accuracy", self.accuracy[split], prog_bar=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.training_step(batch, batch_idx, "val")

    job = make([*overrides, "logger=none"], steps)
    train, val = (
        DataLoader(Digits(job.data.rows(s)[0]), batch_size=128, shuffle=s == "train", drop_last=s == "train")
        for s in ("train", "val")
    )
    with redirect_stdout(SINK), redirect_stderr(SINK), Clock() as clock:
        length = {"max_epochs": -1, "max_steps": WARM_UP + steps + 1}
        pl.Trainer(accelerator="cpu", logger=False, default_root_dir=job.run.folder, **length).fit(Recipe(), train, val)
    return clock.seconds(steps)
