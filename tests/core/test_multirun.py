"""What one of several runs knows of its grid."""

from __future__ import annotations

from epochal.core import multirun


def test_what_was_typed_for_this_run_alone(monkeypatch):
    typed = [
        "model=plain",
        "++task.top_k=3",
        "dataset.config=null",
        "model.input=auto",
        "~callbacks.ema",
        "dataset.path=",
    ]
    assert multirun.typed_alone(typed) == {"model", "task.top_k"}
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert multirun.typed_alone(typed) == set()
    monkeypatch.delenv("WANDB_SWEEP_ID")
    monkeypatch.setenv(multirun.GRID, "{}")
    assert multirun.typed_alone(typed) == set()
