import pytest
import torch
from torch import nn
from torchvision import models as torchvision

from epochal.core.specs import Classes, Images
from epochal.models import VGG, vgg
from epochal.models.pretrained.torchvision import translate
from epochal.models.vgg import PUBLISHED, kernels
from helpers.parity import check_parity

TEN = Classes(tuple("0123456789"))


def small(**config):
    with torch.device("meta"):
        return VGG(in_channels=3, num_classes=10, input="small", **config)


def weights(model, kind=nn.Conv2d):
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.mark.parametrize(("depth", "millions"), PUBLISHED.items())
def test_it_has_the_published_number_of_parameters(depth, millions):
    with torch.device("meta"):
        model = VGG(in_channels=3, num_classes=1000, depth=depth)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.5)


@pytest.mark.parametrize("depth", PUBLISHED)
def test_depth_counts_the_layers_with_weights(depth):
    with torch.device("meta"):
        model = VGG(in_channels=3, num_classes=1000, depth=depth, batch_norm=True)
    assert len(weights(model, nn.Conv2d | nn.Linear)) == depth


@pytest.mark.parametrize("depth", PUBLISHED)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_torchvisions_weights_fit(depth, batch_norm):
    with torch.device("meta"):
        ours = VGG(in_channels=3, num_classes=1000, depth=depth, batch_norm=batch_norm)
        theirs = getattr(torchvision, ours.torchvision_name)()
    ours.load_state_dict(translate(theirs.state_dict(), ours), strict=True, assign=True)


@pytest.mark.parametrize("name", [pytest.param("vgg16", marks=pytest.mark.slow), "vgg16_bn"])
def test_it_computes_what_torchvisions_does(name, monkeypatch):
    monkeypatch.setattr(vgg, "HIDDEN", 16)  # instead of 4096, which would take a gigabyte
    ours = VGG(in_channels=3, num_classes=5, depth=16, batch_norm=name.endswith("_bn"))
    theirs = getattr(torchvision, name)(num_classes=5, init_weights=False)
    theirs.classifier[0], theirs.classifier[3] = nn.Linear(512 * 49, 16), nn.Linear(16, 16)
    theirs.classifier[6] = nn.Linear(16, 5)
    assert ours.torchvision_name == name
    check_parity(ours, theirs, image_shape=(3, 64, 64))


@pytest.mark.parametrize("change", [{"input": "small"}, {"kernel_size": 5}, {"convolutions": [1, 1]}, {"width": 0.5}])
def test_torchvision_has_none_of_the_other_forms(change):
    with torch.device("meta"):
        assert VGG(in_channels=3, num_classes=10, **change).torchvision_name is None


def receptive_field(model):
    """Side in pixels of the receptive field of one element of the features."""
    side, step = 1, 1
    for layer in model.features:
        if isinstance(layer, nn.Conv2d):
            side += (layer.kernel_size[0] - 1) * step
        elif isinstance(layer, nn.MaxPool2d):
            side, step = side + step, 2 * step
    return side


@pytest.mark.parametrize(
    ("kernel_size", "stages"),
    [
        (5, {"depth": 13}),
        *((k, s) for k in (5, 7) for s in ({"depth": 16}, {"depth": 19}, {"convolutions": [1, 6, 6]})),
    ],
)
def test_larger_kernels_see_the_same_pixels_with_fewer_layers_and_more_parameters(kernel_size, stages):
    stacked, single = small(**stages), small(**stages, kernel_size=kernel_size)
    assert receptive_field(single) == receptive_field(stacked)
    assert len(weights(single)) < len(weights(stacked))
    assert sum(p.numel() for p in single.parameters()) > sum(p.numel() for p in stacked.parameters())


def test_a_kernel_that_would_replace_nothing_is_refused():
    with pytest.raises(ValueError, match="stands for 3 convolutions of 3x3 in a row, and no stage has as many"):
        small(depth=13, kernel_size=7)


@pytest.mark.parametrize(
    ("count", "kernel_size", "expected"),
    [(3, 3, [3, 3, 3]), (2, 5, [5]), (3, 5, [3, 5]), (6, 7, [7, 7]), (2, 7, [3, 3]), (4, 7, [3, 7])],
)
def test_what_is_left_over_stays_3x3_and_comes_first(count, kernel_size, expected):
    assert kernels(count, kernel_size) == expected


def test_convolutions_are_those_of_each_stage():
    model = small(convolutions=[1, 2, 3], width=0.5)
    assert [layer.out_channels for layer in weights(model)] == [32, 64, 64, 128, 128, 128]
    assert len(weights(model, nn.MaxPool2d)) == len(model.stages()) == 3


@pytest.mark.parametrize(
    "image", [Images(1, 16, 16), Images(1, 28, 28), Images(3, 32, 32), Images(3, 64, 48), Images(1, 32, 65)]
)
def test_it_reads_images_of_any_size_that_pooling_leaves_a_pixel_of(image):
    model = VGG.for_data(image, TEN, depth=11, width=0.05, batch_norm=True)
    assert model(torch.randn(2, image.channels, image.height, image.width)).shape == (2, 10)


@pytest.mark.parametrize(
    ("image", "config", "message"),
    [
        (Images(1, 8, 8), {}, "halves the image 5 times, .* at least 16x16 pixels, not 8x8: dataset.image_size=32$"),
        (Images(3, 31, 90), {"input": "imagenet"}, "at least 32x32 pixels, not 31x90: dataset.image_size=224$"),
        (Images(1, 3, 3), {"convolutions": [1, 1, 1]}, "halves the image 3 times, .* at least 4x4 pixels"),
    ],
)
def test_an_image_too_small_to_halve_is_refused_with_the_cure(image, config, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        VGG.for_data(image, TEN, **config)


def test_the_signal_neither_fades_nor_grows_through_19_layers_without_batch_norm():
    torch.manual_seed(1)
    model = VGG(in_channels=3, num_classes=10, depth=19, input="small", width=0.25).eval()
    features = model.features(torch.randn(16, 3, 32, 32))
    assert 0.1 < features.std() < 10


def test_the_stages_end_before_their_pooling():
    model = VGG(in_channels=3, num_classes=10, depth=11, input="small", width=0.125, batch_norm=True)
    shapes = []
    for stage in model.stages().values():
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.randn(2, 3, 32, 32))
    assert list(model.stages()) == [f"stage {n}" for n in range(1, 6)]
    assert shapes == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4), (64, 2, 2)]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"depth": 12}, "depth=12 was not published. There are: 11 13 16 19"),
        ({"kernel_size": 4}, "kernel_size=4 is no choice. There are: 3 5 7"),
        ({"convolutions": []}, r"convolutions=\[\] must name the convolutions of one to five stages"),
        ({"convolutions": [1] * 6}, "one to five stages"),
        ({"convolutions": [1, 0]}, r"convolutions\[1\]=0"),
        ({"input": "tiny"}, "input=tiny is no choice. There are: imagenet small"),
        ({"width": -1}, "width=-1 must be above 0"),
        ({"dropout": 2}, "dropout=2"),
    ],
)
def test_an_impossible_argument_is_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        VGG(**{"in_channels": 1, "num_classes": 10, **wrong})
