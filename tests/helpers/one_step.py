"""One training step of a model of conf/ on small data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epochal.config.finalize import finalize
from epochal.config.instantiate import make_model, target_class
from epochal.config.validate import validate
from epochal.core.errors import ConfigError
from epochal.core.specs import Classes, Images, Tokens
from epochal.training.factories import make_data, make_task
from helpers.training import composed


def check_every_parameter_learns(model: str, tmp_path: Path) -> None:
    """Asserts that the loss of one step is finite, and that no parameter is without a gradient."""
    config = finalize(composed(f"model={model}", *dataset_for(model, tmp_path), "dataset.batch_size=8"))
    validate(config)
    data = make_data(config)
    inputs, outputs = data.specs(data.learns)
    task = make_task(config, make_model(config, inputs, outputs), total_steps=10)
    batch = data.on_after_batch_transfer(next(iter(data._loader("train", shuffle=True))), 0)
    task.trainer = type("Trainer", (), {"testing": False, "datamodule": data, "global_rank": 0})()  # type: ignore[assignment]
    loss, _ = task.step(batch)
    loss.backward()
    assert torch.isfinite(loss)
    still = [n for n, p in task.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still, "no gradient reaches these"


def dataset_for(model: str, tmp_path: Path) -> list[str]:
    """Overrides that choose small data of the kind that the model reads."""
    config = composed(f"model={model}")
    network = target_class(config.model._target_)
    if Tokens in network.reads and "target_text" in network.heads:
        return ["dataset=reverse", "dataset.train_size=64"]
    if "target_text" in network.heads:
        return ["dataset=digit_captions", "dataset.source=digits", "dataset.train_size=64"]
    classifies = "classes" in network.heads
    if "context_length" in config.dataset or network.reads == (Tokens,):
        (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 99)
        text = ["dataset=text", f"dataset.path={tmp_path / 'text.txt'}", "dataset.context_length=16"]
        return [*text, "task=masked_lm"] if "masked_token" in network.heads else text
    digits, images = ["dataset=digits", "dataset.train_size=64"], Images(1, 8, 8)
    with torch.device("meta"):
        try:
            make_model(config, images, Classes(tuple("0123456789")) if classifies else images)
        except ConfigError as error:  # made for larger images, or of a library that is not installed
            if "is not installed" in str(error):
                pytest.skip(str(error))
            return [*digits, "dataset.image_size=32"]
    return digits
