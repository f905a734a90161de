"""Where a grid's runs start: the launchers do what they say, and say at once what they lack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from conftest import ROOT
from epochal.config.messages import explain
from epochal.core.errors import ConfigError, EpochalError
from epochal.experiments import launchers
from epochal.training.run_folder import Run
from helpers.training import CONF

MLP = ("model=mlp", "model.hidden=[8]", "optimizer=sgd", "trainer=cpu", "logger=none", "duration=20steps")
FOUR = (*MLP, "optimizer.lr=1e-3,1e30", "seed=1,2")  # two of them diverge


def choice(name: str, **launcher: Any) -> DictConfig:
    """A grid's config as far as the launcher goes."""
    hydra = {"runtime": {"choices": {"hydra/launcher": name}}, "launcher": launcher}
    return OmegaConf.create({"hydra": hydra, "resume": None})


def train(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), "-m", *arguments]
    environment = {**os.environ, "COLUMNS": "120", **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def assert_two_of_four_came_back(done: subprocess.CompletedProcess[str], home: Path) -> None:
    assert done.returncode == 1, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("    ")]
    assert [line.split(":")[0].strip() for line in told] == ["optimizer.lr=1e+30 seed=1", "optimizer.lr=1e+30 seed=2"]
    assert "2 of 4 runs failed:" in done.stderr and "Traceback" not in done.stderr
    statuses = [Run(folder).summary()["status"] for folder in (home / "outputs" / "runs").iterdir()]
    assert sorted(statuses) == ["failed", "failed", "finished", "finished"]
    assert "2 runs, best first" in done.stdout


# ---- what they lack ----


def test_slurm_without_slurm_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="there is no sbatch here; .* or choose launcher=joblib"):
        launchers.check(choice("submitit_slurm"))


def test_a_launcher_whose_package_is_missing_names_it() -> None:
    error = MissingConfigException("", missing_cfg_file="hydra/launcher/ray", options=["basic", "joblib"])
    assert explain(error, [], "train").endswith("is not installed: pip install 'epochal[cluster]'")


def test_one_run_is_not_quietly_started_here() -> None:
    with pytest.raises(ConfigError, match="launcher=slurm starts the runs of a grid: add -m"):
        launchers.check_alone("submitit_slurm")
    launchers.check_alone("joblib")


def test_runs_that_sbatch_refuses_end_in_its_words() -> None:
    with pytest.raises(ConfigError, match="invalid partition specified: gpux"), launchers.lost_runs(choice("x")):
        raise RuntimeError("sbatch: error: invalid partition specified: gpux\nsbatch: error: Batch job failed")


def test_a_killed_run_ends_in_a_sentence_and_a_bug_in_its_traceback() -> None:
    class TerminatedWorkerError(RuntimeError): ...

    with (
        pytest.raises(EpochalError, match=r"died: out of memory\n.*with resume=auto, does what is left"),
        launchers.lost_runs(choice("joblib")),
    ):
        raise TerminatedWorkerError("out of memory\n\nexit codes")
    with pytest.raises(RuntimeError, match="a bug"), launchers.lost_runs(choice("joblib")):
        raise RuntimeError("a bug")


# ---- joblib ----

THREADS = """
import sys
from epochal import cli
from epochal.experiments import grid
from epochal.core.errors import EpochalError

grid.check = lambda *_: None  # loads Lightning, and takes longer than all the rest

def tell(config):
    import torch
    raise EpochalError(f"{torch.get_num_threads()} threads")

cli.run("train", tell, sys.argv[1:])
"""


def test_two_runs_at_once_share_the_cores_out(home: Path) -> None:
    from joblib import cpu_count

    (home / "threads.py").write_text(THREADS)
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    arguments = ("-m", "launcher=joblib", "hydra.launcher.n_jobs=2", "seed=1,2", "model=mlp", "logger=none")
    done = subprocess.run(
        [sys.executable, "threads.py", *arguments], env=environment, cwd=home, capture_output=True, text=True
    )
    assert done.stderr.count(f": {max(cpu_count() // 2, 1)} threads\n") == 2, done.stderr


# ---- submitit ----


@pytest.mark.cluster
def test_submitit_runs_four_and_two_fail(home: Path) -> None:
    done = train(*FOUR, "launcher=submitit_local", cwd=home)
    assert_two_of_four_came_back(done, home)
    assert "4 runs, handed to submitit_local." in done.stdout
    logs = [log.read_text() for log in (home / "outputs" / ".submitit").glob("*/*.out")]
    assert sum(log.count("✓ optimizer.lr=0.001 seed=") for log in logs) == 2
    assert sum(log.count("✗ optimizer.lr=1e+30 seed=") for log in logs) == 2
    assert not any("╭" in log for log in logs), "a run of many has one line"


@pytest.mark.cluster
def test_a_run_that_submitit_stops_and_starts_again_goes_on(home: Path) -> None:
    arguments = (*MLP, "launcher=submitit_local", "duration=3000steps", "callbacks.checkpoint_every=20")
    command = [sys.executable, str(ROOT / "train.py"), "-m", *arguments]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: list(home.glob("outputs/runs/*/checkpoints/last.ckpt")))
        os.kill(task_in(home), signal.SIGUSR2)  # what SLURM sends before the time is over
        _, error = process.communicate()
    assert process.returncode == 0, error
    (folder,) = (home / "outputs" / "runs").iterdir()
    assert Run(folder).summary()["status"] == "finished"
    steps = [int(row.split(",")[0]) for row in (folder / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps)) and steps[-1] == 3000
    logs = "".join(log.read_text() for log in (home / "outputs" / ".submitit").glob("*/*_log.*"))
    assert logs.count("Starting with JobEnvironment") == 2


def task_in(home: Path) -> int:
    """The process of submitit's that runs the job."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        words = entry.read_bytes().split(b"\0")
        if b"submitit.core._submit" in words and str(home).encode() in b" ".join(words):
            return int(entry.parent.name)
    raise AssertionError("submitit runs nothing here")


def wait_for(condition: Any) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came to that")


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("arguments", "nodes", "tasks", "gpus"),
    [
        (("trainer=cpu",), 1, 1, None),
        (("trainer=gpu",), 1, 1, 1),
        (("trainer=ddp", "trainer.accelerator=gpu", "trainer.devices=4", "trainer.num_nodes=2"), 2, 4, 4),
    ],
)
def test_slurm_is_asked_for_what_the_trainer_needs(arguments: Any, nodes: int, tasks: int, gpus: int | None) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", ["launcher=slurm", *arguments], return_hydra_config=True)
    asked = config.hydra.launcher
    assert (asked.nodes, asked.tasks_per_node, asked.gpus_per_node) == (nodes, tasks, gpus)
    assert config.resume == "auto"


# ---- Ray ----


@pytest.fixture
def cluster(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray cluster of two nodes, both started in another folder; the head itself runs nothing."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes.add_node(num_cpus=2)
    monkeypatch.chdir(home)
    yield nodes.address
    nodes.shutdown()


@pytest.mark.cluster
def test_ray_runs_four_on_another_node_and_two_fail(cluster: str, home: Path) -> None:
    done = train(*FOUR, "launcher=ray", f"hydra.launcher.ray.init.address={cluster}", cwd=home)
    assert_two_of_four_came_back(done, home)
    for line in ("✓ optimizer.lr=0.001 seed=1", "✗ optimizer.lr=1e+30 seed=2"):
        assert done.stdout.count(line) == 1, done.stdout
    assert not list((home.parent / "elsewhere").iterdir())


@pytest.mark.cluster
@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1"])
def test_ray_without_a_cluster_ends_in_a_sentence(refuse: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    refuse(
        *("train", "-m", "seed=1,2", "launcher=ray", f"hydra.launcher.ray.init.address={address}"),
        says=[f"found no Ray cluster at address={address}", "ray start --head"],
    )
