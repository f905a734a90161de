"""How much memory a run takes: the peak of its first start, which decodes or tokenises, and of its second, from the cache.

    python benchmarks/memory.py                                     all cases at full size: about 20 minutes
    python benchmarks/memory.py --cases images characters           those with a target
    python benchmarks/memory.py --fraction 0.1 --json memory.json   a tenth of each
    python benchmarks/memory.py --checkout ../older                 another version, with the same inputs

Every start is a process of its own: an epoch of a tiny network on images, a few steps on texts, no logger, a new cache.
The peak is its resident memory (VmHWM of Linux), which counts the pages of the cached arrays that it has touched; "own"
is the peak without these (RssAnon). The arrays are what the first start has written into the cache.

images      20,000 JPEGs of 224 pixels in folders of classes, of 200 distinct ones
parquet     the same within one file
npz         the same as pixels
characters  200 MB of English as characters; unicode: 200 MB of Korean, English and emoji
bpe         50 MB of English as byte pairs; bytes: 200 MB as bytes
words       1,000,000 rows of CSV with a class each, as words; pairs: 200,000 rows of two languages, as byte pairs
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).absolute().parents[1]
DISTINCT, CLASSES, SIDE = 200, 10, 224
OVER_ARRAYS = {"images": (1500, 500), "parquet": (1500, 500), "npz": (1500, 500)}  # MB; first and second start
ALTOGETHER = {"characters": 1500, "unicode": 1500}  # MB, of the first start
TEXT = ("dataset=text", "model=gpt", "model.depth=1", "duration=5steps")
FEW = ("trainer.limit_val_batches=2", "trainer.limit_test_batches=2")
IMAGE = ("dataset=images", "model=mlp", "model.hidden=[8]", "duration=1epochs", "dataset.eval_batch_size=128")
HELD_OUT = ("duration=5steps", "dataset.validation=500", "dataset.test=500")
SENTENCES = ("dataset=sentences", "model=gru", *HELD_OUT)
PAIRS = ("dataset=pairs", "dataset.source=de", "dataset.target=en", "model=seq2seq", *HELD_OUT)
RUNS = {
    "images": IMAGE,
    "parquet": IMAGE,
    "npz": IMAGE,
    "characters": (*TEXT, *FEW, "dataset.tokenizer=character"),
    "unicode": (*TEXT, *FEW, "dataset.tokenizer=character"),
    "bytes": (*TEXT, *FEW),
    "bpe": (*TEXT, *FEW, "dataset.tokenizer=bpe"),
    "words": SENTENCES,
    "pairs": PAIRS,
}


def pictures() -> Iterator[tuple[bytes, np.ndarray]]:
    """Distinct images without noise, which would be slow to decode: waves of random lengths and colours, JPEG and pixels."""
    import io

    from PIL import Image

    random, axis = np.random.default_rng(0), np.linspace(0, 1, SIDE)
    for _ in range(DISTINCT):
        waves = random.uniform(5, 60, (3, 2))
        x, y = waves[:, :1, None] * axis, waves[:, 1:] * axis
        pixels = (127.5 * (1 + np.sin(x + y[:, :, None]))).astype(np.uint8).transpose(1, 2, 0)  # (H, W, 3)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        yield stream.getvalue(), pixels.transpose(2, 0, 1)


def words(count: int, letters: str, seed: int) -> str:
    """A line of so many words, drawn as in a language: few often and many seldom."""
    random = np.random.default_rng(seed)
    made = ["".join(random.choice(list(letters), random.integers(2, 9))) for _ in range(20_000)]
    return " ".join(made[n % len(made)] for n in random.zipf(1.3, count))


def make_images(case: str, path: Path, count: int) -> Path:
    if case == "npz":
        distinct = np.stack([pixels for _, pixels in pictures()])
        images = np.lib.format.open_memmap(path / "images.npy", "w+", np.uint8, (count, *distinct.shape[1:]))
        for start in range(0, count, DISTINCT):
            images[start : start + DISTINCT] = distinct[: count - start]
        np.savez(path / "set.npz", images=images, labels=np.arange(count) % CLASSES)
        (path / "images.npy").unlink()
        return path / "set.npz"
    files = [encoded for encoded, _ in pictures()]
    if case == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        features = {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "int64"}}
        notes = {"huggingface": json.dumps({"info": {"features": features}})}  # without them these are not images
        encoded = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        kind = pa.schema({"image": encoded, "label": pa.int64()}, metadata=notes)
        with pq.ParquetWriter(path / "train.parquet", kind) as writer:
            for start in range(0, count, 1000):
                rows = range(start, min(start + 1000, count))
                columns = [[{"bytes": files[n % DISTINCT], "path": None} for n in rows], [n % CLASSES for n in rows]]
                writer.write_table(pa.table(columns, schema=kind))
        return path
    for number in range(count):
        file = path / "set" / f"class {number % CLASSES}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(files[number % DISTINCT])
    return path / "set"


def make_text(case: str, path: Path, size: int) -> Path:
    line = words(2_000, "abcdefghijklmnopqrstuvwxyz", 0) + ".\n"
    if case == "unicode":
        line += words(1_000, "가나다라마바사아자차카타파하", 1) + " 😀.\n"
    encoded = (line * 50).encode()
    with (path / "text.txt").open("wb") as stream:
        for _ in range(0, size, len(encoded)):
            stream.write(encoded)
    return path / "text.txt"


def make_rows(case: str, path: Path, count: int) -> Path:
    drawn = words(200_000, "abcdefghijklmnopqrstuvwxyz", 2).split(" ")
    lengths = np.random.default_rng(3).integers(5, 20, (count, 2)).tolist()
    with (path / "train.csv").open("w") as stream:
        stream.write("de,en\n" if case == "pairs" else "text,label\n")
        for number, (first, second) in enumerate(lengths):
            start = number * 7 % 199_900
            text, other = " ".join(drawn[start : start + first]), " ".join(drawn[start : start + second])
            stream.write(f"{text},{other if case == 'pairs' else number % 2}\n")
    return path / "train.csv"


SIZES: dict[str, tuple[Any, int, str]] = {
    **{case: (make_images, 20_000, "images") for case in ("images", "parquet", "npz")},
    **{case: (make_text, 200_000_000, "bytes") for case in ("characters", "unicode", "bytes")},
    "bpe": (make_text, 50_000_000, "bytes"),
    "words": (make_rows, 1_000_000, "rows"),
    "pairs": (make_rows, 200_000, "rows"),
}


def start(case: str, path: Path, folder: Path, checkout: Path) -> dict[str, float]:
    """Runs train.py to its end: MB at the peak, resident in all and without mapped files, and seconds."""
    command = [sys.executable, "train.py", *RUNS[case], f"dataset.path={path}", "logger=none"]
    command += ["trainer=cpu", f"output_dir={folder / 'outputs'}"]
    environment = {**os.environ, "EPOCHAL_CACHE": str(folder / "cache"), "PYTHONPATH": str(checkout / "src")}
    began, peaks = time.time(), {"VmHWM": 0, "RssAnon": 0}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=subprocess.STDOUT)
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:  # a run sets its own peak back once, before it reads the data
            for name, _, value in (line.partition(":") for line in status.read_text().splitlines()):
                if name in peaks and value.split():
                    peaks[name] = max(peaks[name], int(value.split()[0]))
            time.sleep(0.02)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{(folder / 'log.txt').read_text()[-3000:]}")
    return {"peak": peaks["VmHWM"] * 1024 / 1e6, "own": peaks["RssAnon"] * 1024 / 1e6, "seconds": time.time() - began}


def measure(case: str, fraction: float, checkout: Path) -> dict[str, Any]:
    """Two starts of a case on the same inputs, in a folder that is removed afterwards."""
    make, size, unit = SIZES[case]
    count = max(int(size * fraction), 100)
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        folder = Path(name)
        (folder / "inputs").mkdir()
        path = make(case, folder / "inputs", count)
        first = start(case, path, folder, checkout)
        arrays = sum(file.stat().st_size for file in (folder / "cache").rglob("*.npy")) / 1e6
        second = start(case, path, folder, checkout)
    return {"case": case, "count": count, "unit": unit, "arrays": arrays, "starts": [first, second]}


def target(result: dict[str, Any], number: int) -> str:
    """What the peak of this start may be at full size, and whether it is."""
    case, peak = result["case"], result["starts"][number]["peak"]
    if case in OVER_ARRAYS:
        most, found, of = OVER_ARRAYS[case][number], peak - result["arrays"], "over arrays"
    elif case in ALTOGETHER and number == 0:
        most, found, of = ALTOGETHER[case], peak, "in all"
    else:
        return ""
    return f"{most:,} {of} {'met' if found <= most else '[red]missed[/]'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--fraction", type=float, default=1.0, help="of the full size of each case (default 1)")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the repository to run (default: this one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    options = parser.parse_args()
    if not Path("/proc/self/status").exists():
        sys.exit("The peak is read from /proc, which only Linux has.")

    from rich.console import Console
    from rich.table import Table

    results = [measure(case, options.fraction, options.checkout.absolute()) for case in options.cases]
    table = Table("case", "of", "start", "arrays", "peak", "over arrays", "own", "seconds", "target", title="MB")
    for r in results:
        for number, (name, found) in enumerate(zip(("first", "second"), r["starts"], strict=True)):
            head = [r["case"], f"{r['count']:,} {r['unit']}"] if not number else ["", ""]
            numbers = [r["arrays"], found["peak"], found["peak"] - r["arrays"], found["own"], found["seconds"]]
            table.add_row(*head, name, *(f"{n:,.0f}" for n in numbers), target(r, number))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"machine": platform.platform(), "cases": results}, indent=2))


if __name__ == "__main__":
    main()
