import pytest
import torch

from epochal.data import Batch
from epochal.models import ViT
from epochal.tasks import MaskedPatch, NextPatch
from epochal.tasks.patches import standardised
from helpers.training import train

OPTIONS = {"optimizer": None, "scheduler": None, "total_steps": 1}
TASKS = {"next_patch": NextPatch, "masked_patch": MaskedPatch}


def vit():
    torch.manual_seed(0)
    return ViT(image_shape=(3, 8, 12), embed_dim=8, depth=2, num_heads=2, patch_size=4)  # 2x3 patches


def batch(seed=0, count=5):
    images = torch.randn(count, 3, 8, 12, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.zeros(count), seed)


class Constant(torch.nn.Module):
    """Always returns the same prediction."""

    grid, patches = (2, 3), vit().patches

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images, **_):
        return self.answer


@pytest.mark.parametrize("task", TASKS.values())
def test_a_perfect_prediction_explains_all_and_a_blank_one_nothing(task):
    given = batch()
    targets, _, _ = standardised(vit().patches(given.inputs))
    _, perfect = task(model=Constant(targets), **OPTIONS).step(given)
    _, blank = task(model=Constant(torch.zeros_like(targets)), **OPTIONS).step(given)
    assert (perfect["loss"].item(), perfect["explained"].item()) == pytest.approx((0, 1))
    assert (blank["loss"].item(), blank["explained"].item()) == pytest.approx((1, 0), abs=1e-5)


def test_only_masked_patches_count_in_the_loss():
    given = batch()
    targets, _, _ = standardised(vit().patches(given.inputs))
    task = MaskedPatch(model=Constant(targets), **OPTIONS)
    torch.manual_seed(7)
    _, mask = task.predict(given.inputs)
    for places, judged in ((~mask, False), (mask, True)):
        task.model.answer = torch.where(places[..., None], 100.0, targets)
        torch.manual_seed(7)
        loss, _ = task.step(given)
        assert (loss.item() > 1) == judged


@pytest.mark.parametrize("ratio, hidden", [(0.5, 3), (0.3, 2), (0.01, 1), (0.99, 5)])
def test_the_mask_ratio_gives_the_number_of_masked_patches(ratio, hidden):
    _, mask = MaskedPatch(model=vit(), mask_ratio=ratio, **OPTIONS).predict(batch(count=50).inputs)
    assert (mask.sum(1) == hidden).all()
    assert mask.any(0).all() and not mask.all(0).any()  # not the same ones


def test_next_patch_predicts_every_patch():
    predicted, wanted = NextPatch(model=vit(), **OPTIONS).predict(batch().inputs)
    assert predicted.shape == (5, 6, 48) and wanted.all()


@pytest.mark.parametrize("task", TASKS.values())
def test_every_parameter_learns(task):
    model = vit()
    loss, _ = task(model=model, **OPTIONS).step(batch())
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_a_patch_of_one_colour_is_zero():
    patches = torch.stack((torch.full((4,), 3.0), torch.tensor([1.0, 1.0, 3.0, 3.0])))[None]
    normalised, mean, std = standardised(patches)
    torch.testing.assert_close(normalised, torch.tensor([[[0.0] * 4, [-1.0, -1.0, 1.0, 1.0]]]))
    torch.testing.assert_close(normalised * std + mean, patches)


@pytest.mark.parametrize("ratio", [0, 1, 1.5, -0.5, True, "half"])
def test_a_mask_ratio_outside_0_to_1_is_refused(ratio):
    with pytest.raises(ValueError, match=f"mask_ratio={ratio} must be between 0 and 1"):
        MaskedPatch(model=vit(), mask_ratio=ratio, **OPTIONS)


@pytest.mark.parametrize("task", TASKS)
def test_a_classifier_starts_from_the_weights_that_patches_trained(task, home):
    small = ("model=vit", "model.embed_dim=8", "model.depth=1", "model.num_heads=2", "logger=none")
    before = train(*small, f"task={task}", "duration=2steps")
    assert set(before.task.measured) == {"test/loss", "test/explained"}
    assert {file.name for file in before.run.pictures.glob("*patches*")} == {"patches_000002.png", "test_patches.png"}

    after = train(*small, f"init_from={before.run.folder}", "optimizer.lr=1e-12", "duration=1steps")
    assert "test/accuracy" in after.task.measured
    for name in ("positions", "blocks.0.mlp.fc1.weight", "norm.weight"):
        torch.testing.assert_close(after.task.model.state_dict()[name], before.task.model.state_dict()[name])
