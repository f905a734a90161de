"""What every task shares: gradient clipping, the training metrics of the next row, and what a task offers others."""

import pytest
import torch

from epochal import tasks
from epochal.tasks import Regression
from epochal.tasks.base import AnswersPrompts

OPTIONS = {"optimizer": None, "scheduler": None, "total_steps": 1}


@pytest.mark.parametrize("scale", [0.01, 0.999, 1.0, 1.001, 100.0])
def test_gradients_are_clipped_to_the_last_bit_as_torch_clips_them(scale):
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3))
    torch.manual_seed(1)
    gradients = [torch.randn_like(p) for p in model.parameters()]
    length = torch.nn.utils.get_total_norm(gradients)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient * scale / length
    expected = [p.grad.clone() for p in model.parameters()]
    twin = [torch.nn.Parameter(torch.zeros_like(p)) for p in expected]
    for parameter, gradient in zip(twin, expected, strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(twin, 1.0)

    task = Regression(model=model, **OPTIONS)
    task.configure_gradient_clipping(torch.optim.SGD(model.parameters(), lr=1.0), 1.0)

    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), twin, strict=True))


def test_a_row_continues_where_a_checkpoint_left_it():
    seen = [{"loss": torch.tensor(float(n)), "tokens": torch.tensor([n, n + 1])} for n in range(5)]
    whole, killed, resumed = (Regression(model=torch.nn.Linear(1, 1), **OPTIONS) for _ in range(3))
    for metrics in seen:
        whole.accumulate(metrics)
    for metrics in seen[:3]:
        killed.accumulate(metrics)
    killed.automatic_optimization = False  # which would ask a trainer
    checkpoint = {}
    killed.on_save_checkpoint(checkpoint)
    resumed.on_load_checkpoint(checkpoint)
    resumed.on_train_start()
    for metrics in seen[3:]:
        resumed.accumulate(metrics)
    assert resumed._row.count == 5
    assert resumed._row.means() == whole._row.means() == {"loss": 2, "tokens": 2.5}


def test_a_checkpoint_that_stores_sums_still_loads():
    task = Regression(model=torch.nn.Linear(1, 1), **OPTIONS)
    task.on_load_checkpoint({"row": {"sums": {"loss": torch.tensor(1.0)}, "count": 3}})
    task.accumulate({"loss": torch.tensor(2.0)})
    assert task._row.means() == {"loss": 2}


def test_tasks_say_what_they_offer():
    every = [getattr(tasks, name) for name in tasks.__all__ if name not in ("Artifacts", "Task")]
    offers = {
        "symmetric": [t.__name__ for t in every if t.image_range == "symmetric"],
        "explainable": [t.__name__ for t in every if t.explainable],
        "metrics": [t.__name__ for t in every if t.accepts_metrics],
        "prompts": {t.response_name for t in every if hasattr(t, "respond")},
    }
    assert offers == {
        "symmetric": ["Adversarial"],
        "explainable": ["Classification"],
        "metrics": ["Classification", "Regression", "SequenceLabeling"],
        "prompts": {"sample", "translation"},
    }
    assert isinstance(tasks.LanguageModeling(model=torch.nn.Identity(), **OPTIONS), AnswersPrompts)
    assert not isinstance(Regression(model=torch.nn.Identity(), **OPTIONS), AnswersPrompts)
