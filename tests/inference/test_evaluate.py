"""A run's folder alone rebuilds it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.samples import pixels
from helpers.training import train


@pytest.fixture
def job(home):
    return train(
        "model=mlp", "model.hidden=[16]", "dataset=digits", "duration=2epochs", "logger=none", "callbacks.ema=0.9"
    )


def test_the_run_folder_alone_gives_the_same_test_metrics(job, command, home):
    moved = job.run.folder.rename(home / "moved")
    outcome = command("evaluate", "run=moved")
    assert outcome.status == 0, outcome.error
    written = home / "moved" / "evaluation" / "digits"
    metrics = json.loads((written / "metrics.json").read_text())
    known = json.loads((moved / "summary.json").read_text())["metrics"]
    assert metrics == {name: pytest.approx(known[name]) for name in ("test/loss", "test/accuracy")}
    with (written / "per_class.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["class"] for row in table] == [str(n) for n in range(10)]
    assert sum(int(row["images"]) for row in table) == 359
    for name in ("confusion", "mistakes", "predictions"):
        assert min(Image.open(written / f"{name}.png").size) > 50
    assert "most often taken for" in outcome.out


def test_a_checkpoint_alone_is_enough(job, command, home):
    lone = home / "lone.ckpt"
    lone.write_bytes(job.run.best.read_bytes())
    outcome = command("evaluate", f"checkpoint={lone}")
    assert outcome.status == 0, outcome.error
    assert (home / "evaluation" / "digits" / "metrics.json").exists()


def test_without_a_name_the_newest_run_is_evaluated(job, command):
    assert command("evaluate").status == 0


def test_other_data_of_the_same_shape_is_evaluated(job, command, home):
    np.savez(home / "other.npz", images=pixels(60, 8, 8), labels=np.arange(60) % 10)
    outcome = command("evaluate", f"run={job.run.folder}", "dataset=images", f"dataset.path={home / 'other.npz'}")
    assert outcome.status == 0, outcome.error
    metrics = json.loads((job.run.folder / "evaluation" / "images" / "metrics.json").read_text())
    assert metrics["test/accuracy"] < 0.6, "noise has no digits in it"


def test_a_language_model_is_tested_and_writes(trained, command, copied):
    outcome = command("evaluate", f"run={copied('run', 'text')}")
    assert outcome.status == 0, outcome.error
    assert "perplexity" in outcome.out and "samples" in outcome.out


def test_every_test_image_counts_the_same_in_batches_of_unlike_size(home):
    job = train(
        "model=mlp",
        "model.hidden=[4]",
        "dataset=digits",
        "dataset.eval_batch_size=350",
        "duration=5steps",
        "logger=none",
    )
    prediction, _, labels = (torch.cat(parts) for parts in zip(*job.task._outputs))
    assert len(labels) == 359, "350 and 9"
    share = (prediction == labels).float().mean().item()
    assert job.run.summary()["metrics"]["test/accuracy"] == pytest.approx(share, abs=1e-6)
