import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from epochal.data import Batch
from epochal.models import GAN
from epochal.tasks import Adversarial

OPTIONS = {"optimizer": None, "scheduler": None, "total_steps": 1}
BATCH = Batch(torch.rand(16, 1, 8, 8) * 2 - 1, torch.zeros(16), seed=5)


@pytest.fixture
def task():
    torch.manual_seed(0)
    made = Adversarial(model=GAN(image_shape=(1, 8, 8), noise_dim=4, width=4), **OPTIONS)
    made.trainer = SimpleNamespace(global_rank=0)
    with torch.no_grad():  # running statistics that are far from those of any batch
        for name, buffer in made.model.named_buffers():
            if "running" in name:
                buffer.fill_(3.0)
    return made


def measured(task, training):
    task.train(training)
    torch.manual_seed(1)  # the noise
    _, metrics = task.step(BATCH)
    return {name: value.item() for name, value in metrics.items()}


def test_a_validation_measures_what_training_sees_and_changes_nothing(task):
    reference = copy.deepcopy(task)
    with torch.no_grad():
        expected = reference.train().model.discriminator(BATCH.inputs).sigmoid().mean()
    before = {name: buffer.clone() for name, buffer in task.model.named_buffers()}
    found = measured(task, training=False)
    assert found["d_real"] == pytest.approx(expected.item(), abs=1e-6)
    assert found == pytest.approx(measured(task, training=True), abs=1e-6)
    for name, buffer in task.model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    task.eval()
    assert not any(module.training for module in task.model.modules())
    assert all(module.track_running_stats for module in task.model.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize("smoothing", [-0.1, 0.6, 5, float("nan"), True, "0.1"])
def test_label_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"label_smoothing=\S+ must be a number of at least 0 and at most 0.5."):
        Adversarial(model=torch.nn.Identity(), label_smoothing=smoothing, **OPTIONS)
