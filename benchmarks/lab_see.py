"""How long the lab's room of images takes from a stroke of the pen to the answer, through the server.

    python benchmarks/lab_see.py                     LeNet, ResNet-20 and ViT Mini: two minutes
    python benchmarks/lab_see.py --strokes 500 --json lab_see.json

A 3 is drawn stroke by stroke in 112 x 112 pixels, as the page sends it, and after each stroke the network is asked: once for
the probabilities alone, as while the pen moves on a slow machine, and once for all (feature maps, Grad-CAM or attention
rollout). Pictures have 28 x 28 grey pixels, as MNIST's. The networks have been trained for one step: weights do not change
the time. One thread on the CPU.
"""

import argparse
import base64
import http.client
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any

NETWORKS = {
    "lenet": ["model=lenet"],
    "resnet20": ["model=resnet", "model.depth=20"],
    "vit_mini": ["model=vit", "model.variant=Mini"],
}
DATA = ["dataset=digits", "dataset.image_size=28", "duration=1steps", "logger=none"]
SIDE, PEN = 112, 9.5  # pixels
ADDRESS = re.compile(r":(\d+)/\?token=(\S+)")
TARGET = 50.0  # milliseconds
EPOCHAL = [sys.executable, "-m", "epochal"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "300"}


@contextmanager
def lab_of(folder: str) -> Iterator[tuple[int, str]]:
    """The lab of an outputs folder in a process of its own; yields its port and token."""
    line = [*EPOCHAL, "lab", f"output_dir={folder}", "port=0", "open=false"]
    with subprocess.Popen(line, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        address = next(filter(None, map(ADDRESS.search, server.stdout)))
        try:
            yield int(address[1]), address[2]
        finally:
            server.terminate()


def drawings(count: int) -> Iterator[bytes]:
    """Grey pixels of a 3 that grows, white on black."""
    ink = bytearray(SIDE * SIDE)
    for i in range(count):
        part = 2 * i / count
        angle = 2.6 - 4 * (part % 1)
        row, column = SIDE * (0.33 + 0.34 * int(part) - 0.16 * math.sin(angle)), SIDE * (0.48 + 0.18 * math.cos(angle))
        for y in range(SIDE):
            for x in range(SIDE):
                if (y - row) ** 2 + (x - column) ** 2 < PEN**2 / 4:
                    ink[y * SIDE + x] = 255
        yield bytes(ink)


def measure(port: int, token: str, run: str, pictures: list[bytes], layers: bool) -> list[float]:
    """Milliseconds of each answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    took = []
    for ink in pictures:
        picture = {"drawn": base64.b64encode(ink).decode(), "width": SIDE}
        sent = json.dumps({"picture": picture, "layers": layers})
        began = time.perf_counter()
        connection.request("POST", f"/api/see/{run}/look", sent, {"X-Lab-Token": token})
        response = connection.getresponse()
        json.loads(response.read())
        took.append(1000 * (time.perf_counter() - began))
        assert response.status == 200
    return took[5:]  # the first opens the network


def listed(port: int) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/api/runs")
    return json.loads(connection.getresponse().read())["runs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strokes", type=int, default=200)
    parser.add_argument("--json", help="a file for the numbers")
    options = parser.parse_args()
    pictures, found = list(drawings(options.strokes + 5)), {}
    with tempfile.TemporaryDirectory() as folder:
        for model in NETWORKS.values():
            line = [*EPOCHAL, "train", *model, *DATA, f"output_dir={folder}"]
            subprocess.run(line, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        with lab_of(folder) as (port, token):
            for run in reversed(listed(port)):
                for layers in (False, True):
                    took = measure(port, token, run["id"], pictures, layers)
                    what = "all" if layers else "probabilities"
                    middle, slow = median(took), quantiles(took, n=100)[98]
                    found[f"{run['model']}, {what}"] = {"median_ms": middle, "p99_ms": slow}
                    print(
                        f"{run['model']:8} {what:14} median {middle:6.1f} ms, 99th percentile {slow:6.1f} ms",
                        flush=True,
                    )
    slowest = max(one["median_ms"] for key, one in found.items() if "probabilities" in key)
    print(f"Slowest median of the probabilities: {slowest:.1f} ms; under {TARGET:.0f} ms is what drawing needs.")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
