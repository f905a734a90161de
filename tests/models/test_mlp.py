import pytest
import torch

from epochal.core.specs import Classes, Images
from epochal.models import MLP


def test_it_has_the_parameters_of_its_widths():
    model = MLP(in_features=784, num_classes=10, hidden=(64, 128, 64))
    assert sum(p.numel() for p in model.parameters()) == 784 * 64 + 64 + 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10


def test_it_takes_its_sizes_from_the_data():
    model = MLP.for_data(Images(3, 8, 5), Classes(("a", "b", "c")), hidden=[7])
    assert model(torch.randn(2, 3, 8, 5)).shape == (2, 3)


def test_without_hidden_layers_it_is_logistic_regression():
    model = MLP(in_features=4, num_classes=2, hidden=())
    assert [tuple(p.shape) for p in model.parameters()] == [(2, 4), (2,)]


def test_the_order_of_pixels_does_not_matter():
    """Shuffle the pixels and the first layer's columns alike, and nothing changes."""
    model, images, order = MLP(in_features=16, num_classes=2), torch.randn(3, 1, 4, 4), torch.randperm(16)
    before = model(images)
    with torch.no_grad():
        model.layers[1].weight.copy_(model.layers[1].weight[:, order])
    torch.testing.assert_close(model(images.flatten(1)[:, order].view(3, 1, 4, 4)), before)


def test_dropout_acts_in_training_only():
    model, images = MLP(in_features=16, num_classes=2, dropout=0.5), torch.randn(3, 1, 4, 4)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"hidden": (3, 0)}, r"hidden\[1\]=0"),
        ({"num_classes": -1}, "num_classes=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_an_impossible_argument_is_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        MLP(**{"in_features": 4, "num_classes": 2, **wrong})
