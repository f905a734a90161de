from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from epochal.data import Adding, Batch
from epochal.data.batching import BatchIndices
from epochal.tasks import Regression
from helpers.training import train


@pytest.mark.parametrize("span, solved", [(None, 0.5), (1.0, 0.5), (2.0, 0.75), (100.0, 1.0)])
def test_outputs_with_an_error_below_4_percent_of_the_targets_span_are_solved(span, solved):
    model = torch.nn.Identity()
    model.forward = lambda inputs: torch.tensor([[1.0], [1.03], [0.95], [2.0]])
    task = Regression(model=model, optimizer=None, scheduler=None, total_steps=1)
    task.trainer = SimpleNamespace(datamodule=None if span is None else SimpleNamespace(target_span=span))
    loss, metrics = task.step(Batch(torch.zeros(4, 2, 1), torch.ones(4, 1), 0))
    assert metrics["solved"] == solved
    assert metrics["mae"].item() == pytest.approx((0.03 + 0.05 + 1) / 4)
    assert loss.item() == pytest.approx((0.03**2 + 0.05**2 + 1) / 4)


def test_the_targets_of_the_adding_problem_have_the_span_that_is_said():
    data = Adding(name="adding", length=4, train_size=4000, validation=10, test=10, seed=1)
    data.prepare()
    targets = data.rows("train")[0][BatchIndices(torch.arange(4000), 0)].targets
    assert 0 <= targets.min() < 0.1 and data.target_span - 0.1 < targets.max() <= data.target_span


def test_a_run_writes_predictions_and_state_gradients(home):
    job = train(
        *("model=gru", "model.hidden_size=8", "dataset=adding", "dataset.length=7", "dataset.train_size=64"),
        *("dataset.validation=20", "dataset.test=20", "duration=2steps", "logger=none"),
    )
    assert set(job.task.measured) == {"test/loss", "test/mae", "test/solved"}
    assert Image.open(job.run.pictures / "test_predictions.png").size == (960, 560)
    assert len((job.run.pictures / "state_gradient_000002.csv").read_text().splitlines()) == 1 + 7
