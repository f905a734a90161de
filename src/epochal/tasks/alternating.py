"""Training of several parts of a network, each by a loss and an optimizer of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from epochal.data.batching import Batch
from epochal.tasks.base import Metrics, Task


class Alternating(Task):
    """A task whose step is one or several updates, each of a named part of the network by a loss of its own.

    A subclass names the parts and says in `train_parts` which update follows which, for example of a policy and its value
    network, several times on what was sampled once:

        def parts(self):
            return {"policy": self.model.policy, "value": self.model.value}

        def train_parts(self, batch):
            rollout = self.sample(batch)
            for _ in range(self.updates):
                self.update("policy", lambda: self.policy_loss(rollout))
                self.update("value", lambda: self.value_loss(rollout))
            return {"reward": rollout.rewards.mean()}

    Each part has an optimizer and a learning rate schedule as the config says. What is in no part, such as a frozen
    reference, has none. A step is one batch, whatever number of updates it takes: steps, schedules and the duration of the
    training count batches.

    The training logs for each part `<part>_loss` and `<part>_gradient_norm`, before clipping, and the metrics that its loss
    returns, all as means over the updates of a row; and `loss`, the sum of the losses, over the batches that updated every
    part. `trainer.gradient_clip_val` is the limit of the norm of each part's gradients.
    """

    manual_optimization: ClassVar = True

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self.automatic_optimization = False
        self.gradient_clip_val: float | None = None  # Lightning's trainer refuses it where optimization is manual
        self._updates: dict[str, list[Tensor]] = {}  # of the batch under way: values of each metric

    # -- what a subclass defines ------------------------------------------------------------------------------------

    def parts(self) -> Mapping[str, nn.Module]:
        """The parts that are trained, by name; always in the same order, in which checkpoints keep their optimizers."""
        raise NotImplementedError

    def train_parts(self, batch: Batch) -> Metrics:
        """Trains on a batch by calls of `update`; returns further metrics to log, scalars."""
        raise NotImplementedError

    # -- training ---------------------------------------------------------------------------------------------------

    def update(self, part: str, loss: Callable[[], tuple[Tensor, Metrics]]) -> None:
        """One step of a part's optimizer.

        Args:
            part: Its name.
            loss: Computes the loss, a scalar, and metrics to log, scalars. Meanwhile no other part's parameters require
                gradients.

        Raises:
            DivergedError: If the loss is not finite, before it changes any weight.
        """
        optimizer = self._optimizers()[part]
        self.toggle_optimizer(optimizer)
        value, metrics = loss()
        self.check_finite(value)
        optimizer.zero_grad()
        self.manual_backward(value)
        self.untoggle_optimizer(optimizer)
        # not by Lightning's wrapped optimizer, each of whose steps would count; this calls `on_before_optimizer_step`
        self.trainer.strategy.optimizer_step(optimizer, closure=lambda: None)
        for name, metric in {f"{part}_loss": value, **metrics}.items():
            self._updates.setdefault(name, []).append(metric.detach())

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self._updates.clear()
        metrics = self.train_parts(batch)
        metrics = {name: torch.stack(values).mean() for name, values in self._updates.items()} | metrics
        losses = [metrics[name] for part in self.parts() if (name := f"{part}_loss") in metrics]
        if len(losses) == len(self.parts()):
            metrics.setdefault("loss", torch.stack(losses).sum())
        self.accumulate(metrics)
        if self._logs_now:
            self._learning_rate = next(iter(self._optimizers().values())).param_groups[0]["lr"]
            for name in [name for name in self._row.values if name.endswith("_gradient_norm")]:  # the same on all ranks
                self._gradient_norms[name] = torch.stack(self._row.values.pop(name)).mean()
        self._step_schedules()
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress  # is `global_step`
        progress.increment_ready()
        progress.increment_completed()

    def _step_schedules(self) -> None:
        schedules = self.lr_schedulers()
        with warnings.catch_warnings() if not self.global_step else nullcontext():
            if not self.global_step:  # torch warns of a part that has taken no step yet
                warnings.simplefilter("ignore")
            for schedule in schedules if isinstance(schedules, list) else [schedules]:
                schedule.step()  # type: ignore[union-attr]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes the norm of the gradients of a part, and clips them."""
        part = next(name for name, other in self._optimizers().items() if other is optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self._updates.setdefault(f"{part}_gradient_norm", []).append(norm)
        limit = self.gradient_clip_val
        # on a CPU gradients within the limit are not multiplied by one; on a GPU to look at the norm would wait for it
        if limit and (self.device.type != "cpu" or norm + 1e-6 > limit):
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)

    def configure_optimizers(self) -> Any:
        optimizers = [self._make_optimizer(part) for part in self.parts().values()]
        schedules = [self._make_scheduler(optimizer, self.total_steps) for optimizer in optimizers]
        return optimizers, [{"scheduler": schedule, "interval": "step"} for schedule in schedules]

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimizer of each part."""
        return dict(zip(self.parts(), self.trainer.optimizers, strict=True))
