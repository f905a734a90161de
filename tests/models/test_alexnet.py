import pytest
import torch
from torch import nn
from torchvision import models as torchvision

from epochal.core.specs import Classes, Images
from epochal.models import AlexNet, alexnet
from epochal.models.pretrained.torchvision import translate
from helpers.parity import check_parity

TEN = Classes(tuple("0123456789"))


def test_it_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = AlexNet(in_channels=3, num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(61.1, abs=0.05)


def test_torchvisions_weights_fit():
    with torch.device("meta"):
        ours, theirs = AlexNet(in_channels=3, num_classes=1000), torchvision.alexnet()
    ours.load_state_dict(translate(theirs.state_dict(), ours), strict=True, assign=True)


def test_it_computes_what_torchvisions_does(monkeypatch):
    monkeypatch.setitem(alexnet.HIDDEN, "imagenet", 16)  # instead of 4096, which would take seconds
    ours, theirs = AlexNet(in_channels=3, num_classes=5), torchvision.alexnet(num_classes=5)
    theirs.classifier[1], theirs.classifier[4] = nn.Linear(256 * 6 * 6, 16), nn.Linear(16, 16)
    theirs.classifier[6] = nn.Linear(16, 5)
    assert ours.torchvision_name == "alexnet"
    check_parity(ours, theirs, image_shape=(3, 96, 96))


@pytest.mark.parametrize("change", [{"input": "small"}, {"norm": "local_response"}, {"pool": "plain"}, {"width": 0.5}])
def test_torchvision_has_none_of_the_other_forms(change):
    with torch.device("meta"):
        assert AlexNet(in_channels=3, num_classes=10, **change).torchvision_name is None


def test_224_pixels_become_55_27_13_and_6():
    model = AlexNet(in_channels=3, num_classes=10, width=0.05).eval()
    x, sides = torch.zeros(1, 3, 224, 224), []
    for layer in model.features:
        x = layer(x)
        sides.append(x.shape[-1])
    assert sorted(set(sides), reverse=True) == [55, 27, 13, 6]


@pytest.mark.parametrize(
    "image", [Images(1, 16, 16), Images(1, 28, 28), Images(3, 32, 32), Images(3, 64, 48), Images(1, 70, 63)]
)
@pytest.mark.parametrize("pool", ["overlapping", "plain"])
def test_it_reads_images_of_any_size_that_its_strides_leave_a_pixel_of(image, pool):
    model = AlexNet.for_data(image, TEN, width=0.05, pool=pool)
    assert model(torch.randn(2, image.channels, image.height, image.width)).shape == (2, 10)


@pytest.mark.parametrize(
    ("image", "form", "message"),
    [
        (Images(1, 8, 8), "auto", "at least 16x16 pixels .*, not 8x8: dataset.image_size=32$"),
        (Images(3, 32, 32), "imagenet", "at least 63x63 pixels .*, not 32x32: dataset.image_size=224$"),
    ],
)
def test_an_image_too_small_for_the_strides_is_refused_with_the_cure(image, form, message):
    with pytest.raises(ValueError, match=message):
        AlexNet.for_data(image, TEN, input=form)


def test_local_response_norm_divides_by_the_papers_sum_over_five_neighbours():
    model = AlexNet(in_channels=3, num_classes=10, norm="local_response", width=0.2)
    norms = [layer for layer in model.features if isinstance(layer, nn.LocalResponseNorm)]
    assert len(norms) == 2
    x = 50 * torch.rand(1, 9, 1, 1)
    squares = x.square().flatten()
    sums = torch.stack([squares[max(0, i - 2) : i + 3].sum() for i in range(9)])
    torch.testing.assert_close(norms[0](x).flatten(), x.flatten() / (2 + 1e-4 * sums) ** 0.75)


def test_the_stages_are_the_five_convolutions_as_they_were_computed():
    model = AlexNet(in_channels=3, num_classes=10, input="small", width=0.25)
    shapes = []
    for stage in model.stages().values():
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.randn(2, 3, 32, 32))
    assert list(model.stages()) == [f"convolution {n}" for n in range(1, 6)]
    assert shapes == [(16, 16, 16), (48, 8, 8), (96, 4, 4), (64, 4, 4), (64, 4, 4)]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"input": "tiny"}, "input=tiny is no choice. There are: imagenet small"),
        ({"norm": "batch"}, "norm=batch is no choice. There are: none local_response"),
        ({"pool": "max"}, "pool=max is no choice. There are: overlapping plain"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"width": 0}, "width=0 must be above 0"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_an_impossible_argument_is_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        AlexNet(**{"in_channels": 1, "num_classes": 10, **wrong})
