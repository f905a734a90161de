"""What the framework costs: its speed beside a bare PyTorch loop, and beside the usual Lightning recipe.

    python benchmarks/throughput.py                                   all, with the default logger: about a quarter of an hour
    python benchmarks/throughput.py --cases lenet gpt --logger wandb none --repeats 60 --json throughput.json

One thread on the CPU. Framework and bare loop are in training at the same time, in one process, and take turns after every
few steps: a ratio is of the same second or two, so that a machine whose speed changes cannot favour one of them. The
median of these ratios counts, beside it its 95 % interval. Quote the ratios, not the speeds. What W&B's own process
and threads do while the loop has its turn is charged to neither.

wandb, none  build(compose(...)) and job.fit() as in train.py, with that logger (W&B offline), run folder, metrics.csv
             and a progress bar drawn for a terminal. Without validations, but for the case `epoch`.
bare         The same network, memory layout (channels_last where the framework has it), optimiser, schedule and
             clipping, on normalised floats in memory. No metrics, no check for NaN, no augmentation even for cifar10.
torchvision  In `resnet18` and `vgg11` the bare loop trains torchvision's network instead of ours, in the same form for small
             images: ResNet-18 with a 3x3 stem of stride 1 and no pooling in it, VGG-11 with one layer after its features.
nanogpt      In `nanogpt` the bare loop is written like nanoGPT, with its network and its windows: see nanogpt.py.
transformers In `llama` and `bert` the bare loop trains the network of the library transformers, of the same sizes, from the same
             weights, `bert` on masked tokens in ready batches. They need the extra `parity`: run them in its environment,
             .venv-parity/bin/python benchmarks/throughput.py --cases llama bert.
padded       In `lstm` and `transformer` the bare loop has the framework's very batches, bucketed and padded, ready in
             memory: the ratio of steps is that of tokens.
recipe       torchvision's MNIST, ToTensor, Normalize and a shuffling DataLoader (no workers) into Lightning with its
             progress bar; torchmetrics updated and logged each step; network and optimiser as above.

Time runs from one optimiser step's end to a later one's. In `epoch`, whole runs take turns: a pass over MNIST and, but for
bare, a validation, scaled to 60,000 images. Data as train.py finds it, else random numbers of that shape.
"""

import argparse
import gc
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import cycle, islice, product
from math import comb
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from startup import stand_in

os.environ |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}  # torch is imported later

MLP = ["model=mlp", "model.hidden=[64,128,64]"]
WINDOWS = ["dataset.batch_size=12", "dataset.context_length=64"]  # as of gpt and llama
# data, model, steps of about a second, least ratio to bare
CASES: dict[str, tuple[str, list[str], int, float | None]] = {
    "lenet": ("mnist", ["model=lenet"], 50, 0.90),
    "resnet": ("cifar10", ["model=resnet", "model.depth=20"], 2, 0.97),
    "resnet18": ("cifar10", ["model=resnet", "model.depth=18", "dataset.batch_size=32"], 2, 0.97),
    "vgg11": ("cifar10", ["model=vgg", "model.depth=11", "dataset.batch_size=32"], 2, 0.97),
    "gpt": ("shakespeare", ["model=gpt"], 20, 0.97),
    "nanogpt": ("shakespeare", ["model=gpt"], 20, 1.0),
    "llama": ("shakespeare", ["model=llama"], 20, 0.97),
    "bert": ("shakespeare", ["model=bert", "task=masked_lm", *WINDOWS], 20, 0.97),
    "lstm": ("sst2", ["model=lstm"], 50, 0.97),
    "transformer": ("multi30k", ["model=transformer"], 2, 0.97),
    "mlp": ("mnist", MLP, 300, None),
    "epoch": ("mnist", MLP, 421, None),
}
EXTRA = ("llama", "bert")  # need transformers
RECIPE_TARGET = 10  # times as fast as the recipe
NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"  # importing Lightning sets it to 1, which costs each optimiser step 0.1 ms
SINK = open(os.devnull, "w")  # noqa: SIM115  # as long as the process lives


def make(overrides: list[str], steps: int) -> Any:
    """A run of the framework, of so many steps."""
    from rich.console import Console

    from epochal.config.compose import compose
    from epochal.training.build import build

    overrides = [*overrides, "trainer=cpu", f"duration={steps}steps"]
    config = compose(overrides)
    return build(config, console=Console(file=SINK, force_terminal=True, width=100))


def in_turns(job: Any, loop: Iterator[None], steps: int) -> list[tuple[float, float]]:
    """Trains with the framework and, after every few steps of it, as many of the loop. Seconds of so many steps of both."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    few = max(1, steps // 5)
    turns: list[tuple[float, float]] = []
    taken, began, resting = 0, time.perf_counter(), False

    def after_step(*_: Any) -> None:
        nonlocal taken, began, resting
        if resting:  # the loop's own optimiser calls this too
            return
        taken += 1
        if taken % few == 0:
            ended, resting = time.perf_counter(), True
            for _ in range(few):
                next(loop)
            turns.append((ended - began, time.perf_counter() - ended))
            began, resting = time.perf_counter(), False

    gc.collect()
    hook = register_optimizer_step_post_hook(after_step)
    job.fit()
    hook.remove()
    job.report()  # ends the W&B run
    size = steps // few
    parts = [
        turns[i : i + size] for i in range(size, len(turns), size)
    ]  # the first is a warm-up: W&B opens, caches fill
    return [(sum(ours for ours, _ in part), sum(theirs for _, theirs in part)) for part in parts]


def clocked(run: Callable[[], Any], steps: int) -> float:
    """Seconds of a run's last steps, so many."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    gc.collect()
    ticks: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: ticks.append(time.perf_counter()))
    run()
    hook.remove()
    return ticks[-1] - ticks[-1 - steps]


def torchvision(job: Any) -> Iterator[None]:
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
    return bare(job)


def nanogpt(job: Any) -> Iterator[None]:
    """A loop written like nanoGPT, on the same text."""
    import nanogpt as written
    import numpy as np

    config = job.config.dataset
    assert (config.batch_size, config.context_length) == (written.BATCH, written.BLOCK)
    ids = job.data.rows("train")[0].tokens.numpy().astype(np.uint16)
    return written.train(ids, job.task.model.embed.num_embeddings)


def transformers(job: Any) -> Iterator[None]:
    """A plain loop with the network of the library transformers in place of ours: of the next token, or of masked ones."""
    import torch
    from torch.nn.functional import cross_entropy

    from epochal.core.specs import IGNORED
    from epochal.models.pretrained.huggingface_save import save

    with tempfile.TemporaryDirectory() as folder:
        from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

        save(job.task.model, folder)
        masked = job.config.model.name == "bert"
        theirs: Any = (AutoModelForMaskedLM if masked else AutoModelForCausalLM).from_pretrained(folder).train()
    assert len({sum(p.numel() for p in model.parameters()) for model in (job.task.model, theirs)}) == 1
    task, job.task.model = job.task, theirs
    _, optimizer, schedule, clip = learners(job)
    # whose tokenizer and rank the masks need
    task.trainer = type("Trainer", (), {"datamodule": job.data, "global_rank": 0})()
    loader, batches = job.data.train_dataloader(), []
    for batch in islice(iter(loader), 200):
        inputs, targets = batch.inputs, batch.targets
        if masked:
            chosen = task.chosen(batch)
            inputs, targets = task.corrupted(batch, chosen), inputs.masked_fill(~chosen, IGNORED)
        batches.append((inputs, targets))

    def loop() -> Iterator[None]:
        for inputs, targets in cycle(batches):
            logits = theirs(input_ids=inputs).logits
            cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            yield

    return loop()


def bare(job: Any) -> Iterator[None]:
    """A plain loop over ready tensors, a step each time it is asked for one."""
    import torch
    from torch.nn.functional import cross_entropy

    from epochal.data.batching import BatchIndices

    model, optimizer, schedule, clip = learners(job)
    size = job.config.dataset.batch_size
    rows, count = job.data.rows("train")
    batch = rows[BatchIndices(torch.arange(count), seed=0)]  # all of it, as the framework cuts and normalises it
    inputs, targets, *_ = job.data.on_after_batch_transfer(batch, 0)
    if images := inputs.dim() == 4:
        inputs = inputs.permute(0, 2, 3, 1).contiguous()  # (N, H, W, C), so that a batch is channels_last at once

    def loop() -> Iterator[None]:
        batches: list[torch.Tensor] = []
        while True:
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
            yield

    return loop()


def padded(job: Any) -> Iterator[None]:
    """The plain loop over ready batches of sentences, or of pairs of them."""
    from torch.nn import functional
    from torch.nn.utils import clip_grad_norm_

    from epochal.core.specs import PAD

    model, optimizer, schedule, clip = learners(job)
    smoothing = job.config.task.get("label_smoothing", 0.0)
    loader, batches = job.data.train_dataloader(), []
    for epoch in range(1 + job.task.total_steps // len(loader)):
        loader.sampler.set_epoch(epoch)
        batches += list(loader)

    def loop() -> Iterator[None]:
        for inputs, targets, _, lengths in batches:
            if targets.dim() == 2:  # BEGIN, words, END, padding
                logits, targets = model(inputs, targets[:, :-1], lengths).flatten(0, 1), targets[:, 1:].flatten()
                loss = functional.cross_entropy(logits, targets, ignore_index=PAD, label_smoothing=smoothing)
            else:
                loss = functional.cross_entropy(model(inputs, lengths), targets, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            if clip:
                clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()
            yield

    return loop()


def padding(job: Any) -> str:
    """Which share of the positions in an epoch's batches is padding."""
    from epochal.core.specs import PAD

    padded = there = 0
    for inputs, targets, _, lengths in job.data.train_dataloader():
        there += inputs.numel() + (targets.numel() if targets.dim() == 2 else 0)
        padded += inputs.numel() - int(lengths.sum()) + (int((targets == PAD).sum()) if targets.dim() == 2 else 0)
    return f"{job.config.dataset.name}: {padded / there:.1%} of the positions are padding."


def learners(job: Any) -> tuple[Any, Any, Any, float | None]:
    """Network, optimiser, schedule and the clipping of gradients, as the framework has them."""
    configured = job.task.configure_optimizers()
    schedule = configured["lr_scheduler"]["scheduler"]
    return job.task.model, configured["optimizer"], schedule, job.config.trainer.gradient_clip_val


def recipe(job: Any, steps: int, total: int) -> float:
    """The usual way. Seconds of the last steps, so many, of a total."""
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
        trainer = pl.Trainer(accelerator="cpu", max_steps=total, logger=False, enable_checkpointing=False)
        return clocked(lambda: trainer.fit(Recipe(), *loaders), steps)


LOOPS = {"resnet18": ("torchvision", torchvision), "vgg11": ("torchvision", torchvision)}
LOOPS |= {"nanogpt": ("nanoGPT", nanogpt)}
LOOPS |= {name: ("transformers", transformers) for name in ("llama", "bert")}
LOOPS |= {"lstm": ("bare", padded), "transformer": ("bare", padded)}


def compare(case: str, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Seconds of a case's contenders and of what they are beside, turn by turn."""
    dataset, model, usual, least = CASES[case]
    extra, note = stand_in(dataset, folder)
    steps = options.steps or usual
    steps -= steps % max(1, steps // 5)  # whole turns
    overrides = [f"dataset={dataset}", *model, *extra, f"output_dir={folder}"]
    if case == "epoch":
        return epochs(overrides, steps, options, note)
    overrides.append("trainer.limit_val_batches=0")
    beside, loop = LOOPS.get(case, ("bare", bare))
    total, results = (options.repeats + 1) * steps, []
    for logger in options.logger:
        jobs = [make([*overrides, f"logger={name}"], total) for name in (logger, "none")]
        seconds = in_turns(jobs[0], loop(jobs[1]), steps)
        results.append({"contender": logger, "beside": beside, "target": least, "seconds": seconds})
    note = " ".join(filter(None, (note, padding(jobs[1]) if loop is padded else None)))
    return [{"case": case, "steps": steps, "note": note, **result} for result in results]


def epochs(overrides: list[str], steps: int, options: argparse.Namespace, note: str) -> list[dict[str, Any]]:
    """As `compare`, but whole runs take turns: a pass over MNIST and a validation."""
    overrides += [f"dataset.train_size={steps * 128}", f"dataset.validation={steps * 128 // 9}"]  # MNIST's 9 : 1
    total = 55 + steps  # a warm-up with the first row of metrics, which opens W&B

    def run(name: str) -> float:
        job = make([*overrides, f"logger={name if name in options.logger else 'none'}"], total)
        if name in options.logger:
            seconds = clocked(job.fit, steps)
            job.report()
            return seconds
        if name == "recipe":
            return recipe(job, steps, total)
        return clocked(lambda: [*islice(bare(job), total)], steps)

    rounds = [
        {name: run(name) for name in ("bare", *options.logger, "recipe")} for _ in range(max(options.repeats // 6, 1))
    ]
    result = {"case": "epoch", "steps": steps, "note": note}
    return [
        {
            **result,
            "contender": name,
            "beside": beside,
            "target": target,
            "seconds": [(r[name], r[beside]) for r in rounds],
        }
        for name, (beside, target) in product(options.logger, (("bare", None), ("recipe", RECIPE_TARGET)))
    ]


def interval(values: list[float]) -> tuple[float, float]:
    """Of the median, with 95 % confidence at least; with less than six values the range."""
    ordered, count, rank = sorted(values), len(values), 0
    while 2 * sum(comb(count, k) for k in range(rank + 1)) <= 0.05 * 2**count:
        rank += 1
    rank = max(rank - 1, 0)
    return ordered[rank], ordered[-1 - rank]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=[c for c in CASES if c not in EXTRA])
    parser.add_argument("--logger", nargs="+", choices=("wandb", "none"), default=["wandb"])
    parser.add_argument("--repeats", type=int, default=30, help="turns of a case (default 30); of `epoch` a sixth")
    parser.add_argument("--steps", type=int, help="of a turn (default: about a second)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    options = parser.parse_args()

    import torch
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = [result for case in options.cases for result in compare(case, options, Path(folder))]
    table = Table("case", "contender", "beside", "ratio", "95 % interval", "turns", "target")
    for r in results:
        speeds = []
        for name, each in zip((r["contender"], r["beside"]), zip(*r["seconds"])):
            a_step = median(each) / r["steps"]
            speeds.append(
                f"{name} " + (f"{a_step * 60_000 / 128:.2f} s" if r["case"] == "epoch" else f"{1 / a_step:.1f}/s")
            )
        ratios = [other / ours for ours, other in r["seconds"]]
        r["ratio"], r["interval"] = median(ratios), interval(ratios)
        verdict = "" if not r["target"] else f"{r['target']} {'met' if r['ratio'] >= r['target'] else 'missed'}"
        low, high = r["interval"]
        table.add_row(r["case"], *speeds, f"{r['ratio']:.3f}", f"{low:.3f} to {high:.3f}", f"{len(ratios)}", verdict)
    Console().print(table, *dict.fromkeys(r["note"] for r in results if r["note"]), sep="\n")
    if options.json:
        about = {"torch": torch.__version__, "machine": platform.platform(), "threads": 1}
        options.json.write_text(json.dumps({**about, "cases": results}, indent=2))


if __name__ == "__main__":
    main()
