from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import googlenet

from epochal.core.specs import Classes, Images
from epochal.data import Batch
from epochal.models import GoogLeNet
from epochal.models.googlenet import BRANCHES, INCEPTIONS
from epochal.tasks import Classification
from helpers.parity import check_parity

TEN = Classes(tuple("0123456789"))


def count(**config):
    with torch.device("meta"):
        model = GoogLeNet(**{"in_channels": 3, "num_classes": 1000, **config})
    return sum(p.numel() for p in model.parameters())


def test_it_has_the_published_number_of_parameters():
    assert count(auxiliary=False) == 6_624_904


def test_the_papers_5x5_filters_make_it_seven_million():
    assert count(auxiliary=False, largest_kernel=5) / 1e6 == pytest.approx(7.0, abs=0.05)


def test_the_modules_join_as_many_channels_as_in_table_1():
    with torch.device("meta"):
        modules = GoogLeNet(in_channels=3, num_classes=10).inceptions
    assert [m.out_channels for m in modules.values()] == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


def test_it_computes_what_torchvisions_does_whose_auxiliary_heads_map_too():
    ours = GoogLeNet(in_channels=3, num_classes=5)
    assert ours.torchvision_name == "googlenet"
    theirs = googlenet(num_classes=5, init_weights=False)
    check_parity(ours, theirs, image_shape=(3, 64, 64))
    with torch.no_grad():
        features = torch.rand(2, 528, 4, 4, dtype=theirs.fc.weight.dtype)
        torch.testing.assert_close(ours.auxiliary["4d"](features), theirs.aux2(features))


@pytest.mark.parametrize(
    "change",
    [{"input": "small"}, {"branches": ["1x1", "3x3"]}, {"largest_kernel": 5}, {"width": 0.5}, {"equal_depth": True}],
)
def test_torchvision_has_none_of_the_other_forms(change):
    with torch.device("meta"):
        assert GoogLeNet(in_channels=3, num_classes=10, **change).torchvision_name is None


def test_auxiliary_heads_give_logits_in_training_only():
    model = GoogLeNet(in_channels=3, num_classes=7, input="small", width=0.1)
    images = torch.randn(2, 3, 32, 32)
    assert [logits.shape for logits in model(images)] == [(2, 7)] * 3
    assert model.eval()(images).shape == (2, 7)


def test_without_auxiliary_heads_training_gives_the_logits_alone():
    model = GoogLeNet(in_channels=3, num_classes=7, input="small", width=0.1, auxiliary=False)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_the_task_adds_the_auxiliary_losses_by_their_weight_and_measures_the_main_head():
    class Stub(nn.Module):
        auxiliary_weight = 0.3

        def forward(self, images):
            return (right, wrong, other) if self.training else right

    labels = torch.tensor([0, 1])
    right, wrong, other = 3 * torch.eye(2), -torch.eye(2), torch.randn(2, 2)
    task = Classification(model=Stub(), optimizer=None, scheduler=None, total_steps=1)
    task.trainer = SimpleNamespace(testing=False)
    batch = Batch(torch.zeros(2, 1), labels, 0)

    loss, metrics = task.step(batch)
    main, *auxiliary = (F.cross_entropy(logits, labels) for logits in (right, wrong, other))
    torch.testing.assert_close(loss, main + 0.3 * auxiliary[0] + 0.3 * auxiliary[1])
    assert metrics["loss"] == loss and metrics["accuracy"].all()
    task.eval()
    torch.testing.assert_close(task.step(batch)[0], main)


@pytest.mark.parametrize("branches", [b for n in range(1, 4) for b in combinations(BRANCHES, n)])
def test_branches_can_be_left_out(branches):
    model = GoogLeNet(in_channels=1, num_classes=2, input="small", branches=branches, width=0.1)
    widths = dict(zip(BRANCHES, (INCEPTIONS["5b"][i] for i in (0, 2, 4, 5)), strict=True))
    assert list(model.inceptions["5b"].branches) == list(branches)
    assert model.inceptions["5b"].out_channels == pytest.approx(0.1 * sum(widths[b] for b in branches), abs=2)
    assert model(torch.randn(2, 1, 16, 16))[0].shape == (2, 2)


@pytest.mark.parametrize(
    ("width", "branches", "deep"),
    [(width, (b,), deep) for width in (1, 0.25) for b in BRANCHES for deep in (False, True)]
    + [(1, b, False) for b in combinations(BRANCHES, 3)],
)
def test_equal_parameters_are_equal_within_two_percent(width, branches, deep):
    config = {"num_classes": 10, "input": "small", "width": width, "equal_depth": deep}
    equal = {"branches": branches, "equal_parameters": True, **config}
    assert count(**equal, auxiliary=False) == pytest.approx(count(**config, auxiliary=False), rel=0.02)


def test_with_all_four_branches_equal_parameters_changes_nothing():
    assert count(equal_parameters=True) == count()


@pytest.mark.parametrize(("deep", "convolutions"), [(False, [1, 2, 2, 1]), (True, [2, 2, 2, 2])])
def test_branches_of_equal_depth_have_two_convolutions_each_and_give_as_many_channels(deep, convolutions):
    model = GoogLeNet(in_channels=1, num_classes=2, input="small", width=0.25, equal_depth=deep)
    for name, module in model.inceptions.items():
        counts = [sum(isinstance(m, nn.Conv2d) for m in branch.modules()) for branch in module.branches.values()]
        assert counts == convolutions
        assert module.out_channels == pytest.approx(0.25 * sum(INCEPTIONS[name][i] for i in (0, 2, 4, 5)), abs=2)
    assert model(torch.randn(2, 1, 32, 32))[0].shape == (2, 2)


def test_the_last_branch_has_the_kernel_that_is_asked_for():
    with torch.device("meta"):
        for side in (3, 5):
            model = GoogLeNet(in_channels=3, num_classes=10, largest_kernel=side)
            assert model.inceptions["3a"].branches["5x5"][1][0].kernel_size == (side, side)


@pytest.mark.parametrize(
    "image", [Images(1, 16, 16), Images(1, 28, 28), Images(3, 32, 32), Images(3, 64, 48), Images(1, 32, 70)]
)
def test_it_reads_images_of_any_size_that_its_halvings_leave_a_pixel_of(image):
    model = GoogLeNet.for_data(image, TEN, width=0.05).eval()
    assert model(torch.randn(2, image.channels, image.height, image.width)).shape == (2, 10)


@pytest.mark.parametrize(
    ("image", "form", "message"),
    [
        (Images(1, 8, 8), "auto", "16 pixels .* not 8x8: dataset.image_size=32$"),
        (Images(3, 28, 90), "imagenet", "32 pixels .* not 28x90: dataset.image_size=224$"),
    ],
)
def test_an_image_too_small_to_halve_is_refused_with_the_cure(image, form, message):
    with pytest.raises(ValueError, match=message):
        GoogLeNet.for_data(image, TEN, input=form)


def test_the_stages_are_the_stem_and_the_last_module_of_each_size():
    model = GoogLeNet(in_channels=3, num_classes=10, input="small", width=0.125).eval()
    shapes = {}
    for name, stage in model.stages().items():
        stage.register_forward_hook(lambda m, i, output, name=name: shapes.update({name: tuple(output.shape[1:])}))
    model(torch.randn(1, 3, 32, 32))
    assert shapes == {
        "stem": (24, 8, 8),
        "inception 3b": (60, 8, 8),
        "inception 4e": (104, 4, 4),
        "inception 5b": (128, 2, 2),
    }


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"branches": []}, "branches must name at least one of: 1x1 3x3 5x5 pool"),
        ({"branches": ["7x7"]}, "branches=7x7 is no choice. There are: 1x1 3x3 5x5 pool"),
        ({"largest_kernel": 4}, "largest_kernel=4 is no choice. There are: 3 5"),
        ({"input": "tiny"}, "input=tiny is no choice. There are: imagenet small"),
        ({"width": 0}, "width=0 must be above 0"),
        ({"dropout": 1}, "dropout=1"),
    ],
)
def test_an_impossible_argument_is_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        GoogLeNet(**{"in_channels": 1, "num_classes": 10, **wrong})
