"""torchmetrics objects that are given to a task are computed at validation and test."""

from types import SimpleNamespace

import pytest
import torch
import torchmetrics

from epochal.core.errors import ConfigError
from epochal.core.specs import IGNORED
from epochal.data import Batch
from epochal.tasks import Classification, LanguageModeling, Regression, SequenceLabeling

OPTIONS = {"optimizer": None, "scheduler": None, "total_steps": 1}


class Given(torch.nn.Module):
    """Returns its inputs as outputs."""

    def forward(self, inputs, lengths=None):
        return inputs


def made(kind, **metrics):
    task = kind(model=Given(), metrics=metrics, **OPTIONS).eval()
    data = SimpleNamespace(classes=None)
    task.trainer = SimpleNamespace(
        datamodule=data, testing=False, world_size=1, callback_metrics={}, loggers=[], global_rank=0
    )
    return task


def passed(task, split, *batches):
    """One pass over a split; returns what it measured."""
    task._start_pass()
    for number, batch in enumerate(batches):
        (task.validation_step if split == "val" else task.test_step)(batch, number)
    task._record_means(split)
    return task.measured


def macro_f1(prediction, labels, classes):
    scores = []
    for c in range(classes):
        hits = ((prediction == c) & (labels == c)).sum().item()
        scores.append(2 * hits / max((prediction == c).sum().item() + (labels == c).sum().item(), 1))
    return sum(scores) / classes


def test_f1_of_a_classifier_is_that_of_the_whole_split_and_starts_anew_at_each_pass():
    logits, labels = torch.randn(30, 3), torch.randint(3, (30,))
    batches = [Batch(logits[:20], labels[:20], 0), Batch(logits[20:], labels[20:], 0)]
    task = made(Classification, f1=torchmetrics.F1Score("multiclass", num_classes=3, average="macro"))
    expected = macro_f1(logits.argmax(1), labels, 3)
    for split in ("val", "test"):
        measured = passed(task, split, *batches)
        assert set(measured) == {f"{split}/loss", f"{split}/accuracy", f"{split}/f1"}
        assert measured[f"{split}/f1"] == pytest.approx(expected)
    assert task.trainer.callback_metrics["test/f1"].item() == pytest.approx(expected)


def test_only_labelled_steps_of_a_sequence_count():
    logits = torch.randn(2, 3, 4)
    labels = torch.tensor([[1, 0, IGNORED], [IGNORED, 2, 1]])
    f1 = torchmetrics.F1Score("multiclass", num_classes=4, average="macro")
    measured = passed(made(SequenceLabeling, f1=f1), "val", Batch(logits, labels, 0))
    labelled = labels != IGNORED
    direct = torchmetrics.functional.f1_score(
        logits[labelled], labels[labelled], "multiclass", num_classes=4, average="macro"
    )
    assert measured["val/f1"] == pytest.approx(direct.item())


def test_the_r2_score_of_a_regression():
    outputs, targets = torch.randn(20, 1), torch.randn(20, 1)
    measured = passed(made(Regression, r2=torchmetrics.R2Score()), "test", Batch(outputs, targets, 0))
    expected = 1 - ((outputs - targets) ** 2).sum() / ((targets - targets.mean()) ** 2).sum()
    assert measured["test/r2"] == pytest.approx(expected.item(), rel=1e-4)


def test_training_adds_nothing_to_them_and_checkpoints_do_not_store_them():
    metric = torchmetrics.ConfusionMatrix("multiclass", num_classes=3)
    metric.persistent(True)
    task = made(Classification, counts=metric).train()
    task.step(Batch(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), 0))
    assert metric.confmat.sum() == 0 and not task.state_dict()


@pytest.mark.parametrize(
    "kind, metrics, says",
    [
        (LanguageModeling, {"f1": torchmetrics.MeanMetric()}, "LanguageModeling has no predictions to compare"),
        (Regression, {"mine": {"_target_": "torchmetrics.R2Score"}}, "metrics.mine must be a torchmetrics.Metric"),
        (Classification, {"accuracy": torchmetrics.MeanMetric()}, "Epochal itself has a metric accuracy"),
        (Classification, {"a/b": torchmetrics.MeanMetric()}, "must be letters, digits and _"),
    ],
)
def test_wrong_metrics_are_refused(kind, metrics, says):
    with pytest.raises(ValueError, match=says):
        made(kind, **metrics)


def test_a_metric_of_several_numbers_is_refused_with_what_would_be_right():
    task = made(Classification, f1=torchmetrics.F1Score("multiclass", num_classes=3, average="none"))
    with pytest.raises(ConfigError, match="f1 computes more than one number.*average=macro"):
        passed(task, "val", Batch(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), 0))
