"""How long the lab takes to open with many runs.

    python benchmarks/lab_runs.py                    1,000 runs: about a minute, most of it to make them
    python benchmarks/lab_runs.py --runs 100 --json lab_runs.json

One run is trained for a few steps and its folder copied, each copy with a name and a seed of its own, without checkpoints.
Measured is what a person waits for after `epochal lab` has printed its address: until the list of runs is answered, and where
Playwright and Chromium are installed (extra `browser`) until the page shows it. Then the same again, while the lab runs.
"""

import argparse
import http.client
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from lab_see import ENVIRONMENT, EPOCHAL, lab_of

TARGET = 2.0  # seconds
LINE = ["train", "model=mlp", "dataset=digits", "duration=20steps", "log_every=1", "logger=none"]


def make_runs(folder: Path, count: int) -> None:
    """As many run folders below `folder`/runs."""
    subprocess.run([*EPOCHAL, *LINE, f"output_dir={folder}"], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    first = next((folder / "runs").iterdir())
    shutil.rmtree(first / "checkpoints")
    for seed in range(2, count + 1):
        made = first.with_name(first.name.removesuffix("s1") + f"s{seed}")
        shutil.copytree(first, made)
        for name in ("config.yaml", "summary.json"):
            text = (made / name).read_text("utf-8")
            text = re.sub(r'^("?seed"?|  "seed"): 1\b', rf"\1: {seed}", text, flags=re.MULTILINE)
            (made / name).write_text(text, "utf-8")


def list_seconds(port: int, expected: int) -> float:
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/api/runs")
    runs = json.loads(connection.getresponse().read())["runs"]
    took = time.perf_counter() - began
    assert len(runs) == expected, len(runs)
    return took


def page_seconds(address: str) -> list[float] | None:
    """Until the table is shown, of two visits one after the other; None without a browser."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if path is None:
        return None
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(2):
            page = browser.new_page()
            began = time.perf_counter()
            page.goto(address)
            page.locator("table tbody tr").first.wait_for()
            found.append(time.perf_counter() - began)
            page.close()
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--json", help="a file for the numbers")
    options = parser.parse_args()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder), options.runs)
        with lab_of(folder) as (port, _):  # a lab of its own for each, as the second would find the runs read
            found |= {f"{name} list": list_seconds(port, options.runs) for name in ("first", "second")}
        with lab_of(folder) as (port, token):
            if pages := page_seconds(f"http://127.0.0.1:{port}/?token={token}"):
                found |= dict(zip(("first page", "second page"), pages))
    for name, seconds in found.items():
        print(f"{options.runs:,} runs, {name:11} {seconds:5.2f} s")
    if "first page" not in found:
        print("The page was not opened: that needs Playwright and Chromium.")
    print(f"The aim is {TARGET:g} s.")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2), "utf-8")


if __name__ == "__main__":
    main()
