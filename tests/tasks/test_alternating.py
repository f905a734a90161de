"""Several parts of a network, each trained by a loss of its own."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from epochal import data, optim
from epochal.core.errors import DivergedError
from epochal.data.batching import Batch
from epochal.tasks.alternating import Alternating
from epochal.tasks.base import Metrics

ROWS: dict[str, Any] = {"train_size": 32, "validation": 8, "test": 8, "batch_size": 8, "eval_batch_size": 8}
RATE = 0.1


class TwoParts(Alternating):
    """Two updates of `policy` in each batch, and one of `value` in every second batch; `value` reads what `policy` gives."""

    head, target = "classes", "classes"

    def parts(self) -> dict[str, nn.Module]:
        return {"policy": self.model.policy, "value": self.model.value}

    def train_parts(self, batch: Batch) -> Metrics:
        images = batch.inputs.flatten(1)
        for _ in range(2):
            self.update("policy", lambda: self.loss(images))
            if not self.global_step:
                self.others = [p.grad for p in (*self.model.value.parameters(), *self.model.frozen.parameters())]
        if self.global_step % 2:
            self.update("value", lambda: self.loss(images))
        return {"reward": images.mean()}

    def loss(self, images: Tensor) -> tuple[Tensor, Metrics]:
        values = self.model.value(self.model.policy(images) + self.model.frozen(images))
        return self.scale * values.square().mean(), {"largest": values.abs().max()}

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        loss, metrics = self.loss(batch.inputs.flatten(1))
        return loss, {"loss": loss, **metrics}


class Rows(pl.loggers.CSVLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__("unused")
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append({"step": step, **metrics})

    def save(self) -> None:
        pass


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    made = nn.ModuleDict({"policy": nn.Linear(64, 4), "value": nn.Linear(4, 1), "frozen": nn.Linear(64, 4)})
    made["frozen"].requires_grad_(False)
    return made


def fitted(task: TwoParts, clip: float | None = None) -> list[dict[str, float]]:
    """The rows that four batches log."""
    task.gradient_clip_val, logger = clip, Rows()
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(**quiet, logger=logger, accelerator="cpu", max_epochs=1, limit_val_batches=0)
    trainer.fit(task, data.ImageData(name="digits", path="package:digits.npz", **ROWS))
    return [row for row in logger.rows if "train/learning_rate" in row]


def two_parts(log_every: int = 1, scale: float = 1.0) -> TwoParts:
    task = TwoParts(
        model=network(),
        optimizer=lambda part: torch.optim.SGD(part.parameters(), lr=RATE),
        scheduler=lambda optimizer, steps: optim.cosine(optimizer, steps, warmup=0.0, final=0.0),
        log_every=log_every,
    )
    task.scale = scale
    return task


@pytest.mark.filterwarnings("ignore")
def test_a_batch_is_one_step_and_every_metric_is_a_mean_over_its_own_updates() -> None:
    task = two_parts(log_every=2)
    rows, single = fitted(task), fitted(two_parts())
    assert task.global_step == task.total_steps == 4
    assert [row["step"] for row in rows] == [2, 4] and [row["step"] for row in single] == [1, 2, 3, 4]
    for schedule, optimizer in zip(task.lr_schedulers(), task.trainer.optimizers, strict=True):
        assert schedule.last_epoch == 4 and optimizer.param_groups[0]["lr"] < RATE / 10
    for name in ("value_loss", "value_gradient_norm", "loss"):  # of the batches that updated the part, or all parts
        assert [f"train/{name}" in row for row in single] == [False, True, False, True]
        assert rows[0][f"train/{name}"] == pytest.approx(single[1][f"train/{name}"])
    for name in ("policy_loss", "policy_gradient_norm", "reward"):
        assert rows[0][f"train/{name}"] == pytest.approx(
            single[0][f"train/{name}"] / 2 + single[1][f"train/{name}"] / 2
        )
    assert single[1]["train/loss"] == pytest.approx(single[1]["train/policy_loss"] + single[1]["train/value_loss"])
    assert single[0]["train/learning_rate"] == pytest.approx(RATE)


@pytest.mark.filterwarnings("ignore")
def test_an_update_changes_its_own_part_and_leaves_no_gradient_elsewhere() -> None:
    task = two_parts()
    fitted(task)
    for name, part in network().items():
        assert torch.equal(task.model[name].weight, part.weight) == (name == "frozen")
        assert task.model[name].weight.requires_grad == part.weight.requires_grad
    assert task.others == [None] * 4, "of the value network after an update of the policy, before its own first"


@pytest.mark.filterwarnings("ignore")
def test_each_part_is_clipped_by_its_own_norm_and_the_norms_are_those_before() -> None:
    task = two_parts(scale=1e3)
    rows = fitted(task, clip=0.01)
    assert rows[0]["train/policy_gradient_norm"] > 1 and rows[1]["train/value_gradient_norm"] > 1
    for name, updates in (("policy", 8), ("value", 2)):
        pairs = zip(task.model[name].parameters(), network()[name].parameters(), strict=True)
        moved = torch.cat([(parameter - start).flatten() for parameter, start in pairs]).norm()
        assert 0 < moved <= updates * RATE * 0.01 * 1.01


@pytest.mark.filterwarnings("ignore")
def test_a_limit_that_no_gradient_reaches_changes_nothing() -> None:
    clipped, free = two_parts(), two_parts()
    fitted(clipped, clip=1e9)
    fitted(free)
    for one, other in zip(clipped.parameters(), free.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore")
def test_a_loss_that_is_not_finite_ends_the_training_before_it_changes_a_weight() -> None:
    task = two_parts(scale=float("nan"))
    with pytest.raises(DivergedError, match="The loss is nan at step 1"):
        fitted(task)
    assert torch.equal(task.model["policy"].weight, network()["policy"].weight)
