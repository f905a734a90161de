"""Two runs at once with launcher=joblib, beside the same two one after the other.

    python benchmarks/parallel.py                                     some 10 minutes on 2 cores
    python benchmarks/parallel.py --steps 50 --repeats 1              does it run at all?
    python benchmarks/parallel.py --repeats 9 --json parallel.json    for a noisy machine

Each measurement is a fresh process, by the wall clock from its launch to its end: start, checks, data from the cache, two
runs of one thread (validation, test, pictures, run folder, W&B offline) and the table at the end. The contenders take turns
(A B A B ...), and the median of the rounds' ratios counts: quote the ratio, not the seconds. Nothing else may run.

at once    python train.py -m seed=1,2 launcher=joblib hydra.launcher.n_jobs=2
in turn    the same with launcher=basic, in one process: imports are paid once

The network is ResNet-8 at batch 128, on digits enlarged to CIFAR-10's 32x32; a run takes a minute or more.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).absolute().parents[1]
TARGET = 1.7  # times sooner, on 2 cores
CONTENDERS = {"in turn": ("launcher=basic",), "at once": ("launcher=joblib", "hydra.launcher.n_jobs=2")}


def grid(launcher: tuple[str, ...], steps: int, folder: Path) -> float:
    """Seconds of a grid of two runs in a fresh process."""
    network = ("model=resnet", "model.depth=8", "dataset=digits", "dataset.image_size=32", "dataset.batch_size=128")
    run = ("threads=1", "trainer=cpu", f"duration={steps}steps", f"output_dir={folder}")
    command = [sys.executable, str(ROOT / "train.py"), "-m", "seed=1,2", *network, *run, *launcher]
    environment = {**os.environ, "WANDB_MODE": "offline"}
    environment.pop("OMP_NUM_THREADS", None)  # threads=1 is what a person would say
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count (default 3)")
    parser.add_argument("--steps", type=int, default=600, help="of a run (default 600, about a minute)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    options = parser.parse_args()

    from rich.console import Console
    from rich.table import Table

    with tempfile.TemporaryDirectory() as name:
        grid(CONTENDERS["at once"], 2, Path(name))  # fills the caches
        rounds = [
            {label: grid(launcher, options.steps, Path(name)) for label, launcher in CONTENDERS.items()}
            for _ in range(options.repeats)
        ]
    ratios = [seconds["in turn"] / seconds["at once"] for seconds in rounds]
    table = Table("two runs", "seconds", "ratio", "range", "target")
    for label in CONTENDERS:
        seconds = f"{median(r[label] for r in rounds):.1f}"
        if label == "in turn":
            table.add_row(label, seconds)
        else:
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            verdict = "met" if median(ratios) >= TARGET else "missed"
            table.add_row(label, seconds, f"{median(ratios):.2f}", spread, f"{TARGET} {verdict}")
    Console().print(table, f"{os.cpu_count()} cores, {options.steps} steps a run", sep="\n")
    if options.json:
        about = {"cores": os.cpu_count(), "machine": platform.platform(), "steps": options.steps}
        options.json.write_text(json.dumps({**about, "target": TARGET, "rounds": rounds, "ratios": ratios}, indent=2))


if __name__ == "__main__":
    main()
