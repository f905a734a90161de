"""How long it takes to read and tabulate 1,000 runs of 1,000 logged rows, on one thread.

python benchmarks/compare.py
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
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
