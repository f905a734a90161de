import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from epochal.data import Batch
from epochal.models import GAN
from epochal.tasks import Adversarial
from epochal.tasks.adversarial import gradient_penalty, interpolate

OPTIONS = {"optimizer": None, "scheduler": None, "total_steps": 1}
BATCH = Batch(torch.rand(16, 1, 16, 16) * 2 - 1, torch.arange(16) % 3, seed=5)


KINDS = {  # of the network, and of the task
    "non_saturating": ({}, {}),
    "minimax": ({}, {"objective": "minimax"}),
    "wasserstein_gp": ({"discriminator_norm": "layer"}, {"objective": "wasserstein_gp"}),
    "conditional": ({"num_classes": 3}, {}),
    "conditional critic": (
        {"num_classes": 3, "discriminator_norm": "none", "spectral_norm": True},
        {"objective": "wasserstein_gp"},
    ),
}


@pytest.fixture(params=KINDS)
def task(request):
    torch.manual_seed(0)
    network, options = KINDS[request.param]
    made = Adversarial(model=GAN(image_shape=(1, 16, 16), noise_dim=4, width=4, **network), **OPTIONS, **options)
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
    before = {name: buffer.clone() for name, buffer in task.model.named_buffers()}
    with torch.inference_mode():  # as Lightning validates
        found = measured(task, training=False)
    for name, buffer in task.model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    expected = seen_in_training(reference)
    assert found["generator_loss"] == pytest.approx(expected.pop("generator_loss"), abs=1e-5)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5), name
    task.eval()
    assert not any(module.training for module in task.model.modules())
    assert all(module.track_running_stats for module in task.model.modules() if isinstance(module, nn.BatchNorm2d))


def seen_in_training(task):
    """What a training step on the same noise measures, the generator's on the same images as the discriminator's."""
    model, labels = task.train().model, task._labels(BATCH.targets)
    for layer in model.discriminator.modules():  # a step of power iteration changes the estimate
        if isinstance(layer, nn.utils.parametrizations._SpectralNorm):
            layer.eval()
    torch.manual_seed(1)
    fake = model.generator(model.sample_noise(16), *labels)
    loss, metrics = task._discriminator_loss(BATCH.inputs, fake.detach(), labels)
    found = {**metrics, "discriminator_loss": loss, "generator_loss": task._generator_loss(fake, labels)}
    return {name: value.item() for name, value in found.items()}


def test_the_losses_are_those_of_the_papers(task):
    model = task.eval().model
    real, fake, labels = BATCH.inputs, torch.rand(16, 1, 16, 16), task._labels(BATCH.targets)
    on_real, on_fake = model.discriminator(real, *labels).double(), model.discriminator(fake, *labels).double()
    loss, metrics = task._discriminator_loss(real, fake, labels)
    generator_loss = task._generator_loss(fake, labels).item()
    if task.objective == "wasserstein_gp":
        difference = (on_fake.mean() - on_real.mean()).item()
        assert metrics["wasserstein_distance"].item() == pytest.approx(-difference, abs=1e-6)
        assert loss.item() == pytest.approx(difference + 10 * metrics["gradient_penalty"].item(), abs=1e-5)
        assert generator_loss == pytest.approx(-on_fake.mean().item(), abs=1e-6)
    else:
        direct = -(on_real.sigmoid().log().mean() + (1 - on_fake.sigmoid()).log().mean())
        assert loss.item() == pytest.approx(direct.item(), abs=1e-5)
        on_generated = {"minimax": (1 - on_fake.sigmoid()).log(), "non_saturating": -on_fake.sigmoid().log()}
        assert generator_loss == pytest.approx(on_generated[task.objective].mean().item(), abs=1e-5)


def test_the_gradient_penalty_of_a_linear_critic_is_known():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))
    penalty = gradient_penalty(critic, torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8))
    norm = critic[1].weight.norm()
    assert penalty.item() == pytest.approx((norm.item() - 1) ** 2, abs=1e-6)
    penalty.backward()
    torch.testing.assert_close(critic[1].weight.grad, 2 * (norm - 1) * critic[1].weight / norm)


def test_the_penalty_is_taken_between_each_real_image_and_its_generated_one():
    seen = []

    class Critic(nn.Module):
        def forward(self, images):
            seen.append(images.detach())
            return images.square().sum((1, 2, 3))

    real, fake = torch.zeros(50, 1, 8, 8), torch.ones(50, 1, 8, 8)
    gradient_penalty(Critic(), real, fake)
    fractions = seen[0][:, 0, 0, 0]
    assert torch.equal(seen[0], fractions[:, None, None, None].expand_as(real)), "one fraction an image"
    assert 0 <= fractions.min() < 0.2 and 0.8 < fractions.max() <= 1


def test_half_way_between_two_noises_is_as_far_from_the_origin():
    start, end = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [3.0, 4.0]])
    half = interpolate(start, end, torch.tensor(0.5))
    torch.testing.assert_close(half, torch.tensor([[0.5**0.5, 0.5**0.5], [3.0, 4.0]]))
    torch.testing.assert_close(interpolate(start, end, torch.tensor(1.0)), end)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"objective": "hinge"}, "objective=hinge is no choice. There are: non_saturating minimax wasserstein_gp"),
        (
            {"objective": "wasserstein_gp"},
            "batch norm in the discriminator mixes images; take model.discriminator_norm=layer",
        ),
        (
            {"objective": "wasserstein_gp", "label_smoothing": 0.1},
            "is of probabilities, and objective=wasserstein_gp has none",
        ),
        ({"discriminator_steps": 0}, "discriminator_steps=0 must be a whole number of at least 1"),
        ({"gradient_penalty": -1}, "gradient_penalty=-1 must be a number of at least 0"),
        ({"validation_images": 3}, "validation_images=3 must be a whole number of at least 4"),
        ({"test_images": 1.5}, "test_images=1.5 must be"),
    ],
)
def test_what_does_not_go_together_is_said(wrong, says):
    with pytest.raises(ValueError, match=says):
        Adversarial(model=GAN(image_shape=(1, 16, 16), width=4), **OPTIONS, **wrong)


@pytest.mark.parametrize("smoothing", [-0.1, 0.6, 5, float("nan"), True, "0.1"])
def test_label_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"label_smoothing=\S+ must be a number of at least 0 and at most 0.5."):
        Adversarial(model=torch.nn.Identity(), label_smoothing=smoothing, **OPTIONS)
