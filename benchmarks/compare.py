"""How long it takes to compare many runs, on one thread.

python benchmarks/compare.py           reads and tabulates 1,000 runs of 1,000 logged rows
python benchmarks/compare.py report    the whole command for 500 small runs with 4,000 pictures: table, figures, page
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
RUNS, ROWS, ROUNDS = 1000, 1000, 3
SMALL_RUNS, SMALL_ROWS, STEPS = 500, 200, 8  # of the report; each run has a picture at so many steps, and a text
sys.path.insert(0, str(ROOT / "tests"))


def measure(folder: str) -> None:
    """Prints the seconds of this process: imports, reading (configs, summaries, all curves), the table."""
    start = time.perf_counter()
    from rich.console import Console

    from epochal.compare import table
    from epochal.compare.request import Request

    imported = time.perf_counter()
    comparison = Request(paths=(folder,), to=folder).compare()
    cells = sum(len(record.columns) for record in comparison.records)
    read = time.perf_counter()
    table.show(comparison, Console(file=io.StringIO(), width=120))
    shown = time.perf_counter()
    assert (len(comparison.records), cells) == (RUNS, RUNS * 14)
    print(imported - start, read - imported, shown - read)


def report() -> None:
    """Prints the seconds, the processor's seconds and the size of the page of compare.py on small runs."""
    import numpy as np
    from PIL import Image

    from helpers.run_folders import many

    with tempfile.TemporaryDirectory() as place:
        folder = many(Path(place) / "runs", SMALL_RUNS, SMALL_ROWS)
        tiles = np.random.default_rng(0).integers(0, 255, (32, 40, 3), np.uint8)
        stream = io.BytesIO()
        Image.fromarray(tiles).resize((720, 576), Image.Resampling.BICUBIC).save(stream, "PNG")
        for run in folder.iterdir():
            for step in range(1, STEPS + 1):
                (run / "pictures" / f"predictions_{10 * step:06}.png").write_bytes(stream.getvalue())
            (run / "pictures" / "test_samples.txt").write_text("To be or not to be\n" * 20)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(ROOT / "compare.py"), str(folder), f"to={place}/report"]
        print(f"compare.py on {SMALL_RUNS:,} runs with {SMALL_RUNS * STEPS:,} pictures:")
        for number in ("first", "again"):
            start, used = time.perf_counter(), sum(os.times()[2:4])
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            wall, processor = time.perf_counter() - start, sum(os.times()[2:4]) - used
            size = (Path(place) / "report" / "report.html").stat().st_size / 1e6
            print(f"  {number}: {wall:.1f} s, of the processor {processor:.1f} s; page {size:.2f} MB", flush=True)


def main() -> None:
    from helpers.run_folders import many

    with tempfile.TemporaryDirectory() as place:
        folder = many(Path(place) / "runs", RUNS, ROWS)
        size = sum(file.stat().st_size for file in folder.rglob("*.csv")) / 1e6
        print(f"{RUNS:,} runs of {ROWS:,} rows, {size:.0f} MB of metrics.csv; median of {ROUNDS} processes, seconds:")
        command = [sys.executable, __file__, str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        rounds = [
            [
                float(word)
                for word in subprocess.run(
                    command, capture_output=True, text=True, check=True, env=environment
                ).stdout.split()
            ]
            for _ in range(ROUNDS)
        ]
        for name, values in zip(("import", "read", "tabulate"), zip(*rounds)):
            print(f"  {name:9}{median(values):6.2f}")
        print(f"  {'in all':9}{median(map(sum, rounds)):6.2f}")


if __name__ == "__main__":
    if sys.argv[1:] == ["report"]:
        report()
    else:
        measure(sys.argv[1]) if len(sys.argv) > 1 else main()
