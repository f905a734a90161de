"""What the framework costs: its speed beside a bare PyTorch loop, and beside the usual Lightning recipe.

    python benchmarks/throughput.py                                   all, with the default logger: over half an hour
    python benchmarks/throughput.py --cases lenet gpt --logger wandb none --repeats 9 --json throughput.json

One thread on the CPU. The contenders take turns (A B A B ...) and the median of the rounds' ratios counts: quote the
ratios, not the speeds. A wide range means a busy machine, and asks for more --repeats.

wandb, none  build(compose(...)) and job.fit() as in train.py, with that logger (W&B offline), run folder, metrics.csv
             and a progress bar drawn for a terminal. Without validations, but for the case `epoch`.
bare         The same network, memory layout (channels_last where the framework has it), optimiser, schedule and
             clipping, on normalised floats in memory. No metrics, no check for NaN, no augmentation even for cifar10.
torchvision  In `resnet18` and `vgg11` the bare loop trains torchvision's network instead of ours, in the same form for small
             images: ResNet-18 with a 3x3 stem of stride 1 and no pooling in it, VGG-11 with one layer after its features.
padded       In `lstm` and `transformer` the bare loop has the very batches of the framework's first epoch, bucketed and padded,
             ready in memory: the ratio of steps is that of tokens.
recipe       torchvision's MNIST, ToTensor, Normalize and a shuffling DataLoader (no workers) into Lightning with its
             progress bar; torchmetrics updated and logged each step; network and optimiser as above.

Time runs from one optimiser step's end to a later one's, by the same hook for all; in `epoch` over a pass over MNIST
and, but for bare, a validation, scaled to 60,000 images. Data as train.py finds it, else random numbers of that shape.
"""

import argparse
import gc
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from itertools import cycle, islice, product
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from startup import stand_in

os.environ |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}  # torch is imported later

MLP = ["model=mlp", "model.hidden=[64,128,64]"]
CASES: dict[str, tuple[str, list[str], int, float | None]] = {  # data, model, steps of some 5 s, least ratio to bare
    "lenet": ("mnist", ["model=lenet"], 250, 0.90),
    "resnet": ("cifar10", ["model=resnet", "model.depth=20"], 10, 0.97),
    "resnet18": ("cifar10", ["model=resnet", "model.depth=18", "dataset.batch_size=32"], 8, 0.97),
    "vgg11": ("cifar10", ["model=vgg", "model.depth=11", "dataset.batch_size=32"], 20, 0.97),
    "gpt": ("shakespeare", ["model=gpt"], 100, 0.97),
    "lstm": ("sst2", ["model=lstm"], 200, 0.97),
    "transformer": ("multi30k", ["model=transformer"], 10, 0.97),
    "mlp": ("mnist", MLP, 1500, None),
    "epoch": ("mnist", MLP, 421, None),
}
RECIPE_TARGET = 10  # times as fast as the recipe
NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"  # importing Lightning sets it to 1, which costs each optimiser step 0.1 ms
SINK = open(os.devnull, "w")  # noqa: SIM115  # as long as the process lives


def length(steps: int) -> int:
    """Steps of a run: a warm-up with the first row of metrics, which opens W&B, and then so many by the clock."""
    return min(50, steps) + 5 + steps


def make(overrides: list[str], steps: int) -> Any:
    """A run of the framework, of so many steps after the warm-up."""
    from rich.console import Console

    from epochal.build import build
    from epochal.cli import compose

    overrides = [*overrides, "trainer=cpu", f"duration={length(steps)}steps", f"log_every={min(50, steps)}"]
    config = compose(overrides, "train", Path(__file__).absolute().parents[1] / "conf")
    return build(config, console=Console(file=SINK, force_terminal=True, width=100))


def clocked(run: Callable[[], Any], steps: int) -> float:
    """Seconds of a run's last steps, so many."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    gc.collect()
    ticks: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: ticks.append(time.perf_counter()))
    run()
    hook.remove()
    return ticks[-1] - ticks[-1 - steps]


def framework(job: Any, steps: int) -> float:
    """The way train.py does it."""
    seconds = clocked(job.fit, steps)
    job.report()  # ends the W&B run
    return seconds


def torchvision(job: Any, steps: int) -> float:
    """The plain loop with torchvision's network in place of ours."""
    import torch
    from torch import nn
    from torchvision import models

    if job.config.model.name == "resnet":
        theirs: Any = models.resnet18(num_classes=10)
        theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    else:
        theirs = models.vgg11(num_classes=10)
        theirs.avgpool = nn.AdaptiveAvgPool2d(1)
        theirs.classifier = nn.Sequential(nn.Dropout(job.config.model.dropout), nn.Linear(512, 10))
    assert len({sum(p.numel() for p in model.parameters()) for model in (job.task.model, theirs)}) == 1
    job.task.model = theirs.to(memory_format=torch.channels_last)
    return bare(job, steps)


def bare(job: Any, steps: int) -> float:
    """A plain loop over ready tensors."""
    import torch
    from torch.nn.functional import cross_entropy

    from epochal.data.base import Rows

    configured = job.task.configure_optimizers()
    model, optimizer, schedule = job.task.model, configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    clip, size = job.config.trainer.gradient_clip_val, job.config.dataset.batch_size
    rows, count = job.data.rows("train")
    batch = rows[Rows(torch.arange(count), seed=0)]  # all of it, as the framework cuts and normalises it
    inputs, targets, *_ = job.data.on_after_batch_transfer(batch, 0)
    if images := inputs.dim() == 4:
        inputs = inputs.permute(0, 2, 3, 1).contiguous()  # (N, H, W, C), so that a batch is channels_last at once

    def loop() -> None:
        batches: list[torch.Tensor] = []
        for _ in range(length(steps)):
            batches = batches or list(torch.randperm(count).split(size)[: count // size])
            index = batches.pop()
            batch = inputs.index_select(0, index)
            logits = model(batch.permute(0, 3, 1, 2) if images else batch)
            loss = cross_entropy(logits.flatten(0, -2), targets.index_select(0, index).flatten())
            optimizer.zero_grad()
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()

    with patch.dict(os.environ, {NVML: "0"}):
        return clocked(loop, steps)


def padded(job: Any, steps: int) -> float:
    """The plain loop over ready batches of sentences, or of pairs of them."""
    from torch.nn import functional
    from torch.nn.utils import clip_grad_norm_

    from epochal.facts import PAD

    configured = job.task.configure_optimizers()
    model, optimizer, schedule = job.task.model, configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    smoothing = job.config.task.get("label_smoothing", 0.0)
    batches = list(islice(cycle(job.data.train_dataloader()), length(steps)))

    def loop() -> None:
        for inputs, targets, _, lengths in batches:
            if targets.dim() == 2:  # BEGIN, words, END, padding
                logits, targets = model(inputs, targets[:, :-1], lengths).flatten(0, 1), targets[:, 1:].flatten()
                loss = functional.cross_entropy(logits, targets, ignore_index=PAD, label_smoothing=smoothing)
            else:
                loss = functional.cross_entropy(model(inputs, lengths), targets, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            if job.config.trainer.gradient_clip_val:
                clip_grad_norm_(model.parameters(), job.config.trainer.gradient_clip_val)
            optimizer.step()
            schedule.step()

    with patch.dict(os.environ, {NVML: "0"}):
        return clocked(loop, steps)


def recipe(job: Any, steps: int) -> float:
    """The usual way."""
    import pytorch_lightning as pl
    from torch import nn
    from torch.utils.data import DataLoader
    from torchmetrics.classification import MulticlassAccuracy
    from torchvision import datasets, transforms

    class Digits(datasets.MNIST):  # items as torchvision reads them; the images are those of the framework's split
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.1307, 0.3081)])
        target_transform = None

        def __init__(self, rows: Any) -> None:
            self.data, self.targets = rows.images[rows.rows][:, 0], rows.labels[rows.rows]

    class Recipe(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.configure_optimizers = job.task.model, job.task.configure_optimizers
            self.accuracy = nn.ModuleDict({"fit": MulticlassAccuracy(10), "val": MulticlassAccuracy(10)})

        def training_step(self, batch: Any, batch_idx: int, split: str = "fit") -> Any:
            logits = self.model(batch[0])
            loss = nn.functional.cross_entropy(logits, batch[1])
            self.accuracy[split].update(logits, batch[1])
            self.log(f"{split}_loss", loss, prog_bar=True)
            self.log(f"{split}_accuracy", self.accuracy[split], on_step=False, on_epoch=True, prog_bar=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.training_step(batch, batch_idx, "val")

    train, val = (Digits(job.data.rows(split)[0]) for split in ("train", "val"))
    loaders = DataLoader(train, batch_size=128, shuffle=True, drop_last=True), DataLoader(val, batch_size=128)
    with redirect_stdout(SINK), redirect_stderr(SINK), patch.dict(os.environ, {NVML: "1"}):
        trainer = pl.Trainer(accelerator="cpu", max_steps=length(steps), logger=False, enable_checkpointing=False)
        return clocked(lambda: trainer.fit(Recipe(), *loaders), steps)


LOOPS = {"resnet18": ("torchvision", torchvision), "vgg11": ("torchvision", torchvision)}
LOOPS |= {"lstm": ("bare", padded), "transformer": ("bare", padded)}


def compare(case: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs one case's contenders in turns."""
    dataset, model, usual, least = CASES[case]
    extra, note = stand_in(dataset, folder)
    steps = options.steps or usual
    overrides = [f"dataset={dataset}", *model, *extra, f"output_dir={folder}"]
    beside, loop = LOOPS.get(case, ("bare", bare))
    contenders, targets = {beside: loop, **dict.fromkeys(options.logger, framework)}, {beside: least}
    if case == "epoch":
        contenders["recipe"], targets["recipe"] = recipe, RECIPE_TARGET
        overrides += [f"dataset.train_size={steps * 128}", f"dataset.validation={steps * 128 // 9}"]  # MNIST's 9 : 1
    else:
        overrides.append("trainer.limit_val_batches=0")
    rounds: list[dict[str, float]] = [{} for _ in range(options.repeats)]
    for seconds, (name, run) in product(rounds, contenders.items()):
        seconds[name] = run(make([*overrides, f"logger={name if run is framework else 'none'}"], steps), steps)
    a_step = {name: median(seconds[name] for seconds in rounds) / steps for name in contenders}
    result = {"case": case, "steps": steps, "note": note, "seconds": rounds, "a_step": a_step, "ratios": []}
    for name, (other, target) in product(options.logger, targets.items()):
        each = [seconds[other] / seconds[name] for seconds in rounds]
        ratio = {"contender": name, "beside": other, "target": target, "ratio": median(each), "rounds": each}
        result["ratios"].append(ratio)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--logger", nargs="+", choices=("wandb", "none"), default=["wandb"])
    parser.add_argument("--repeats", type=int, default=5, help="rounds of a case (default 5)")
    parser.add_argument("--steps", type=int, help="of a measurement (default: about 5 seconds of the bare loop)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    options = parser.parse_args()

    import torch
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = [compare(case, options, Path(folder)) for case in options.cases]
    table = Table("case", "contender", "beside", "ratio", "range", "target")
    for case, a_step, r in ((result["case"], result["a_step"], r) for result in results for r in result["ratios"]):
        each = [a_step[name] for name in (r["contender"], r["beside"])]
        speeds = [f"{x * 60_000 / 128:.2f} s" if case == "epoch" else f"{1 / x:.1f}/s" for x in each]
        names = case, f"{r['contender']} {speeds[0]}", f"{r['beside']} {speeds[1]}"
        verdict = "" if not r["target"] else f"{r['target']} {'met' if r['ratio'] >= r['target'] else 'missed'}"
        table.add_row(*names, f"{r['ratio']:.3f}", f"{min(r['rounds']):.3f} to {max(r['rounds']):.3f}", verdict)
    Console().print(table, *[r["note"] for r in results if r["note"]], sep="\n")
    if options.json:
        about = {"torch": torch.__version__, "machine": platform.platform(), "threads": 1}
        options.json.write_text(json.dumps({**about, "cases": results}, indent=2))


if __name__ == "__main__":
    main()
