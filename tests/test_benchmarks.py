"""The benchmarks still run: what they measure changes with the code, and nobody looks at them every day."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(("case", "beside"), [("lenet", "bare"), ("vgg11", "torchvision"), ("lstm", "bare")])
def test_throughput_compares_the_framework_with_a_loop(case, beside, tmp_path):
    file = tmp_path / "throughput.json"
    command = [sys.executable, "benchmarks/throughput.py", "--cases", case, "--logger", "none"]
    command += ["--steps", "2", "--repeats", "3", "--json", str(file)]
    environment = {**os.environ, "EPOCHAL_DATA": "", "EPOCHAL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(file.read_text())["cases"]
    assert (found["case"], found["contender"], found["beside"]) == (case, "none", beside)
    assert len(found["seconds"]) == 3 and 0.05 < found["ratio"] < 20


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda file: file.name)
def test_what_a_benchmark_imports_of_ours_is_there(file):
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("epochal", "helpers"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
