"""Configs and classes of the user's own, outside the repository: --config-dir, hydra.searchpath, `_target_`s."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from epochal.config.compose import check_size

MODULE = '''
import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from epochal.models import MLP


class Mine(MLP):
    """A network of the user's own."""


class Printer(pl.Callback):
    def __init__(self, word):
        self.word = word

    def on_train_end(self, trainer, module):
        print(self.word, trainer.global_step)


class Lines(Logger):
    name, version = "lines", 0

    def __init__(self, save_dir):
        super().__init__()
        self.file = save_dir / "lines.txt"

    def log_metrics(self, metrics, step=None):
        with self.file.open("a") as stream:
            stream.write(f"{step} {' '.join(sorted(metrics))}\\n")

    def log_hyperparams(self, *args, **kwargs):
        pass
'''
CONFIGS = {
    "model/mine.yaml": """\
# @package _global_
defaults:
  - mlp
  - _self_
model:
  name: mine
  _target_: ownmodels.Mine.for_data
  hidden: [4]
""",
    "callbacks/printer.yaml": """\
defaults:
  - default
  - _self_
printer:
  _target_: ownmodels.Printer
  word: trained
""",
    "experiment/own_claim.yaml": """\
# @package _global_
defaults:
  - override /model: mine
experiment: own_claim
resume: auto
duration: 3steps
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      model.hidden: "[2],[4]"
claim:
  sentence: Wider is better.
  plots:
    - {x: parameters, y: val/loss}
""",
}


@pytest.fixture
def own(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `own` of configs beside a module `ownmodels`, in the current folder."""
    for name, text in CONFIGS.items():
        file = home / "own" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (home / "ownmodels.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(home))
    yield home
    sys.modules.pop("ownmodels", None)


@pytest.mark.parametrize("folder", ["--config-dir=own", "hydra.searchpath=[own]", "hydra.searchpath=[file://own]"])
def test_help_lists_configs_of_ones_own(command, own, folder):
    outcome = command("train", folder, "--help")
    assert outcome.status == 0
    assert "mine" in next(line for line in outcome.out.splitlines() if line.startswith("model: "))
    assert "own_claim" in next(line for line in outcome.out.splitlines() if line.startswith("experiment: "))


@pytest.mark.parametrize("script", ["train", "compare"])
@pytest.mark.parametrize("file", ["experiment/own_claim.yaml", "model/mine.yaml", "own.yaml"])
def test_a_config_that_aliases_make_huge_is_refused(refuse, own, script, file):
    laughs = "".join(f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
    (own / "own" / file).write_text("a: &a [x]\n" + laughs)
    refuse(script, "--config-dir=own", "experiment=own_claim", says=(file, "is refused: with its aliases"))
    (own / "own" / file).write_text("base: &base {lr: 0.1}\nother:\n  <<: *base\nboth: [*base, *base]\n")
    check_size(own / "own" / file)


def test_a_misspelt_model_of_ones_own_is_recognised(refuse, own):
    refuse("train", "--config-dir=own", "model=mien", "logger=none", says=("Did you mean mine?",))


def test_a_run_of_ones_own_model_callback_and_logger(command, own):
    logger = "+logger.lines._target_=ownmodels.Lines"
    small = ("dataset.train_size=64", "duration=3steps", "logger=none", logger)
    outcome = command("train", "--config-dir=own", "model=mine", "callbacks=printer", *small)
    assert outcome.status == 0, outcome.error
    assert "trained 3" in outcome.out
    (run,) = (own / "outputs" / "runs").iterdir()
    assert "test/accuracy" in (run / "lines.txt").read_text()

    refused = command("evaluate")
    assert refused.status == 2
    assert "ownmodels.Mine" in refused.error and "allow=[package]" in refused.error
    assert command("evaluate", "allow=[ownmodels]").status == 0


def test_a_run_with_ones_own_callback_is_evaluated_without_it(command, own):
    callback = "+callbacks.printer={_target_: ownmodels.Printer, word: hello}"
    assert command("train", "model=mlp", "duration=2steps", "logger=none", callback).status == 0
    assert command("evaluate").status == 0


def test_resume_auto_makes_the_callback_and_logger_that_are_typed_again(command, own):
    line = ("model=mlp", "duration=4steps", "logger=none", "resume=auto", "callbacks.checkpoint_every=2")
    callback = "+callbacks.printer={_target_: ownmodels.Printer, word: hello}"
    assert command("train", *line, callback).status == 0
    (run,) = (own / "outputs" / "runs").iterdir()
    summary = run / "summary.json"
    summary.write_text(summary.read_text().replace('"finished"', '"stopped"'))
    again = command("train", *line, callback)
    assert again.status == 0, again.error
    assert len(list((own / "outputs" / "runs").iterdir())) == 1


def test_a_grid_and_an_experiment_of_ones_own(command, own):
    grid = command("train", "--config-dir=own", "-m", "model=mine,mlp", "duration=2steps", "logger=none")
    assert grid.status == 0, grid.error
    outcome = command("train", "--config-dir=own", "experiment=own_claim", "logger=none")
    assert outcome.status == 0, outcome.error
    assert "Wider is better." in outcome.out
    assert "Wider is better." in command("compare", "--config-dir=own", "experiment=own_claim").out
    assert command("compare", "experiment=own_claim").status == 2


def test_several_loggers_at_once(command, home):
    outcome = command("train", "model=mlp", "duration=2steps", "logger=[wandb,csv]")
    assert outcome.status == 0, outcome.error
    (run,) = (home / "outputs" / "runs").iterdir()
    assert (run / "csv" / "metrics.csv").is_file()
    assert list(run.glob("wandb/offline-run-*"))


def test_a_key_of_the_task_that_auto_chooses_works_as_typed(command, home):
    (home / "text.txt").write_text("the quick brown fox\n" * 99)
    text = ("dataset=text", "dataset.path=text.txt", "dataset.tokenizer=character", "dataset.context_length=16")
    small = ("model=gpt", "model.depth=1", "model.embed_dim=8", "model.num_heads=2", "duration=2steps", "logger=none")
    outcome = command("train", *small, *text, "task.samples=1", "task.sample_length=5", "resume=auto")
    assert outcome.status == 0, outcome.error
    again = command("train", *small, *text, "task.samples=1", "task.sample_length=5", "resume=auto")
    assert "Finished before" in again.out
    other = command("train", *small, *text, "task.samples=2", "task.sample_length=5", "resume=auto")
    assert "Finished before" not in other.out
