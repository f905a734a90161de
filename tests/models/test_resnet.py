import pytest
import torch
from torch import nn

from epochal.facts import Classes, Images
from epochal.models import ResNet
from epochal.models.resnet import PUBLISHED

TEN = Classes(tuple("0123456789"))


@pytest.mark.parametrize("depth, millions", PUBLISHED.items())
def test_it_has_the_published_number_of_parameters(depth, millions):
    with torch.device("meta"):
        model = ResNet(in_channels=3, num_classes=10, depth=depth)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def test_depth_counts_the_layers_with_weights():
    model = ResNet(in_channels=3, num_classes=10, depth=20)
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == 20


def test_plain_and_residual_networks_have_the_same_parameters():
    plain, residual = (ResNet(in_channels=3, num_classes=10, residual=flag).state_dict() for flag in (False, True))
    assert {k: v.shape for k, v in plain.items()} == {k: v.shape for k, v in residual.items()}


def test_a_residual_block_that_learnt_nothing_passes_its_input_on():
    model = ResNet(in_channels=1, num_classes=2, depth=8)
    block, x = model.blocks[0], torch.rand(2, 16, 8, 8)
    nn.init.zeros_(block.norm2.weight)
    torch.testing.assert_close(block(x), x)


def test_shortcut_a_strides_and_pads_with_zero_channels():
    x = torch.rand(2, 16, 8, 8)
    bypassed = ResNet(in_channels=1, num_classes=2, depth=8).blocks[1].bypass(x)
    assert torch.equal(bypassed[:, :16], x[:, :, ::2, ::2])
    assert bypassed.shape == (2, 32, 4, 4) and not bypassed[:, 16:].any()


def test_shortcut_b_projects_only_where_the_shape_changes():
    model = ResNet(in_channels=3, num_classes=10, depth=14, shortcut="B")
    assert [block.projection is not None for block in model.blocks] == [False, False, True, False, True, False]
    assert model(torch.randn(2, 3, 9, 12)).shape == (2, 10)


@pytest.mark.parametrize("image", [Images(1, 4, 4), Images(1, 8, 8), Images(1, 28, 28), Images(3, 32, 32)])
def test_it_reads_images_from_4_pixels_on(image):
    model = ResNet.for_data(image, TEN, depth=8)
    assert model(torch.randn(2, image.channels, image.height, image.width)).shape == (2, 10)


def test_channels_last_images_stay_channels_last():
    model = ResNet(in_channels=3, num_classes=10, depth=8).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    assert model.blocks(model.stem(images)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "depth, message",
    [
        (21, "depth=21 is not 6n [+] 2. The nearest are 20 and 26."),
        (2, "depth=2 is not 6n [+] 2. The smallest is 8."),
        (-4, "depth=-4"),
    ],
)
def test_a_wrong_depth_is_answered_with_the_right_ones(depth, message):
    with pytest.raises(ValueError, match=message):
        ResNet(in_channels=3, num_classes=10, depth=depth)


def test_an_image_too_small_to_halve_twice_is_refused():
    with pytest.raises(ValueError, match="at least 4x4 pixels, not 3x8"):
        ResNet.for_data(Images(1, 3, 8), TEN)
