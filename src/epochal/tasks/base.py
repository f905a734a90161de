"""What every task shares: optimisation, logging of metrics, and a stop when the loss is not finite."""

from __future__ import annotations

import functools
import inspect
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from epochal.core.errors import ConfigError, DivergedError
from epochal.core.metrics import METRICS
from epochal.core.seeds import mix
from epochal.core.specs import ImageRange
from epochal.data.batching import Batch
from epochal.models.common.old_names import current_names
from epochal.tasks.artifacts import Artifacts

Metrics = dict[str, Tensor]  # means over a batch (scalars), or values of its rows (B,) where `weight` counts rows
MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
MakeScheduler = Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]


@runtime_checkable
class AnswersPrompts(Protocol):
    """A task whose model writes text for a prompt."""

    response_name: ClassVar[str]  # what a response is, such as "translation"

    def respond(self, prompt: str) -> list[str]:
        """One or several responses.

        Raises:
            ValueError: If the model cannot read the prompt.
        """
        ...


@dataclass
class TrainingRow:
    """Training metrics since the last logged row. Not attributes of the task: setting those is slow in a Module."""

    values: dict[str, list[Tensor]] = field(default_factory=dict)  # by name, one tensor a batch
    count: int = 0  # of batches
    items: list[int | Tensor] = field(default_factory=list)  # of each batch, see `Task.weight`

    def means(self) -> dict[str, Tensor]:
        """Means over rows, or, of metrics that are means over a batch's items, over all items."""
        found = {name: torch.cat([v.flatten() for v in values]).float() for name, values in self.values.items()}
        items = torch.as_tensor(self.items, device=next(iter(found.values())).device, dtype=torch.float32)
        if len(items) != self.count or bool((items == items[0]).all()):
            return {name: values.mean() for name, values in found.items()}
        shares = items / items.sum()
        weighed = {name for name, values in self.values.items() if values[0].dim() == 0 and name != "tokens"}
        return {name: (values * shares).sum() if name in weighed else values.mean() for name, values in found.items()}


@dataclass
class Group:
    """The batches of the optimiser step under way, where it accumulates several or several ranks have their own.

    Attributes:
        unit: Items that the loss of the first batch is the mean of: rows, or predicted tokens; the mean over ranks.
        batches: How many the batches so far are, counted by their items: 1 for each that has as many as the first.
    """

    unit: float = 0
    batches: float = 0.0

    def add(self, items: float, mean_over_ranks: Callable[[float], float] = lambda value: value) -> float:
        """Counts a batch; returns its share, items / unit."""
        self.unit = self.unit or mean_over_ranks(items)
        self.batches += items / self.unit
        return items / self.unit


class Task(pl.LightningModule):
    """An objective around a model that does not depend on it.

    A subclass defines the loss in `step`; training, validation and test follow from it.

    Args:
        model: The network.
        optimizer: Makes the optimizer for a module's parameters.
        scheduler: Makes the learning rate schedule of an optimizer, given the number of steps of the whole training.
        total_steps: That number, at which the training ends; None: as many as the trainer will take.
        log_every: Steps between two logged rows of training metrics.
        metrics: Further metrics of the predictions at validation and test, by name; logged as `val/<name>` and
            `test/<name>`.

    Raises:
        ValueError: If the task cannot compute further metrics, or one is no torchmetrics.Metric or has a bad name.
    """

    head: ClassVar[str]  # what the model must offer, see `core.protocols.HEADS`
    target: ClassVar[str]  # what the data must have, see `core.protocols.TARGETS`
    reports: ClassVar[tuple[str, str] | None] = None  # the metric that chooses the best checkpoint, "max" or "min"
    progress_metric: ClassVar[str] = "loss"  # validation metric in the progress bar
    manual_optimization: ClassVar[bool] = False  # steps its own optimizers, several in a batch
    image_range: ClassVar[ImageRange] = (
        "normalised"  # pixels that the model reads: "normalised", or "symmetric": in [-1, 1]
    )
    explainable: ClassVar[bool] = False  # whether `epochal.tasks.visuals.explain` applies: one label for each image
    animated: ClassVar[tuple[str, ...]] = ()  # pictures of validations that are also shown as an animation
    accepts_metrics: ClassVar[bool] = False  # whether `step` passes predictions and targets to `update_metrics`
    model: Any  # which protocol of `epochal.core.protocols` it fulfils depends on the task
    artifacts: Artifacts

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        total_steps: int | None = None,
        log_every: int = 50,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._make_optimizer, self._make_scheduler = optimizer, scheduler
        self._total_steps, self.log_every = total_steps, log_every
        self.artifacts = Artifacts()
        self._artifacts_step: int | None = None  # of the newest artifacts of a validation
        self.measured: dict[str, float] = {}  # metrics of the newest validation or test
        self._row = TrainingRow()
        self._means: dict[str, MeanMetric] = {}  # of the validation or test metrics in this pass
        self._metrics = self._checked(metrics or {})  # a plain dict keeps them out of the state dict
        self._gradient_norms: dict[str, Tensor] = {}  # of the step that completes a row, by the metric's name
        self._group = Group()
        self._gradients: dict[str, Tensor] = {}  # from a checkpoint written in the middle of an accumulated step
        self._learning_rate = 0.0
        self._row_started = 0.0

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning sets it 40 times a step, and Module takes 2 us to do it
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training.

        Raises:
            ConfigError: If neither the task nor the trainer knows.
        """
        if self._total_steps is None:
            steps = self.trainer.estimated_stepping_batches
            if not math.isfinite(steps):
                raise ConfigError("How long the training is must be told: give pl.Trainer max_epochs or max_steps.")
            self._total_steps = int(steps)
        return self._total_steps

    def setup(self, stage: str) -> None:
        """Lightning's hook; checks that the model reads what the data yields.

        Raises:
            ConfigError: If not, or if there is no data module.
        """
        reads, yields = getattr(self.model, "reads", None), self.data.yields
        if reads is not None and yields not in reads:
            words = " and ".join(kind.__name__.lower() for kind in reads)
            raise ConfigError(
                f"{type(self.model).__name__} reads {words}, but {type(self.data).__name__} yields {yields.__name__.lower()}."
            )

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the network makes of its inputs."""
        return self.model(*inputs, **options)

    def predict_step(self, batch: Batch, batch_idx: int) -> Any:
        """What the network says of the rows of a batch: of a classifier the logits (B, classes)."""
        return self.model(*model_inputs(batch, self.model))

    # -- what a subclass defines ------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The loss to minimise, a scalar, and the metrics to log, the loss among them.

        The metric `tokens`, how many of them an example has in inputs and targets, is logged as tokens per second.
        """
        raise NotImplementedError

    def weight(self, batch: Batch) -> int | Tensor:
        """The number of items that the loss and metrics of a batch are means of: rows, or predicted tokens."""
        return len(batch.targets)

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        """The metrics to log, given their means over a whole split; adds, for example, the perplexity."""
        return means

    def validation_artifacts(self) -> Artifacts:
        """Pictures and texts in the course of training, made at the start of a validation with its weights."""
        return Artifacts()

    def test_artifacts(self) -> Artifacts:
        """Pictures, texts and tables at the end of a test."""
        return Artifacts()

    def notes(self, data: Any) -> list[str]:
        """Sentences that the user should know before a run on this data.

        Raises:
            ConfigError: If the task cannot be run on it.
        """
        return []

    def known(self, data: Any) -> dict[str, Any]:
        """What `summary.json` holds of the task from the start, such as the networks that it uses and does not train.

        Raises:
            ConfigError: If the task cannot be run on this data.
        """
        return {}

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
        if self._gradients and not self._group.batches:  # an older version's checkpoint: each batch counted 1
            started = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
            self._group.batches = started % self.trainer.accumulate_grad_batches
        self._gradients = {}
        for name, values in self._row.values.items():  # a checkpoint's tensors are on the CPU
            self._row.values[name] = [value.to(self.device) for value in values]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self._reseed(batch)
        self._mend_epoch_count()

    def _mend_epoch_count(self) -> None:
        """Where a run is resumed at the end of an epoch, Lightning does not count the beginning of the next one; resumed once
        more, it would repeat an epoch."""
        progress: Any = self.trainer.fit_loop.epoch_progress
        if progress.current.ready != progress.current.processed + 1:
            for count in (progress.current, progress.total):
                count.ready = count.started = count.processed + 1

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """What the callbacks of `epochal train` have done already, as their checkpoints come after it; alone, it is done here."""
        self.log_training_row()
        if self.global_step >= self.total_steps:
            self.trainer.should_stop = True

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        loss, metrics = self.step(batch)
        items = self.weight(batch)
        self.accumulate(metrics, items)
        if self.trainer.accumulate_grad_batches > 1:
            loss = loss * self._group.add(int(items), self._number_over_ranks)
        elif self.trainer.world_size > 1 and (
            isinstance(items, Tensor) or self.data.batch_size % self.trainer.world_size
        ):
            loss = loss * self.share(items)
        return loss

    # Lightning reads the signature at each step; computing it anew costs as much as a layer
    training_step.__signature__ = inspect.signature(training_step)  # type: ignore[attr-defined]

    def share(self, items: int | Tensor) -> Tensor:
        """What a mean over so many items of this rank counts: ranks are averaged, which is the mean over all items only where
        each has as many."""
        count = torch.as_tensor(items, dtype=torch.float32, device=self.device)
        return count / self._over_ranks(count, "mean").clamp(min=1e-6)  # nothing here waits for a GPU

    def _over_ranks(self, value: Tensor, how: str) -> Tensor:
        """The "mean" or "sum" of a tensor over ranks; the tensor itself where there is one."""
        if self._trainer is None or self.trainer.world_size == 1:
            return value
        return self.trainer.strategy.reduce(value.clone(), reduce_op=how)

    def accumulate(self, metrics: Metrics, items: int | Tensor = 1) -> None:
        """Adds the training metrics of a batch, which are means over so many items, to the next logged row.

        Raises:
            DivergedError: If the loss, where it is among them, is not finite.
        """
        if "loss" in metrics:
            self.check_finite(metrics["loss"])
        values = self._row.values
        for name, value in metrics.items():
            values.setdefault(name, []).append(value.detach())
        self._row.items.append(items)
        self._row.count += 1

    def check_finite(self, loss: Tensor) -> None:
        """Stops the training if the loss is not finite.

        Raises:
            DivergedError: With the step and the first parameter that is not finite.
        """
        # reading a number from a GPU waits for it, so there only the steps that are logged are checked
        if (self.device.type == "cpu" or self._logs_now) and not math.isfinite(loss.item()):
            raise DivergedError(self._divergence(loss.item()))

    @property
    def _logs_now(self) -> bool:
        """Whether the current step completes a logged row."""
        return (self.global_step + 1) % self.log_every == 0 or self.global_step + 1 == self.total_steps

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self._group.batches:
            self._average_group()
        if self._logs_now:  # Lightning clips gradients after this
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            self._gradient_norms["gradient_norm"] = torch.nn.utils.get_total_norm(gradients)
            self._learning_rate = optimizer.param_groups[0]["lr"]  # the schedule changes it after this step

    def _average_group(self) -> None:
        """Makes the gradient the mean over all items of the accumulated batches, however many and large these are.

        Lightning divides each batch's loss by `accumulate_grad_batches`, also in the last group of an epoch, which may
        have fewer.
        """
        batches = self._group.batches
        if self.trainer.world_size > 1:
            batches = self._number_over_ranks(batches)
        if batches != self.trainer.accumulate_grad_batches:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, self.trainer.accumulate_grad_batches / batches)
        self._group = Group()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning's, but on a CPU gradients within the limit are not multiplied by one: half of the cost."""
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm") and self.device.type == "cpu":
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if norm + 1e-6 > gradient_clip_val:  # torch's formula
                torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def log_training_row(self) -> None:
        """Logs the training metrics if the step just taken completes a row; call it before that step's checkpoint."""
        if self._gradient_norms:
            metrics = self._row_over_ranks()
            metrics |= {name: norm.item() for name, norm in self._gradient_norms.items()}
            metrics["learning_rate"] = self._learning_rate
            now = time.perf_counter()
            speed = self._row.count * self.data.batch_size / (now - self._row_started)
            if "tokens" in metrics:
                metrics["tokens_per_second"] = metrics.pop("tokens") * speed
            metrics["examples_per_second"] = speed
            self.record("train", metrics)
            self._row, self._gradient_norms, self._row_started = TrainingRow(), {}, now

    def _row_over_ranks(self) -> dict[str, float]:
        """The means of the row over all ranks, each as much as it has items."""
        means = self._row.means()
        if self.trainer.world_size == 1:
            return {name: mean.item() for name, mean in means.items()}
        items = float(sum(int(count) for count in self._row.items))
        share = items / self._number_over_ranks(items)
        return {name: self._mean_over_ranks(mean * share) for name, mean in means.items()}

    def _reseed(self, batch: Batch) -> None:
        """Makes dropout and noise depend on the step alone, so that a resumed run is exactly the same."""
        seed = mix(batch.seed, self.global_rank)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed costs a millisecond: it keeps a stack trace
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def exclude_from_speed(self, seconds: float) -> None:
        """Leaves time that was not spent on training out of the examples per second of the current row."""
        self._row_started += seconds

    def _mean_over_ranks(self, value: Tensor) -> float:
        if self.trainer.world_size > 1:
            value = self.trainer.strategy.reduce(value.clone(), reduce_op="mean")
        return value.item()

    def _number_over_ranks(self, value: float) -> float:
        return self._mean_over_ranks(torch.tensor(value, dtype=torch.float64, device=self.device))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.automatic_optimization and self.trainer.fit_loop.epoch_loop._should_accumulate():
            # in the middle of a step of several batches: the gradients so far belong to the state
            gradients = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
            checkpoint["gradients"], checkpoint["group"] = gradients, asdict(self._group)
        values = {name: torch.stack(values) for name, values in self._row.values.items()}
        checkpoint["row"] = {
            "values": values,
            "count": self._row.count,
            "items": [int(count) for count in self._row.items],
        }
        checkpoint["artifacts_step"] = self._artifacts_step

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for kept in ("state_dict", "gradients", "current_model_state"):  # the last is that of an averaged model
            if kept in checkpoint:
                checkpoint[kept] = current_names(checkpoint[kept], self.model, prefix="model.")
        row = checkpoint.get("row", {})  # older versions' checkpoints store sums instead: these lose the row under way
        if "values" in row:
            self._row = TrainingRow(
                {name: list(values) for name, values in row["values"].items()}, row["count"], list(row.get("items", ()))
            )
        self._artifacts_step = checkpoint.get("artifacts_step")
        self._gradients = checkpoint.get("gradients", {})
        self._group = Group(**checkpoint.get("group", {}))

    def record(self, split: str, metrics: Mapping[str, float]) -> None:
        """Sends a row of metrics to every logger, and to `trainer.callback_metrics`."""
        named = {f"{split}/{name}": value for name, value in metrics.items()}
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in named.items()})
        for logger in self.loggers:
            if split == "train" or not self._logged_by_lightning:
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
        self._start_pass()
        self._validation_started = time.perf_counter()
        self.artifacts = Artifacts()
        if self._artifacts_due() and self.trainer.is_global_zero:
            self.artifacts, self._artifacts_step = self.validation_artifacts(), self.global_step

    def _artifacts_due(self) -> bool:
        """About twenty times are enough for a run, however often it is validated."""
        if self.trainer.sanity_checking:
            return False
        if self._artifacts_step is None or self.trainer.state.fn != "fit":
            return True
        return self.global_step - self._artifacts_step >= self.total_steps / 20 or self.global_step >= self.total_steps

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._measure(batch)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self._record_means("val")
        self._return_measured()
        self.exclude_from_speed(time.perf_counter() - self._validation_started)

    def on_test_epoch_start(self) -> None:
        self._start_pass()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._measure(batch)

    def on_test_epoch_end(self) -> None:
        self._record_means("test")
        if self.trainer.is_global_zero:
            self.artifacts = self.test_artifacts()
        self._return_measured()

    def _return_measured(self) -> None:
        """Makes Lightning log the metrics, and return them; of several processes only the first has them all."""
        if self._logged_by_lightning:
            self.log_dict(self.measured, rank_zero_only=self.trainer.world_size > 1)

    @property
    def _logged_by_lightning(self) -> bool:
        """Whether this is `trainer.validate` or `trainer.test` without the loggers of `epochal train`."""
        return self.trainer.state.fn != "fit" and not any(hasattr(logger, "log_artifacts") for logger in self.loggers)

    def _start_pass(self) -> None:
        """Forgets the metrics of the last pass over a validation or test split."""
        self._means = {}
        for metric in self._metrics.values():
            metric.to(self.device)
            metric.reset()

    def _measure(self, batch: Batch) -> None:
        count = int(self.weight(batch))
        if not count:  # this rank's part of a last, small batch
            return
        self._reseed(batch)
        _, metrics = self.step(batch)
        metrics.pop("tokens", None)  # only the speed of the training is logged
        for name, value in metrics.items():
            if name not in self._means:
                # not in the precision of the weights: bfloat16 counts no further than 256
                self._means[name] = MeanMetric(nan_strategy="disable").to(self.device)
                self._means[name].set_dtype(torch.float32)
            # a value an example: with this strategy, weights given to MeanMetric are ignored
            self._means[name].update(value.detach().float().expand(count))

    def update_metrics(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds a batch of a validation or test to the metrics that were given to the task.

        Args:
            predictions: Logits (N, classes), or numbers (N, count).
            targets: Labels (N,), or numbers (N, count).
        """
        if not self.training:
            for metric in self._metrics.values():
                metric.update(predictions.detach(), targets)

    def _record_means(self, split: str) -> None:
        means = {name: mean.compute().item() for name, mean in self._means.items()}
        metrics = self.derive(means, split) | (self.artifacts.metrics if split == "val" else {})
        metrics |= {name: _scalar(name, metric.compute()) for name, metric in self._metrics.items()}
        self.measured = {f"{split}/{name}": value for name, value in metrics.items()}
        self.record(split, metrics)

    @classmethod
    def _checked(cls, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
        """The metrics given to the task.

        Raises:
            ValueError: If there are any and the task accepts none, or one is no metric or has a bad name.
        """
        if metrics and not cls.accepts_metrics:
            raise ValueError(
                f"metrics={{{', '.join(metrics)}}} cannot be computed: {cls.__name__} has no predictions to compare "
                "with targets; classification, sequence_labeling and regression have."
            )
        for name, metric in metrics.items():
            if not isinstance(metric, Metric):
                raise ValueError(f"metrics.{name} must be a torchmetrics.Metric, not {type(metric).__name__}.")
            if not name.isidentifier():
                raise ValueError(f"metrics.{name}: a name must be letters, digits and _, and not begin with a digit.")
            if name in METRICS:
                raise ValueError(f"metrics.{name}: Epochal itself has a metric {name}; choose another name.")
        return dict(metrics)

    @property
    def data(self) -> Any:
        """The `epochal.data.DataModule` of this run, of the kind that the task learns from.

        Raises:
            ConfigError: If there is none.
        """
        data = getattr(self._trainer, "datamodule", None)  # Lightning sets it
        if data is None:
            raise ConfigError(
                f"{type(self).__name__} has no data yet: give it to the trainer as a data module, e.g. trainer.fit(task, data)."
            )
        return data


def model_inputs(batch: Batch, model: nn.Module) -> tuple[Tensor, ...]:
    """The arguments of a model's forward: the inputs, their lengths (B,) if they differ, and the segments of pairs of texts
    if it takes them."""
    if batch.segments is not None and batch.lengths is not None and _takes_segments(type(model).forward):
        return batch.inputs, batch.lengths, batch.segments
    return (batch.inputs,) if batch.lengths is None else (batch.inputs, batch.lengths)


@functools.cache
def _takes_segments(forward: Callable[..., Any]) -> bool:
    return "segments" in inspect.signature(forward).parameters


def at_least_single(outputs: Tensor) -> Tensor:
    """The outputs of a network in half precision as float32, others as they are: a loss needs more than three digits."""
    return outputs.float() if outputs.dtype.itemsize < 4 else outputs


def _scalar(name: str, value: Any) -> float:
    """The number that a metric computed.

    Raises:
        ConfigError: If it computed several.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ConfigError(
            f"task.metrics.{name} computes more than one number; choose one that computes a single number, "
            "e.g. with average=macro."
        )
    return float(value)
