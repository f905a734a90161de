"""How much slower a training of points is for being watched on the lab's playground, and how many frames a second it shows.

    python benchmarks/lab_playground.py                     six trainings of 5,000 steps, in turns: two minutes
    python benchmarks/lab_playground.py --pairs 10 --json lab_playground.json

Each pair is a training without and one with frames, in processes of their own; the ratio of a pair is that of their times for all
steps, without validations, as their summaries have it. One thread on the CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

TRAINING = [
    *("model=mlp", "model.hidden=[8,8]", "model.activation=tanh", "dataset=points", "dataset.train_size=300"),
    *("dataset.validation=200", "scheduler=constant", "optimizer.lr=0.01", "logger=none", "threads=1"),
    *("trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=500"),
]
BATCH = 32  # of the data set
TARGET = 1.10  # times the time of a training that is not watched


def trained(steps: int, watched: bool) -> tuple[float, int]:
    """Seconds of a training, and how many frames it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames"
        frames.mkdir()
        environment = {**os.environ, **({"EPOCHAL_WATCH": str(frames)} if watched else {})}
        command = [
            sys.executable,
            "-m",
            "epochal",
            "train",
            *TRAINING,
            f"duration={steps}steps",
            f"output_dir={folder}/o",
        ]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        (summary,) = Path(folder).glob("o/runs/*/summary.json")
        shown = json.loads((frames / "frame.json").read_text())["frames"] if watched else 0
        return steps * BATCH / json.loads(summary.read_text())["examples_per_second"], shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ratios, rates = [], []
    for pair in range(options.pairs):
        order = (False, True) if pair % 2 == 0 else (True, False)  # so that a drift of the machine does not count
        found = {watched: trained(options.steps, watched) for watched in order}
        ratios.append(found[True][0] / found[False][0])
        rates.append(found[True][1] / found[True][0])
        print(
            f"pair {pair + 1}: {found[False][0]:.1f} s alone, {found[True][0]:.1f} s watched, ratio {ratios[-1]:.3f}, "
            f"{rates[-1]:.1f} frames/s",
            flush=True,
        )
    result = {"ratio": median(ratios), "frames_per_second": median(rates), "target_ratio": TARGET}
    print(
        f"median: {result['ratio']:.3f} times the time (at most {TARGET}), {result['frames_per_second']:.1f} frames/s"
    )
    if options.json:
        options.json.write_text(json.dumps({**result, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
