"""Grids and experiments: looked at whole, run in parallel, killed and gone on with, judged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import ROOT
from epochal.core.errors import ConfigError
from epochal.core.files import Lock
from epochal.experiments.outcome import line
from helpers.training import CONF

EXPERIMENTS = sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    def hear_interrupts() -> None:  # which a shell has told its background jobs to ignore
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [sys.executable, str(ROOT / "train.py"), *arguments, "logger=none"]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )


def run(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    process = start(*arguments, cwd=cwd)
    out, error = process.communicate()
    return process.returncode, out, error


def test_one_run_that_fails_does_not_end_the_others(command, home):
    outcome = command(
        *("train", "-m", "model=mlp", "optimizer.lr=1e9,0.001", "duration=1epochs", "logger=none", "log_every=1")
    )
    assert outcome.status == 1
    assert "1 of 2 runs failed:\n    optimizer.lr=1000000000.0: The loss is nan" in outcome.error
    assert "✗ optimizer.lr=1000000000.0" in outcome.out and "✓ optimizer.lr=0.001" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-m", "model=mlp,gpt", "dataset=digits"), ("gpt reads tokens", "(model=gpt)", "No run was started.")),
        (("-m", "dataset.batch_size=32,9999"), ("dataset.batch_size=9999", "(dataset.batch_size=9999)")),
        (("-m", "model=resnet", "model.depth=8,9"), ("depth=9 is not 6n + 2", "(model.depth=9)")),
        (("model=mlp", "-m", "channels_last=true,3"), ("channels_last=3 must be true or false", "(channels_last=3)")),
    ],
)
def test_an_impossible_run_is_found_before_the_first_one_starts(arguments, says, refuse):
    refuse("train", *arguments, "logger=none", says=says, lines=2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("experiment=depth_degradatoin",), ("is no experiment. Did you mean depth_degradation?",)),
        (("experiment=depth_degradation", "budget=smok"), ("Did you mean smoke?", "smoke cpu paper")),
        (("budget=smoke",), ("is the size of an experiment",)),
        (("-m", "seed=1,2", "resume=outputs/runs/x"), ("resume=auto with every run of a grid",)),
        (("threads=0",), ("threads=0 must be auto",)),
        (("-m", "experiment=depth_degradation,mlp_vs_cnn", "budget=smoke"), ("is several; type a line for each",)),
        (("experiment=depth_degradation", "budget=smoke,cpu"), ("budget=smoke,cpu is several",)),
        (("experiment=mlp_vs_cnn", "dataset=fashion_mnist"), ("budget=cpu of this experiment says nothing of",)),
        (("-m", "seed=range(3,3)"), ("There is nothing to run",)),
        (("-m", "optimizer.lr=interval(0.1,1)"), ("interval(...) is searched", "sweep=search")),
        (("seed=1,2",), ("seed=1,2 is a list of values; put -m in front",)),
    ],
)
def test_wrong_words_about_grids_are_told(arguments, says, refuse):
    refuse("train", *arguments, says=says)


# The others take eight seconds and more each, and carry the marker slow; their configs are composed in test_configs
QUICK = ("depth_vs_overfitting", "imagenet_decade", "in_context", "unreasonable_effectiveness")
WORDS = ("a", "man", "and", "two", "small", "dogs", "walk", "by", "the", "old", "red", "house")


@pytest.fixture
def captions(tmp_path, monkeypatch):
    """Texts in place of Multi30k and of SST-2, so that nothing is downloaded."""
    folder, reviews = tmp_path / "copies" / "multi30k", tmp_path / "copies" / "sst2"
    folder.mkdir(parents=True)
    reviews.mkdir()
    for split, rows in (("train", 96), ("validation", 24), ("test", 24)):
        texts = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 8)) for i in range(1, rows + 1)]
        (folder / f"{split}.csv").write_text("\n".join(["en,de", *(f"{text},{text}" for text in texts), ""]))
        if split != "test":
            numbered = enumerate(texts * 5)
            rows = [f"{'bad' if i % 2 else 'good'} {text} {text} n{i},{1 - i % 2}" for i, text in numbered]
            (reviews / f"{split}.csv").write_text("\n".join(["sentence,label", *rows, ""]))
    monkeypatch.setenv("EPOCHAL_DATA", str(tmp_path / "copies"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in EXPERIMENTS]
)
@pytest.mark.usefixtures("captions")
def test_every_experiment_runs_at_its_smallest(name, command, home):
    """With one seed, and one run after the other in this process, which saves their starts."""
    tunes = "tune:" in (CONF / "experiment" / f"{name}.yaml").read_text()
    untuned = ["hydra.sweeper.tune=null"] if tunes and name != "small_kernels" else []  # which saves a half of the runs
    arguments = ("budget=smoke", "seed=1", "launcher=basic", "logger=none", *untuned)
    outcome = command("train", f"experiment={name}", *arguments)
    assert outcome.status == 0, outcome.error
    check_finished(name, outcome.out, home)


@pytest.mark.slow
def test_an_experiment_runs_in_parallel(tmp_path):
    status, out, error = run(
        "experiment=mlp_vs_cnn", "budget=smoke", "model=mlp", "seed=1", "hydra.launcher.n_jobs=2", cwd=tmp_path
    )
    assert status == 0, error
    assert "2 runs, 2 at once." in out
    check_finished("mlp_vs_cnn", out, tmp_path)


def check_finished(name: str, out: str, folder: Path) -> None:
    runs = set((folder / "outputs" / name).iterdir())
    assert f"{len(runs)} runs, " in out
    assert out.count("✓ ") >= len(runs)
    report = folder / "outputs" / "comparisons" / f"{name}_smoke"
    assert (report / "report.html").exists() and list(report.glob("figure_1_*.png"))
    assert "inconclusive" in out and "decides nothing" in " ".join(out.split())  # so small a budget never does


@pytest.fixture
def in_stages():
    from hydra_plugins.epochal_sweepers.grid import GridSweeper

    sweeper = GridSweeper(
        max_batch_size=None,
        params={"model": "vit", "init_from": "null,masked_patch", "seed": "1"},
        before=[{"model": "vit", "task": "masked_patch", "seed": "1"}, {"model": "cnn", "seed": "1"}],
        along={"model=vit": ["model.depth=2"]},
    )
    sweeper.hydra_context = SimpleNamespace(config_loader=None)
    return sweeper


@pytest.mark.parametrize(
    ("typed", "earlier"),
    [
        ([], [["model=vit", "task=masked_patch", "seed=1", "model.depth=2"], ["model=cnn", "seed=1"]]),
        (["seed=2"], [["model=vit", "task=masked_patch", "seed=2", "model.depth=2"], ["model=cnn", "seed=2"]]),
        (["task=x", "model=vit"], [["model=vit", "task=masked_patch", "seed=1", "model.depth=2"]]),
        (["init_from=null", "model=cnn", "log_every=9"], [["model=cnn", "seed=1", "log_every=9"]]),
    ],
)
def test_what_is_typed_changes_earlier_grids_only_where_it_concerns_them(in_stages, typed, earlier):
    assert in_stages.earlier(typed) == [earlier]


def test_lists_of_earlier_grids_are_stages(in_stages):
    first, second = in_stages.before
    in_stages.before = [[first, second], [{**second, "seed": "1,2"}]]
    both = [["model=vit", "task=masked_patch", "seed=1", "model.depth=2"], ["model=cnn", "seed=1"]]
    assert in_stages.earlier([]) == [both, [["model=cnn", "seed=1"], ["model=cnn", "seed=2"]]]
    assert in_stages.earlier(["model=vit"]) == [both[:1]]
    in_stages.before = [first, [second]]
    with pytest.raises(
        ConfigError, match=r"hydra.sweeper.before must be a list of grids, or of lists of grids, not both"
    ):
        in_stages.earlier([])
    in_stages.before = [[first, second], [{**second, "seed": "1,2"}]]
    assert in_stages.earlier(["model=cnn"]) == [both[1:], [["model=cnn", "seed=1"], ["model=cnn", "seed=2"]]]


def test_what_a_choice_brings_along_gives_way_to_what_is_typed(in_stages):
    jobs = in_stages.jobs(in_stages.choices(["model.depth=4", "init_from=null"]))
    assert jobs == [["model=vit", "init_from=null", "seed=1", "model.depth=4"]]


def test_an_experiment_in_stages_is_not_searched(refuse):
    refuse("train", "experiment=vit_pretraining", "budget=smoke", "sweep=lr", says=("come in stages",))


def test_one_run_of_an_experiment_can_be_started_alone(command, home):
    arguments = ("model=resnet", "model.depth=14", "seed=2", "logger=none")
    outcome = command("train", "experiment=depth_degradation", "budget=smoke", *arguments)
    assert outcome.status == 0, outcome.error
    (folder,) = (home / "outputs" / "depth_degradation").iterdir()
    assert folder.name.endswith("resnet_digits_s2")


def test_a_key_that_is_given_with_a_sign_is_pinned_all_the_same(command, home):
    arguments = ("budget=smoke", "++model.depth=8", "model=plain", "seed=1", "duration=1steps", "logger=none")
    assert command("train", "experiment=depth_degradation", *arguments).status == 0
    assert len(list((home / "outputs" / "depth_degradation").iterdir())) == 1


def test_a_run_that_is_finished_or_another_processes_is_not_begun_twice(command, home, monkeypatch):
    arguments = ("-m", "model=mlp", "model.hidden=[8]", "seed=1,2", "duration=2steps", "logger=none", "resume=auto")
    assert command("train", *arguments).status == 0
    assert command("train", *arguments).out.count("finished before") == 2
    folder = next((home / "outputs" / "runs").glob("*_s2"))
    summary = folder / "summary.json"
    summary.write_text(summary.read_text().replace('"finished"', '"running"'))
    holder = Lock(folder / ".lock")  # stands for the other process
    assert holder.acquire()
    outcome = command("train", *arguments)
    holder.release()
    assert outcome.status == 2 and f"is being trained by process {os.getpid()} on " in outcome.error
    assert len(list((home / "outputs" / "runs").iterdir())) == 2


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_grid_that_is_stopped_says_how_to_go_on(sent, status, tmp_path):
    process = start("-m", "model=mlp", "seed=1,2", "duration=9999epochs", "callbacks.checkpoint_every=10", cwd=tmp_path)
    wait_for(lambda: list((tmp_path / "outputs" / "runs").glob("*/checkpoints/last.ckpt")))
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status
    assert "resume=auto goes on" in error and "Traceback" not in error


def test_evaluating_many_runs_at_once_is_refused(refuse):
    refuse("evaluate", "-m", "run=a,b", says=("evaluate.py looks at one run at a time; leave out -m",))


@pytest.mark.slow
def test_a_killed_experiment_takes_its_runs_with_it_and_goes_on_where_it_was(tmp_path):
    arguments = ("experiment=pooling", "budget=smoke", "duration=200steps", "seed=1", "model.pool=max,average")
    process = start(*arguments, cwd=tmp_path)
    runs = tmp_path / "outputs" / "pooling"
    wait_for(lambda: len(list(runs.glob("*/checkpoints/last.ckpt"))) == 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stopped = sizes(runs)
    time.sleep(3)
    assert sizes(runs) == stopped or still(runs), "a run of the killed experiment goes on"

    status, _, error = run(*arguments, cwd=tmp_path)
    assert status == 0, error
    assert len(list(runs.iterdir())) == 2, "a run was begun anew"
    for metrics in runs.glob("*/metrics.csv"):
        steps = [row.split(",")[0] for row in metrics.read_text().splitlines()[1:]]
        assert len(steps) == len(set(steps)) and steps[-1] == "200"


def wait_for(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came to that")


def sizes(runs: Path) -> dict[Path, int]:
    return {file: file.stat().st_size for file in runs.glob("*/metrics.csv")}


def still(runs: Path) -> bool:
    """Whether nothing changes any more."""
    before = sizes(runs)
    time.sleep(3)
    return sizes(runs) == before


def test_a_run_has_one_line_that_shows_what_is_its_own(monkeypatch):
    monkeypatch.setenv("EPOCHAL_GRID", '{"process": 1, "varying": ["seed"]}')
    summary = {"metrics": {"train/loss": 0.5}, "best": {"metric": "val/accuracy", "value": 0.9}}
    outcome = {"overrides": ["model=mlp", "seed=2"], "status": "finished", "error": None, "exit_status": 0}
    text = line({**outcome, "folder": "x", "summary": summary}, 90)
    assert "seed=2" in text and "model=mlp" not in text
    assert "90.00 %" in text and "90 s" in text


TUNED = """\
# @package _global_
defaults:
  - override /model: mlp
experiment: mine
hydra:
  mode: MULTIRUN
  sweeper:
    params: {model: "mlp,lenet", seed: "1"}
    along: {model=lenet: [optimizer.lr=0.5]}
    tune: {space: {optimizer.lr: "1e9,0.003"}, seed: 100, metric: val/accuracy}
duration: 4steps
dataset: {train_size: 64}
claim:
  sentence: One is better.
  plots: [{x: model.name, y: val/error}]
  tests: [{says: so, y: val/error, more: {model.name: mlp}, than: {model.name: lenet}}]
"""


def test_an_experiment_that_tunes_tries_every_side_first_and_gives_it_the_best(command, home):
    (home / "own" / "experiment").mkdir(parents=True)
    (home / "own" / "experiment" / "mine.yaml").write_text(TUNED)
    given = ("train", "--config-dir", "own", "experiment=mine", "logger=none", "log_every=1")
    outcome = command(*given)
    assert outcome.status == 0, outcome.error  # that a trial diverged is a result
    assert outcome.out.index("seed=100") < outcome.out.index("seed=1 ")
    assert "6 runs" in outcome.out and "✗ model=lenet optimizer.lr=1000000000.0 seed=100" in outcome.out
    assert outcome.out.count("optimizer.lr=0.003") >= 4  # two trials, two runs that decide
    assert "takes 0.003" in " ".join(outcome.out.replace("│", " ").split())
    assert len(list((home / "outputs" / "mine").iterdir())) == 6
    again = command(*given, "seed=100")
    assert again.status == 2 and "seed=100 is that of the tuning" in again.error
    fixed = command(*given, "optimizer.lr=0.001", "model=mlp", "seed=1")
    assert "seed=100" not in fixed.out  # who sets the rate needs no trials


@pytest.mark.slow
def test_grids_before_are_tuned_too_unless_they_set_the_rate(command, home):
    (home / "own" / "experiment").mkdir(parents=True)
    before = "before: [{model: cnn, seed: 1}, {model: rnn, seed: 1, optimizer.lr: 0.005}]\n    tune:"
    (home / "own" / "experiment" / "mine.yaml").write_text(TUNED.replace("tune:", before).replace("mlp,lenet", "mlp"))
    outcome = command("train", "--config-dir", "own", "experiment=mine", "logger=none", "duration=2steps", "seed=1")
    assert outcome.status == 0, outcome.error
    tried = [line.split("seed=")[0].split() for line in outcome.out.splitlines() if "seed=100" in line]
    assert sorted({word for words in tried for word in words if "model=" in word}) == [
        "model=cnn",
        "model=mlp",
    ]
    typed = [path.read_text() for path in (home / "outputs" / "mine").glob("*/overrides.yaml")]
    assert sum("model=cnn" in text and "optimizer.lr=0.003" in text and "seed=1\n" in text for text in typed) == 1
    assert sum("model=rnn" in text for text in typed) == 1
