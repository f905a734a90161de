"""How long a person waits: from launch to the first optimiser step, for --help and for --cfg job.

    python benchmarks/startup.py                                   2 minutes
    python benchmarks/startup.py --repeats 9 --json startup.json   for a noisy machine
    python benchmarks/startup.py --profile                         the slowest imports on the way to the first step

Every measurement is a fresh process, by the wall clock from its launch to the moment after its first optimiser step (or
its end), with one thread, W&B offline, and files and cache warm from a round that does not count. The contenders take
turns (A B C A B C ...) and the median of their ratios counts: quote the ratio, not the seconds.

train.py   python train.py model=lenet dataset=mnist, to the letter, but for the outputs folder; and with logger=none; and
           to step 51, because the first row of metrics, at step 50, opens W&B.
reference  Imports torch, pytorch_lightning, hydra and wandb, and takes one step of a network like LeNet on random numbers.

Data as train.py finds it (EPOCHAL_DATA, or the Hub), else random numbers of the same shape.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).absolute().parents[1]
HEAVY = ("torch", "pytorch_lightning", "torchvision", "wandb", "datasets", "pandas", "pyarrow", "scipy", "sklearn")
HEAVY += ("matplotlib", "tensorboard")
RATIO = 1.3  # target for the first step, to the reference's
SECONDS = 1.0  # target for --help and --cfg job

# Runs a script as python would, for so many optimiser steps or to its end; then tells when that was and what is loaded.
RUNNER = """
import os, runpy, sys, time
report, steps, heavy = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
sys.argv = sys.argv[4:]
sys.path[0] = os.path.dirname(sys.argv[0])
def tell(*_):
    global steps
    now, steps = time.time(), steps - 1
    if steps > 0:
        return
    with open(report, "w") as stream:
        print(now, *[name for name in heavy if name in sys.modules], file=stream)
    if steps == 0:
        sys.stderr.flush()
        os._exit(0)
if steps:
    from torch.optim.optimizer import register_optimizer_step_post_hook
    register_optimizer_step_post_hook(tell)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    if steps <= 0:
        tell()
"""

REFERENCE = """
import hydra, pytorch_lightning, torch, wandb
from torch import nn
model = nn.Sequential(nn.Conv2d(1, 6, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(),
                      nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
optimizer = torch.optim.AdamW(model.parameters())
nn.functional.cross_entropy(model(torch.randn(128, 1, 32, 32)), torch.randint(10, (128,))).backward()
optimizer.step()
"""


def stand_in(dataset: str, folder: Path) -> tuple[list[str], str | None]:
    """What to add where the data cannot be found: random numbers of the same shape, and a sentence that says so."""
    name = {"shakespeare": "tiny_shakespeare"}.get(dataset, dataset)
    if (Path(os.environ.get("EPOCHAL_DATA", os.devnull)) / name).exists():
        return [], None
    import numpy as np

    from epochal.core.hub import hub_is_reachable

    if hub_is_reachable():
        return [], None
    random = np.random.default_rng(0)
    if dataset == "shakespeare":
        file = folder / "random.txt"
        file.write_bytes(random.integers(32, 97, 1_115_394, dtype=np.uint8).tobytes())
    elif dataset in ("sst2", "multi30k"):
        file = folder / dataset
        _random_sentences(random, file, dataset)
    else:
        file, shape = folder / f"{dataset}.npz", (70_000, 28, 28) if dataset == "mnist" else (60_000, 3, 32, 32)
        images = random.integers(256, size=shape, dtype=np.uint8)
        np.savez(file, images=images, labels=random.integers(10, size=len(images)))
    return [
        f"dataset.path={file}"
    ], f"{dataset} is not in EPOCHAL_DATA nor at hand from the Hub: random numbers instead."


def _random_sentences(random: Any, folder: Path, dataset: str) -> None:
    """As many as there are, of words drawn as in a language, few often and many seldom; as long as those are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def sentences(count: int, words: float) -> list[str]:
        return [" ".join(f"w{n}" for n in random.zipf(1.3, 1 + random.poisson(words)) % 20_000) for _ in range(count)]

    folder.mkdir(exist_ok=True)
    for split, count in (("train", 67_349 if dataset == "sst2" else 29_000), ("validation", 872)):
        if dataset == "sst2":
            columns: dict[str, Any] = {"sentence": sentences(count, 8.4), "label": random.integers(2, size=count)}
        else:
            columns = {language: sentences(count, 11) for language in ("de", "en")}
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")


def launch(arguments: list[str], steps: int, folder: Path, *flags: str) -> dict[str, Any]:
    """Runs a script in a fresh process for so many steps, or to its end if 0: seconds, heavy modules, what it wrote."""
    report, errors = folder / "report.txt", folder / "errors.txt"
    report.unlink(missing_ok=True)
    command = [sys.executable, *flags, "-c", RUNNER, str(report), str(steps), ",".join(HEAVY), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    with errors.open("w") as stream:
        started = time.time()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=stream, start_new_session=True
        )
        process.wait()
        ended = time.time()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)  # W&B's helper, which the step's sudden end leaves behind
    if not report.exists():
        sys.exit(f"{' '.join(arguments)} did not get that far:\n{errors.read_text()}")
    moment, *modules = report.read_text().split()
    seconds = (float(moment) if steps else ended) - started
    return {"seconds": seconds, "modules": modules, "errors": errors.read_text()}


def slowest_imports(trace: str, count: int = 15) -> list[tuple[str, float]]:
    """Packages by the milliseconds of all their modules together, from what `python -X importtime` wrote."""
    spent: Counter[str] = Counter()
    for line in trace.splitlines():
        own, _, name = line.removeprefix("import time:").split("|") if line.count("|") == 2 else ("", "", "")
        if own.strip().isdigit():
            spent[name.strip().split(".")[0]] += int(own)
    return [(name, microseconds / 1000) for name, microseconds in spent.most_common(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (default 5)")
    parser.add_argument("--profile", action="store_true", help="print the 15 slowest packages to import, and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    options = parser.parse_args()

    from rich.console import Console
    from rich.table import Table

    console = Console()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        reference, train = folder / "reference.py", str(ROOT / "train.py")
        reference.write_text(REFERENCE)
        extra, note = stand_in("mnist", folder)
        lenet = [train, "model=lenet", "dataset=mnist", f"output_dir={folder}", *extra]
        contenders: dict[str, tuple[list[str], int]] = {
            "reference": ([str(reference)], 1),
            "model=lenet dataset=mnist": (lenet, 1),
            "model=lenet dataset=mnist logger=none": ([*lenet, "logger=none"], 1),
            "the same, to step 51": (lenet, 51),
            "--help": ([train, "--help"], 0),
            "--cfg job": ([train, "--cfg", "job"], 0),
        }
        if options.profile:
            for label in ("reference", "model=lenet dataset=mnist"):
                launch(*contenders[label], folder)
                table = Table("package", "ms", title=f"{label}: its own modules' import time")
                for package, milliseconds in slowest_imports(
                    launch(*contenders[label], folder, "-X", "importtime")["errors"]
                ):
                    table.add_row(package, f"{milliseconds:.0f}")
                console.print(table)
            return
        rounds = [{label: launch(*c, folder) for label, c in contenders.items()} for _ in range(options.repeats + 1)][
            1:
        ]

    if note:
        console.print(note)
    table = Table("train.py ...", "seconds", "lowest to highest", "ratio", "target", "heavy imports")
    results = []
    for label in contenders:
        seconds = [r[label]["seconds"] for r in rounds]
        ratio = median(r[label]["seconds"] / r["reference"]["seconds"] for r in rounds)
        measured, target = {0: (median(seconds), SECONDS), 1: (ratio, RATIO)}.get(contenders[label][1], (0, None))
        modules = rounds[0][label]["modules"]
        results.append({"run": label, "seconds": seconds, "ratio": ratio, "target": target, "modules": modules})
        verdict = (
            ""
            if target is None or label == "reference"
            else f"{target} {'met' if measured <= target else '[red]missed[/]'}"
        )
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        table.add_row(label, f"{median(seconds):.2f}", spread, f"{ratio:.2f}", verdict, " ".join(modules) or "none")
    console.print(table)
    if options.json:
        about = {"python": platform.python_version(), "machine": platform.platform(), "note": note}
        options.json.write_text(json.dumps({**about, "runs": results}, indent=2))


if __name__ == "__main__":
    main()
