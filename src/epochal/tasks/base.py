"""What every objective shares: one optimiser or more, metrics by one name everywhere, and a stop when the loss is lost."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from epochal.core.errors import DivergedError
from epochal.core.seeds import mix
from epochal.data.batching import Batch
from epochal.tasks.artifacts import Artifacts

if TYPE_CHECKING:
    pass

Metrics = dict[str, Tensor]  # means over a batch; or, where a task's `weight` counts rows, a value a row
MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
MakeScheduler = Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]


@dataclass
class Row:
    """Training metrics since the last logged row. No attributes of the task: setting those is slow in a Module."""

    values: dict[str, list[Tensor]] = field(default_factory=dict)  # by name, one tensor a batch
    count: int = 0

    def means(self) -> dict[str, Tensor]:
        return {name: torch.cat([v.flatten() for v in values]).float().mean() for name, values in self.values.items()}


class Task(pl.LightningModule):
    """An objective around a network that knows nothing of it.

    A subclass says in `step` what the loss is; what is learned, validated and tested follows.

    Args:
        model: The network.
        optimizer: Makes the optimiser of a module.
        scheduler: Makes the schedule of an optimiser, given how many steps the training has in all.
        total_steps: That number.
        log_every: Steps between two logged rows of training metrics.
    """

    reports: ClassVar[tuple[str, str] | None] = None  # the metric that chooses the best checkpoint, "max" or "min"
    example_metric: ClassVar[str] = "loss"  # shown in the progress bar
    model: Any  # its contract depends on the objective
    artifacts: Artifacts

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        total_steps: int,
        log_every: int = 50,
    ) -> None:
        super().__init__()
        self.model = model
        self._make_optimizer, self._make_scheduler = optimizer, scheduler
        self.total_steps, self.log_every = total_steps, log_every
        self.artifacts = Artifacts()
        self._shown_at = -total_steps
        self.measured: dict[str, float] = {}  # by the newest validation or test
        self._row = Row()
        self._means: dict[str, MeanMetric] = {}  # of the validation or test metrics in this pass
        self._gradient_norm: Tensor | None = None
        self._gradients: dict[str, Tensor] = {}  # of a step that a kill cut in two
        self._learning_rate = 0.0
        self._row_started = 0.0

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning sets it 40 times a step, and Module takes 2 us to do it
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    # -- what a subclass defines ------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss to learn from and metrics to log, the loss among them.

        The metric `tokens`, how many an example has, read and written, is logged as tokens per second of the training.
        """
        raise NotImplementedError  # each objective does

    def weight(self, batch: Batch) -> int:
        """Of how many equals the metrics of a batch are the mean: rows, or the tokens that are predicted."""
        return len(batch.targets)

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        """Metrics that follow from the means over a whole split, such as a perplexity."""
        return means

    def show(self) -> Artifacts:
        """What to look at while it learns; called at each validation, with the weights that are validated."""
        return Artifacts()

    def test_artifacts(self) -> Artifacts:
        """What to look at after a test."""
        return Artifacts()

    # -- training ---------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        optimizer = self._make_optimizer(self.model)
        schedule = self._make_scheduler(optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        self._row_started = time.perf_counter()
        for name, parameter in self.named_parameters():
            if name in self._gradients:
                parameter.grad = self._gradients[name].to(parameter)
        self._gradients = {}
        for name, values in self._row.values.items():  # a checkpoint's tensors are on the CPU
            self._row.values[name] = [value.to(self.device) for value in values]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self._reseed(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        loss, metrics = self.step(batch)
        self.note(metrics)
        return loss

    # Lightning asks for it at each step; to find it out anew costs as much as a layer
    training_step.__signature__ = inspect.signature(training_step)  # type: ignore[attr-defined]

    def note(self, metrics: Metrics) -> None:
        """Adds a batch's training metrics to those of the next logged row, and checks the loss."""
        self.check(metrics["loss"])
        values = self._row.values
        for name, value in metrics.items():
            values.setdefault(name, []).append(value.detach())
        self._row.count += 1

    def check(self, loss: Tensor) -> None:
        """Stops where the loss is no longer finite.

        Raises:
            DivergedError: With the step and the first parameter that is not finite.
        """
        # reading a number off a GPU waits for it, so there only the steps that are logged are looked at
        if (self.device.type == "cpu" or self._logs_now) and not math.isfinite(loss.item()):
            raise DivergedError(self._divergence(loss.item()))

    @property
    def _logs_now(self) -> bool:
        """Whether the step that is being taken ends a logged row."""
        return (self.global_step + 1) % self.log_every == 0 or self.global_step + 1 == self.total_steps

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self._logs_now:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            self._gradient_norm = torch.nn.utils.get_total_norm(gradients)
            self._learning_rate = optimizer.param_groups[0]["lr"]  # of this step; the schedule moves on after it

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning's, but on a CPU short gradients are not multiplied by one, which is half of clipping's work."""
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm") and self.device.type == "cpu":
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if norm + 1e-6 > gradient_clip_val:  # torch's formula
                torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def end_row(self) -> None:
        """Logs the row that the step just taken ends, if it ends one; before that step's checkpoint is written."""
        if self._gradient_norm is not None:
            metrics = {name: self._of_all_ranks(mean) for name, mean in self._row.means().items()}
            metrics["gradient_norm"] = self._gradient_norm.item()
            metrics["learning_rate"] = self._learning_rate
            now = time.perf_counter()
            speed = self._row.count * self.data.batch_size / (now - self._row_started)
            if "tokens" in metrics:
                metrics["tokens_per_second"] = metrics.pop("tokens") * speed
            metrics["examples_per_second"] = speed
            self.record("train", metrics)
            self._row, self._gradient_norm, self._row_started = Row(), None, now

    def _reseed(self, batch: Batch) -> None:
        """Dropout and noise become a function of the step, so that resuming is exact."""
        seed = mix(batch.seed, self.global_rank)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed costs a millisecond: it keeps a stack trace
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def pause(self, seconds: float) -> None:
        """Leaves so many of the last seconds out of the training's speed."""
        self._row_started += seconds

    def _of_all_ranks(self, value: Tensor) -> float:
        if self.trainer.world_size > 1:
            value = self.trainer.strategy.reduce(value.clone(), reduce_op="mean")
        return value.item()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.automatic_optimization and self.trainer.fit_loop.epoch_loop._should_accumulate():
            # in the middle of a step of several batches: what they gave so far belongs to the state
            gradients = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
            checkpoint["gradients"] = gradients
        values = {name: torch.stack(values) for name, values in self._row.values.items()}
        checkpoint["row"] = {"values": values, "count": self._row.count}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        row = checkpoint["row"]  # runs of before kept sums: they lose what the row under way has so far
        if "values" in row:
            self._row = Row({name: list(values) for name, values in row["values"].items()}, row["count"])
        self._gradients = checkpoint.get("gradients", {})

    def record(self, split: str, metrics: Mapping[str, float]) -> None:
        """Sends a row to every logger, and keeps it where callbacks look for it."""
        named = {f"{split}/{name}": value for name, value in metrics.items()}
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in named.items()})
        for logger in self.loggers:
            logger.log_metrics(named, step=self.global_step)

    def _divergence(self, loss: float) -> str:
        names = (name for name, p in self.model.named_parameters() if not torch.isfinite(p).all())
        culprit = next(names, None)
        where = f"the first parameter that is not finite is {culprit}" if culprit else "every parameter is still finite"
        return (
            f"The loss is {loss} at step {self.global_step + 1:,}; {where}. "
            "Try a smaller optimizer.lr, or trainer.gradient_clip_val=1."
        )

    # -- validation and test ----------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._means = {}
        self._validation_started = time.perf_counter()
        self.artifacts = Artifacts()
        # some twenty looks are enough for a run, however often it is validated
        due = self.global_step - self._shown_at >= self.total_steps / 20 or self.global_step >= self.total_steps
        if due and self.trainer.is_global_zero:
            self.artifacts, self._shown_at = self.show(), self.global_step

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._measure(batch)

    def on_validation_epoch_end(self) -> None:
        self._record_means("val")
        self.pause(time.perf_counter() - self._validation_started)

    def on_test_epoch_start(self) -> None:
        self._means = {}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._measure(batch)

    def on_test_epoch_end(self) -> None:
        self._record_means("test")
        if self.trainer.is_global_zero:
            self.artifacts = self.test_artifacts()

    def _measure(self, batch: Batch) -> None:
        count = self.weight(batch)
        if not count:  # this rank's part of a last, small batch
            return
        self._reseed(batch)
        _, metrics = self.step(batch)
        metrics.pop("tokens", None)  # those of the training say how fast it is
        for name, value in metrics.items():
            if name not in self._means:
                self._means[name] = MeanMetric(nan_strategy="disable").to(self.device)
            # a value an example: with this strategy, weights given to MeanMetric are ignored
            self._means[name].update(value.detach().float().expand(count))

    def _record_means(self, split: str) -> None:
        means = {name: mean.compute().item() for name, mean in self._means.items()}
        metrics = self.derive(means, split) | (self.artifacts.metrics if split == "val" else {})
        self.measured = {f"{split}/{name}": value for name, value in metrics.items()}
        self.record(split, metrics)

    @property
    def data(self) -> Any:
        """The `epochal.data.Data` of this run, of the kind that the objective learns from."""
        return self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
