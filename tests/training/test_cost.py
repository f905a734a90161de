"""What a run cost, by itself."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from epochal.training.cost import peak_memory_mb, reset_peak_memory
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
