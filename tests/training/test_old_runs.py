"""Run folders of version 0.1 still open: other names of parameters, one logger by its name, `asked` for `requested`.

`tests/old_runs` holds two runs that commit 1eff7bf left, a Transformer's encoder of 648 parameters on dataset=copy: `finished`,
and `stopped`, which a SIGKILL ended after step 4 of 8.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import epochal
from conftest import ROOT
from epochal.models import transformer_encoder
from epochal.models.common.layers import xavier_init
from epochal.models.common.old_names import current_names
from epochal.training.build import remembered_data
from epochal.training.checkpoint_io import read_checkpoint
from helpers.training import train

SMALL = (
    *(
        "model=transformer_encoder",
        "model.depth=1",
        "model.embed_dim=8",
        "model.num_heads=2",
        "model.feedforward_dim=8",
    ),
    *("dataset=copy", "dataset.train_size=32", "dataset.batch_size=8", "dataset.validation=8", "dataset.test=8"),
    *("duration=8steps", "log_every=2", "callbacks.checkpoint_every=2"),
)


# their checkpoints were written on a CPU of another kind, which rounds otherwise
ROUNDING = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture
def old(home: Path) -> Path:
    """The two runs, in `outputs/runs` of the current folder."""
    for name, folder in (("finished", "finished"), ("stopped", "2026-11-26_15-14-46_transformer_encoder_copy_s1")):
        shutil.copytree(ROOT / "tests" / "old_runs" / name, home / "outputs" / "runs" / folder)
    return home / "outputs" / "runs"


def test_a_stopped_run_goes_on_to_the_same_weights(command, old, monkeypatch):
    line = (*SMALL, "seed=1", "logger=none")
    outcome = command("train", *line, "resume=auto")
    assert outcome.status == 0, outcome.error
    (resumed,) = old.glob("*_s1")
    assert json.loads((resumed / "summary.json").read_text())["status"] == "finished"
    # version 0.1 began with another output layer
    monkeypatch.setattr(transformer_encoder, "small_head_init", lambda head, std: xavier_init(head))
    whole = train(*line, f"output_dir={old.parent.parent / 'whole'}")
    ours, theirs = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (resumed, whole.run.folder))
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    for name, value in theirs["state_dict"].items():
        if name.endswith("qkv.bias"):  # a key's has no gradient but rounding, which Adam makes as large as any
            continue
        torch.testing.assert_close(ours["state_dict"][name], value, **ROUNDING, msg=lambda m, n=name: f"{n}: {m}")


def test_a_finished_run_is_evaluated_as_then(command, old):
    outcome = command("evaluate", f"run={old / 'finished'}")
    assert outcome.status == 0, outcome.error
    then = json.loads((old / "finished" / "summary.json").read_text())["metrics"]
    now = json.loads((old / "finished" / "evaluation" / "copy" / "metrics.json").read_text())
    assert now == pytest.approx({name: value for name, value in then.items() if name.startswith("test/")})


def test_a_finished_run_is_not_trained_again(command, old):
    shutil.move(old / "finished", old / "2026-11-26_15-14-48_transformer_encoder_copy_s2")
    outcome = command("train", *SMALL[:-1], "seed=2", "logger=none", "resume=auto")
    assert "Finished before" in outcome.out


def test_another_run_begins_with_its_weights(command, old):
    outcome = command("train", *SMALL, "seed=3", "logger=none", f"init_from={old / 'finished'}")
    assert outcome.status == 0, outcome.error
    assert "Weights: those of" in outcome.out
    assert "afresh" not in outcome.out


def test_its_network_is_loaded_in_a_notebook(old):
    run = epochal.load(old / "finished")
    saved = current_names(
        read_checkpoint(old / "finished" / "checkpoints" / "best.ckpt")["state_dict"], run.model, prefix="model."
    )
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, saved[f"model.{name}"]), name


@pytest.mark.parametrize("name, reserved", [("text", 0), ("sentences", 4)])
def test_a_text_is_read_with_the_ids_that_the_run_had(command, home, name, reserved):
    """`text` (a GPT on characters) and `sentences` (an LSTM on words) are of commit b71a8b6, before vocabularies were one."""
    (home / "text.txt").write_text(
        "".join(f"{i}: the quick brown fox jumps over the lazy dog.\n" for i in range(200)), newline="\n"
    )
    rows = [{"text": f"a {'good' if i % 2 else 'bad'} film number {i}", "label": i % 2} for i in range(80)]
    (home / "sentences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), newline="\n")
    folder = shutil.copytree(ROOT / "tests" / "old_runs" / name, home / "runs" / name)
    outcome = command("evaluate", f"run={folder}")
    assert outcome.status == 0, outcome.error
    then = json.loads((folder / "summary.json").read_text())["metrics"]
    now = json.loads((folder / "evaluation" / name / "metrics.json").read_text())
    kept = {metric: value for metric, value in then.items() if metric.startswith("test/")}
    assert {metric: now[metric] for metric in kept} == pytest.approx(kept)
    state = read_checkpoint(folder / "checkpoints" / "best.ckpt")["epochal"]["data"]
    assert "reserved" not in state and remembered_data(None, {"epochal": {"data": state}}, None) == state
    assert epochal.load(folder).data.state()["reserved"] == reserved


def test_a_gan_of_an_older_version_goes_on_to_the_same_weights_and_is_evaluated(command, home):
    """Of commit d3ff768, when a GAN had one objective; a SIGKILL ended it after step 4 of 8."""
    small = ("model=gan", "model.width=1", "model.noise_dim=2", "dataset=digits", "dataset.train_size=32")
    line = (*small, "dataset.batch_size=8", "duration=8steps", "log_every=2", "logger=none", "trainer=cpu")
    folder = shutil.copytree(ROOT / "tests" / "old_runs" / "gan", home / "outputs" / "runs" / "gan")
    for arguments in (("train", f"resume={folder}"), ("evaluate", f"run={folder}")):
        outcome = command(*arguments)
        assert outcome.status == 0, outcome.error
    whole = train(*line, f"output_dir={home / 'whole'}")
    ours, theirs = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (folder, whole.run.folder))
    assert ours["global_step"] == theirs["global_step"] == 8
    for name, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, **ROUNDING, msg=lambda m, n=name: f"{n}: {m}")


def test_its_runs_are_compared(command, old):
    outcome = command("compare")
    assert outcome.status == 0, outcome.error
    assert "2 runs" in outcome.out
