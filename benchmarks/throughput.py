"""What the framework costs: its speed beside a bare PyTorch loop, and beside the usual Lightning recipe.

    python benchmarks/throughput.py                              all, with the default logger: about 15 minutes
    python benchmarks/throughput.py --cases lenet gpt --logger wandb none --repeats 9 --json throughput.json

One thread on the CPU. The contenders take turns (A B A B ...) and the median of their neighbours' ratios counts: quote
the ratios, not the speeds. "CPU" is the same ratio in CPU time; where the two differ much, the machine was busy.

wandb, none  build(compose(...)) and job.fit() as in train.py, with that logger, run folder, metrics.csv and a progress
             bar drawn for a terminal. Without validations, but for the case `epoch`.
bare         The same network in the same memory layout (channels_last where the framework has it), optimiser and
             schedule, on floats ready in memory: gather, forward, loss, zero_grad, backward, clip where the config
             does, step. No metrics, no check for NaN, and no augmentation, though the framework has it for cifar10.
recipe       torchvision's MNIST with ToTensor and Normalize through a shuffling DataLoader (no workers) into Lightning
             with its progress bar; torchmetrics updated and logged each step; network and optimiser as above.

Time runs from the end of one optimiser step to the end of a later one, by the same hook for all. In `epoch` that is a
pass over MNIST and, but for bare, one validation with all that belongs to it; seconds are scaled to 60,000 images. Data
as train.py finds it, else random numbers of the same shape.
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
    "gpt": ("shakespeare", ["model=gpt"], 100, 0.97),
    "mlp": ("mnist", MLP, 1500, None),
    "epoch": ("mnist", MLP, 421, None),
}
RECIPE_TARGET = 10  # times as fast as the recipe
NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"  # importing Lightning sets it to 1, which costs each optimiser step 0.1 ms
WARM_UP = 5  # steps before the clock
SINK = open(os.devnull, "w")  # noqa: SIM115  # as long as the process lives


def make(overrides: list[str], steps: int) -> Any:
    """A run of the framework, of so many steps after the warm-up."""
    from rich.console import Console

    from epochal.build import build
    from epochal.cli import compose

    overrides = [*overrides, "trainer=cpu", f"duration={WARM_UP + steps + 1}steps", f"log_every={min(50, steps)}"]
    config = compose(overrides, "train", Path(__file__).absolute().parents[1] / "conf")
    return build(config, console=Console(file=SINK, force_terminal=True, width=100))


def clocked(run: Callable[[], Any], steps: int) -> list[float]:
    """Wall and CPU seconds of so many steps after the warm-up."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    gc.collect()
    ticks: list[tuple[float, float]] = []
    hook = register_optimizer_step_post_hook(lambda *_: ticks.append((time.perf_counter(), time.process_time())))
    run()
    hook.remove()
    return [end - start for start, end in zip(ticks[WARM_UP], ticks[WARM_UP + steps], strict=True)]


def framework(job: Any, steps: int) -> list[float]:
    """The way train.py does it."""
    seconds = clocked(job.fit, steps)
    job.report()  # ends the W&B run
    return seconds


def bare(job: Any, steps: int) -> list[float]:
    """A plain loop over ready tensors."""
    import torch
    from torch.nn.functional import cross_entropy

    configured = job.task.configure_optimizers()
    model, optimizer, schedule = job.task.model, configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    clip, size = job.config.trainer.gradient_clip_val, job.config.dataset.batch_size
    rows, count = job.data.rows("train")
    if job.config.task.name == "language_modeling":
        windows = rows.tokens.long().unfold(0, rows.length + 1, rows.length)  # (N, T + 1)
        inputs, targets = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
    else:
        inputs, targets = job.data.normalise(rows.images[rows.rows]), rows.labels[rows.rows]
        inputs = inputs.permute(0, 2, 3, 1).contiguous()  # (N, H, W, C), so that a batch is channels_last at once

    def loop() -> None:
        batches: list[torch.Tensor] = []
        for _ in range(WARM_UP + steps + 1):
            batches = batches or list(torch.randperm(count).split(size)[: count // size])
            index = batches.pop()
            batch = inputs[index]
            logits = model(batch.permute(0, 3, 1, 2) if batch.dim() == 4 else batch)
            loss = cross_entropy(logits.flatten(0, -2), targets[index].flatten())
            optimizer.zero_grad()
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()

    with patch.dict(os.environ, {NVML: "0"}):
        return clocked(loop, steps)


def recipe(job: Any, steps: int) -> list[float]:
    """The usual way."""
    import pytorch_lightning as pl
    from torch import nn
    from torch.utils.data import DataLoader
    from torchmetrics.classification import MulticlassAccuracy
    from torchvision.datasets import MNIST, VisionDataset
    from torchvision.transforms import Compose, Normalize, ToTensor

    class Digits(MNIST):  # as torchvision reads an item; the images are those of the framework's split
        def __init__(self, split: str) -> None:
            VisionDataset.__init__(self, "", transform=Compose([ToTensor(), Normalize(0.1307, 0.3081)]))
            rows, _ = job.data.rows(split)
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

    train = DataLoader(Digits("train"), batch_size=128, shuffle=True, drop_last=True)
    val = DataLoader(Digits("val"), batch_size=128)
    arguments = {"accelerator": "cpu", "logger": False, "default_root_dir": job.run.folder, "max_epochs": -1}
    with redirect_stdout(SINK), redirect_stderr(SINK), patch.dict(os.environ, {NVML: "1"}):
        trainer = pl.Trainer(**arguments, max_steps=WARM_UP + steps + 1)
        return clocked(lambda: trainer.fit(Recipe(), train, val), steps)


def compare(case: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs one case's contenders in turns; seconds are [wall, CPU] by contender and round."""
    dataset, model, usual, least = CASES[case]
    extra, note = stand_in(dataset, folder)
    steps = options.steps or usual
    overrides = [f"dataset={dataset}", *model, *extra, f"output_dir={folder}"]
    contenders = {"bare": bare, **dict.fromkeys(options.logger, framework)}
    if case == "epoch":
        contenders["recipe"] = recipe
        overrides += [f"dataset.train_size={steps * 128}", f"dataset.validation={steps * 128 // 9}"]  # MNIST's 9 : 1
    else:
        overrides.append("trainer.limit_val_batches=0")
    rounds: list[dict[str, list[float]]] = [{} for _ in range(options.repeats)]
    for seconds in rounds:
        for name, run in contenders.items():
            job = make([*overrides, f"logger={name if name in options.logger else 'none'}"], steps)
            seconds[name] = run(job, steps)
    ratios = []
    for name in options.logger:
        for other, target in {"bare": least, "recipe": RECIPE_TARGET}.items():
            if other in contenders:
                wall, cpu = ([r[other][clock] / r[name][clock] for r in rounds] for clock in (0, 1))
                numbers = {"ratio": median(wall), "range": [min(wall), max(wall)], "cpu": median(cpu)}
                ratios.append({"contender": name, "beside": other, "target": target, **numbers})
    a_step = {name: median(r[name][0] for r in rounds) / steps for name in contenders}
    return {"case": case, "steps": steps, "note": note, "a_step": a_step, "ratios": ratios, "seconds": rounds}


def rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The table's."""
    for r in result["ratios"]:
        epoch = result["case"] == "epoch"
        speed, its = (
            f"{seconds * 60_000 / 128:.2f} s" if epoch else f"{1 / seconds:.1f}/s"
            for seconds in (result["a_step"][r["contender"]], result["a_step"][r["beside"]])
        )
        verdict = "" if r["target"] is None else "met" if r["ratio"] >= r["target"] else "[red]missed[/]"
        spread = f"{r['range'][0]:.3f} to {r['range'][1]:.3f}"
        names = result["case"], f"{r['contender']} {speed}", f"{r['beside']} {its}"
        yield *names, f"{r['ratio']:.3f}", spread, f"{r['cpu']:.3f}", f"{r['target'] or ''} {verdict}"


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
    console, results = Console(), []
    table = Table("case", "contender", "beside", "ratio", "range", "CPU", "target")
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases:
            console.print(f"{case}: {options.repeats} rounds", style="dim")
            results.append(compare(case, options, Path(folder)))
            for row in rows(results[-1]):
                table.add_row(*row)
    console.print(table, *[r["note"] for r in results if r["note"]], sep="\n")
    if options.json:
        about = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.platform()}
        options.json.write_text(json.dumps({**about, "threads": 1, "cases": results}, indent=2))


if __name__ == "__main__":
    main()
