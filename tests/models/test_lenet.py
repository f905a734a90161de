import pytest
import torch

from epochal.core.specs import Classes, Images
from epochal.models import LeNet


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("pool", ["max", "average"])
def test_lenet_has_61706_parameters(activation, pool):
    model = LeNet(in_channels=1, num_classes=10, activation=activation, pool=pool)
    assert sum(p.numel() for p in model.parameters()) == 61_706


@pytest.mark.parametrize("image", [Images(1, 8, 8), Images(1, 28, 28), Images(3, 32, 32), Images(3, 64, 48)])
def test_it_reads_images_of_any_size(image):
    model = LeNet.for_data(image, Classes(("cat", "dog")))
    assert model(torch.randn(2, image.channels, image.height, image.width)).shape == (2, 2)


def test_28_pixels_are_padded_and_not_resized():
    images = torch.randn(2, 1, 28, 28)
    padded = LeNet.resize(images)
    assert padded.shape == (2, 1, 32, 32)
    assert torch.equal(padded[:, :, 2:-2, 2:-2], images)


def test_the_padding_is_background_whatever_the_pixels_are_normalised_to():
    assert torch.equal(LeNet.resize(torch.full((1, 1, 28, 28), -0.42)), torch.full((1, 1, 32, 32), -0.42))


def test_32_pixels_are_read_as_they_are():
    images = torch.randn(2, 1, 32, 32)
    assert LeNet.resize(images) is images


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"activation": "gelu"}, "activation=gelu is no choice. There are: relu tanh"),
        ({"pool": "none"}, "pool=none is no choice. There are: max average"),
        ({"in_channels": 0}, "in_channels=0"),
    ],
)
def test_an_impossible_argument_is_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        LeNet(**{"in_channels": 1, "num_classes": 10, **wrong})
