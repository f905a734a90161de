"""What every task shares: gradient clipping, the training metrics of the next row, and what a task offers others."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from epochal import tasks
from epochal.core.specs import IGNORED
from epochal.data import Batch
from epochal.tasks import Classification, LanguageModeling, Regression, SequenceLabeling
from epochal.tasks.base import AnswersPrompts, model_inputs

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


def rows_of(*counts):
    return [Batch(torch.randn(n, 6), torch.randint(3, (n,)), seed) for seed, n in enumerate(counts)]


def steps_of(*counts):
    """Batches of four sequences of five steps; so many of the twenty have a label."""
    targets = [torch.where(torch.randperm(20) < n, torch.randint(3, (20,)), IGNORED) for n in counts]
    return [Batch(torch.randn(4, 5, 6), labels.view(4, 5), seed) for seed, labels in enumerate(targets)]


def texts_of(*lengths):
    """Batches of two padded texts, of which the first has so many tokens and the second all nine."""
    tokens = [torch.randint(8, (2, 9)) for _ in lengths]
    return [Batch(t, t, seed, torch.tensor([n, 9])) for seed, (t, n) in enumerate(zip(tokens, lengths))]


class OfTexts(LanguageModeling):
    data = SimpleNamespace(asks_questions=False, asks_some_tokens=False)  # type: ignore[assignment]


GROUPS = {  # three batches a step; an epoch's last step has fewer
    "whole groups": (Classification, rows_of(4, 4, 4, 4, 4, 4)),
    "a last group of one": (Classification, rows_of(4, 4, 4, 4)),
    "a last group of two, its last batch shorter": (Classification, rows_of(4, 4, 4, 4, 1)),
    "batches of any size": (Classification, rows_of(2, 7, 1, 5, 3)),
    "steps without a label": (SequenceLabeling, steps_of(20, 3, 8, 1, 9)),
    "texts of unlike lengths": (OfTexts, texts_of(2, 9, 3, 5, 2)),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_accumulated_batches_give_the_gradient_of_one_large_batch(kind):
    make, batches = GROUPS[kind]
    model = torch.nn.Linear(6, 8 if make is OfTexts else 3)
    network = torch.nn.Sequential(torch.nn.Embedding(8, 6), model) if make is OfTexts else model
    task = make(model=network, **OPTIONS | {"total_steps": 99})
    task.setup = lambda stage: None  # which would ask for a data module
    task.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.0)
    found = []  # at each step
    task.configure_gradient_clipping = lambda *_, **__: found.append(model.weight.grad.clone())
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(accelerator="cpu", max_epochs=2, accumulate_grad_batches=3, **quiet)
    trainer.fit(task, torch.utils.data.DataLoader(batches, batch_size=None))
    assert len(found) == 4
    for gradient, group in zip(found, 2 * [batches[:3], batches[3:]], strict=True):
        inputs, targets, _, lengths, *_ = zip(*group, strict=True)
        model.zero_grad()
        whole = None if lengths[0] is None else torch.cat(lengths)
        loss, _ = task.step(Batch(torch.cat(inputs), torch.cat(targets), 0, whole))
        loss.backward()
        torch.testing.assert_close(gradient, model.weight.grad)


def test_a_step_under_way_is_kept_in_the_checkpoint():
    """Also one of an older version, which counted no items: each batch so far counts one."""
    loop = SimpleNamespace(
        _should_accumulate=lambda: True, batch_progress=SimpleNamespace(current=SimpleNamespace(ready=6))
    )
    trainer = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=loop), accumulate_grad_batches=4)
    task, resumed, old = (Regression(model=torch.nn.Linear(1, 1), **OPTIONS) for _ in range(3))
    for each in (task, resumed, old):
        each._trainer = trainer
    task.model.weight.grad = torch.ones(1, 1)
    assert [task._group.add(items) for items in (8, 4)] == [1, 0.5]
    checkpoint = {}
    task.on_save_checkpoint(checkpoint)
    resumed.on_load_checkpoint(dict(checkpoint))
    del checkpoint["group"]
    old.on_load_checkpoint(checkpoint)
    for each in (resumed, old):
        each.on_train_start()
        assert each.model.weight.grad == 1
    assert resumed._group == task._group
    assert old._group.batches == 2


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
        "prompts": {"answer", "for each <mask>", "sample", "translation"},
    }
    assert isinstance(tasks.LanguageModeling(model=torch.nn.Identity(), **OPTIONS), AnswersPrompts)
    assert not isinstance(Regression(model=torch.nn.Identity(), **OPTIONS), AnswersPrompts)


def test_segments_go_to_models_that_take_them():
    class Plain(nn.Module):
        def forward(self, tokens, lengths=None):
            return tokens

    class Paired(nn.Module):
        def forward(self, tokens, lengths=None, segments=None):
            return tokens

    tokens, lengths = torch.zeros(2, 3, dtype=torch.int64), torch.tensor([3, 2])
    pairs = Batch(tokens, tokens, 0, lengths, torch.ones_like(tokens))
    assert [len(model_inputs(pairs, model)) for model in (Plain(), Paired())] == [2, 3]
    assert len(model_inputs(pairs._replace(segments=None), Paired())) == 2
    assert len(model_inputs(pairs._replace(segments=None, lengths=None), Paired())) == 1
