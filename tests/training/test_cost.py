"""What a run cost, by itself."""

from __future__ import annotations

import csv
import sys
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from epochal.core.specs import Classes, Tokens
from epochal.data import SentenceData
from epochal.training.cost import flops_of, peak_memory_mb, reset_peak_memory
from epochal.training.run_folder import Run
from helpers.training import train

SMALL = ("model=mlp", "model.hidden=[16]", "dataset=digits", "dataset.train_size=320", "logger=none", "trainer=cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot reset the resident peak")
def test_the_peak_memory_of_a_run_is_not_that_of_a_larger_one_before_it(tmp_path):
    small = (*SMALL, "duration=1epochs", f"output_dir={tmp_path}")
    train(*small)  # imports what it needs
    array = np.ones(600_000_000, np.uint8)
    del array
    larger = peak_memory_mb()
    assert train(*small).run.summary()["peak_memory_mb"] < larger - 400


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot reset the resident peak")
def test_the_peak_counts_what_was_freed_since_the_reset():
    reset_peak_memory()
    before = peak_memory_mb()
    array = np.ones(300_000_000, np.uint8)
    del array
    assert 290 < peak_memory_mb() - before < 400


class PerToken(nn.Module):
    """Two FLOPs for each token, and each of 8 by 3 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 3, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:  # (B, T) -> (B, T, 3)
        return self.head(self.embed(tokens))


@pytest.mark.parametrize(
    ("mean", "at_mean"),
    [(None, {}), (16.4, {"flops_at_mean_length": 2 * 16 * 24}), (70.0, {"flops_at_mean_length": 2 * 64 * 24})],
)
def test_flops_of_texts_are_those_at_most_and_those_at_the_mean_length(mean, at_mean):
    lengths = {"mean_lengths": [mean, None]} if at_mean else {}
    found = flops_of(PerToken(), (Tokens(50, 64), Classes(("a", "b", "c"))), (mean, None))
    assert found == {"flops": 2 * 64 * 24, **at_mean, **lengths}


def test_the_mean_length_is_that_of_padded_batches_whatever_the_seed(tmp_path):
    rows = "".join(f"{' '.join('word' for _ in range(n % 40 + 1))},{n % 2}\n" for n in range(400))
    (tmp_path / "set.csv").write_text(f"text,label\n{rows}")

    def prepared(**options: Any) -> SentenceData:
        data = SentenceData(name="sentences", path=str(tmp_path / "set.csv"), **options)
        data.prepare()
        return data

    own = prepared(batch_size=1).rows("train")[0].tokens.lengths
    assert prepared(batch_size=1).mean_lengths()[0] == pytest.approx(
        float(own.double().mean()), rel=0.1
    )  # of 200 batches
    assert prepared(batch_size=len(own)).mean_lengths() == (40, None)
    some = {prepared(batch_size=16, seed=seed).mean_lengths()[0] for seed in (1, 2)}
    assert len(some) == 1 and own.double().mean() < some.pop() < 40


class StopAt(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def test_the_last_and_best_values_of_a_summary_are_those_of_its_rows_and_checkpoint(tmp_path):
    """Unrounded: of a run that ends between two validations, of one that is stopped there, and of one that goes on."""
    length = ("duration=12steps", "log_every=2", "callbacks.checkpoint_every=3")  # an epoch is 5 steps
    check_values(train(*SMALL, *length, f"output_dir={tmp_path / 'whole'}").run)
    with pytest.raises(KeyboardInterrupt):
        train(*SMALL, *length, f"output_dir={tmp_path / 'cut'}", callbacks=(StopAt(8),))
    (folder,) = (tmp_path / "cut").glob("*/*")
    check_values(Run(folder))
    check_values(train(f"resume={folder}").run)


def check_values(run: Any) -> None:
    with run.metrics.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    summary = run.summary()
    for name, value in summary["metrics"].items():
        assert value == float([row[name] for row in rows if row[name]][-1])
    best = summary["best"]
    assert [float(row[best["metric"]]) for row in rows if int(row["step"]) == best["step"]] == [best["value"]]
    checkpoint = torch.load(run.best, weights_only=True)
    assert checkpoint["global_step"] == best["step"] and best in checkpoint["callbacks"].values()
