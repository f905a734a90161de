import pytest
import torch

from epochal.core.specs import Classes, Images
from epochal.models import CNN

TEN = Classes(tuple("0123456789"))


@pytest.mark.parametrize("size", [5, 8, 28, 31])
@pytest.mark.parametrize("kernel_size, stride, padding", [(3, 1, 0), (5, 1, 2), (3, 2, 1), (2, 3, 0)])
def test_a_convolution_gives_the_size_of_the_lectures_formula(size, kernel_size, stride, padding):
    model = CNN(
        image_shape=(3, size, size + 1), num_classes=2, filters=(4,),
        kernel_size=kernel_size, stride=stride, padding=padding, pool="none",
    )  # fmt: skip
    height = (size + 2 * padding - kernel_size) // stride + 1
    width = (size + 1 + 2 * padding - kernel_size) // stride + 1
    images = torch.randn(2, 3, size, size + 1)
    assert model.features[0].weight.shape == (4, 3, kernel_size, kernel_size)
    assert model.features(images).shape == (2, 4, height, width)
    assert model(images).shape == (2, 2)


@pytest.mark.parametrize("image", [Images(1, 8, 8), Images(1, 28, 28), Images(3, 32, 20)])
@pytest.mark.parametrize("pool", ["max", "average", "none"])
def test_its_defaults_fit_every_shipped_image_size(image, pool):
    model = CNN.for_data(image, TEN, pool=pool)
    assert model(torch.randn(2, image.channels, image.height, image.width)).shape == (2, 10)


def test_pooling_learns_nothing():
    model = CNN(image_shape=(1, 8, 8), num_classes=2)
    assert not list(model.features[2].parameters())


@pytest.mark.parametrize("pool, expected", [("max", 4.0), ("average", 2.5)])
def test_pooling_keeps_the_maximum_or_the_mean(pool, expected):
    pooling = CNN(image_shape=(1, 8, 8), num_classes=2, pool=pool).features[2]
    assert pooling(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).item() == expected


def test_an_image_that_shrinks_to_nothing_is_refused_with_the_layer_named():
    with pytest.raises(ValueError, match="Convolution 3 of 3 leaves nothing of an image of 2x2"):
        CNN(image_shape=(1, 6, 6), num_classes=2, filters=(4, 4, 4), padding=0, pool="none")
    with pytest.raises(ValueError, match="Pooling 2 of 2 leaves nothing of an image of 2x2"):
        CNN(image_shape=(1, 8, 8), num_classes=2, pool_size=3)


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"filters": (8, 0)}, r"filters\[1\]=0"),
        ({"stride": 0}, "stride=0"),
        ({"padding": -1}, "padding=-1"),
        ({"pool": "mean"}, "pool=mean is no choice. There are: max average none"),
    ],
)
def test_an_impossible_argument_is_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        CNN(**{"image_shape": (1, 8, 8), "num_classes": 2, **wrong})
