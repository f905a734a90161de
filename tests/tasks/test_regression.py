import pytest
import torch
from PIL import Image

from epochal.data import Batch
from epochal.tasks import Regression
from helpers.training import train


def test_outputs_with_an_error_below_0_04_are_solved():
    model = torch.nn.Identity()
    model.forward = lambda inputs: torch.tensor([[1.0], [1.03], [0.95], [2.0]])
    task = Regression(model=model, optimizer=None, scheduler=None, total_steps=1)
    loss, metrics = task.step(Batch(torch.zeros(4, 2, 1), torch.ones(4, 1), 0))
    assert metrics["solved"] == 0.5
    assert metrics["mae"].item() == pytest.approx((0.03 + 0.05 + 1) / 4)
    assert loss.item() == pytest.approx((0.03**2 + 0.05**2 + 1) / 4)


def test_a_run_writes_predictions_and_state_gradients(home):
    job = train(
        *("model=gru", "model.hidden_size=8", "dataset=adding", "dataset.length=7", "dataset.train_size=64"),
        *("dataset.validation=20", "dataset.test=20", "duration=2steps", "logger=none"),
    )
    assert set(job.task.measured) == {"test/loss", "test/mae", "test/solved"}
    assert Image.open(job.run.pictures / "test_predictions.png").size == (960, 560)
    assert len((job.run.pictures / "state_gradient_000002.csv").read_text().splitlines()) == 1 + 7
