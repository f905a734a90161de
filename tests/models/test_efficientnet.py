from functools import partial
from math import prod

import pytest
import torch
import torchvision
from torch import nn

from epochal.core.specs import Classes, Images
from epochal.models import EfficientNet
from epochal.models.efficientnet import STRIDES, VARIANTS, Block, size
from epochal.training.cost import count_flops
from helpers.parity import check_parity

TEN = Classes(tuple("0123456789"))
THOUSAND = Classes(tuple(map(str, range(1000))))
MILLIONS = {"b0": 5.3, "b1": 7.8, "b2": 9.1, "b3": 12.2, "b4": 19.3, "b5": 30.4, "b6": 43.0, "b7": 66.3}
laptop = partial(EfficientNet, in_channels=3, num_classes=10, width=0.25, depth=0.5, input="small")


def on_meta(**config):
    with torch.device("meta"):
        return EfficientNet(**{"in_channels": 3, "num_classes": 1000, **config})


@pytest.mark.parametrize("variant, millions", MILLIONS.items())
def test_it_has_the_published_number_of_parameters(variant, millions):
    assert sum(p.numel() for p in on_meta(variant=variant).parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("variant, billions", [("b0", 0.39), ("b1", 0.70), ("b3", 1.8), ("b7", 37)])  # table 2
def test_it_costs_the_published_number_of_multiply_adds(variant, billions):
    grown = size(variant, "compound", width=1, depth=1, resolution=224, input="imagenet")
    assert grown.side == VARIANTS[variant].resolution
    assert grown.cost(STRIDES["imagenet"]) / 1e9 == pytest.approx(billions, rel=0.05)


@pytest.mark.parametrize("scale_by", ["compound", "resolution"])
def test_its_cost_is_what_torch_counts(scale_by):
    factors = {"resolution": 12, "width": 0.25, "depth": 0.5, "input": "small"}
    counted = count_flops(on_meta(num_classes=10, variant="b3", scale_by=scale_by, **factors), (Images(3, 32, 32), TEN))
    cost = size("b3", scale_by, **factors).cost(STRIDES["small"])
    assert cost == pytest.approx(counted / 2, rel=0.03)  # squeeze-and-excitation is left out


@pytest.mark.parametrize("variant", ["b0", "b4"])
def test_it_computes_what_torchvisions_does(variant):
    ours = EfficientNet(in_channels=3, num_classes=10, variant=variant)
    assert ours.torchvision_name == f"efficientnet_{variant}"
    check_parity(ours, getattr(torchvision.models, ours.torchvision_name)(num_classes=10), (3, 32, 32))


@pytest.mark.parametrize("variant", ["b5"])
def test_its_batch_norms_divide_as_torchvisions_do(variant):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"efficientnet_{variant}")()
    eps = [
        {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
        for model in (on_meta(variant=variant), theirs)
    ]
    assert eps[0] == eps[1]


@pytest.mark.parametrize("config", [{"width": 0.5}, {"depth": 0.5}, {"input": "small"}])
def test_a_network_that_torchvision_has_not_got_says_so(config):
    assert on_meta(**config).torchvision_name is None


def test_the_variants_multiply_to_the_flops_of_their_phi():
    for phi, (width, depth, resolution, _) in zip((0, 0.4, 1, 2, 3.6, 4.8, 5.9, 6.9), VARIANTS.values()):
        growth = depth * width**2 * (resolution / 224) ** 2
        assert growth == pytest.approx((1.2 * 1.1**2 * 1.15**2) ** phi, rel=0.05)


@pytest.mark.parametrize("scale_by", ["compound", "depth", "width", "resolution"])
def test_every_way_to_grow_b0_to_b3_costs_the_papers_1_8_billion_multiply_adds(scale_by):  # table 7
    grown = size("b3", scale_by, width=1, depth=1, resolution=224, input="imagenet")
    assert grown.cost(STRIDES["imagenet"]) / 1e9 == pytest.approx(1.8, rel=0.05)


@pytest.mark.parametrize("resolution", [10, 12, 16])
def test_all_ways_to_grow_a_small_network_cost_about_the_same(resolution):
    make = partial(size, width=0.25, depth=0.5, resolution=resolution, input="small")
    b0, *costs = (
        make(variant, by).cost(STRIDES["small"])
        for variant, by in (("b0", "compound"), *(("b3", by) for by in ("compound", "depth", "width", "resolution")))
    )
    assert 3 * b0 < min(costs) <= max(costs) < 1.25 * min(costs)


def test_b0_is_the_same_however_it_is_scaled():
    sizes = [
        size("b0", by, width=0.5, depth=0.5, resolution=16, input="small") for by in ("compound", "depth", "width")
    ]
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize(
    "config, side",
    [
        ({}, 32),  # the small form halves three times
        ({"input": "imagenet"}, 32),
        ({"resolution": 16}, 16),
        ({"resolution": 16, "variant": "b3"}, 21),  # 16 * 300 / 224
    ],
)
def test_images_become_as_large_as_resolution_says(config, side):
    model = laptop(**config)
    seen = []
    model.features.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert seen == [side]


def test_the_small_form_leaves_out_the_strides_of_the_stem_and_of_stage_2():
    names, image = ("stem", *(f"stage {i}" for i in range(1, 8)), "top"), torch.randn(2, 3, 64, 64)
    sides = {"small": [64, 64, 64, 32, 16, 16, 8, 8, 8], "imagenet": [32, 32, 16, 8, 4, 4, 2, 2, 2]}
    for form, expected in sides.items():
        model, seen = laptop(input=form).eval(), []
        assert tuple(model.stages()) == names
        for stage in model.stages().values():
            stage.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.shape[-1]))
        model(image)
        assert seen == expected


def test_stochastic_depth_skips_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    block = Block(in_channels=4, out_channels=4, ratio=6, kernel=3, stride=1, drop_path=0.25)
    x = torch.ones(4000, 4, 2, 2)
    for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eval()
    added = block(x) - x
    skipped = (added == 0).all(dim=(1, 2, 3))
    assert skipped.float().mean() == pytest.approx(0.25, abs=0.03)
    block.eval()
    torch.testing.assert_close(added[~skipped] * 0.75, (block(x) - x)[~skipped])


def test_deeper_blocks_are_skipped_more_often_and_none_in_eval_mode():
    model = laptop(stochastic_depth=0.5)
    rates = [block.drop_path for block in model.modules() if isinstance(block, Block)]
    assert rates == sorted(rates) and rates[0] == 0 and rates[-1] == pytest.approx(0.5 * 9 / 10)
    model.eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images), model(images))


def test_a_depthwise_convolution_starts_from_what_one_channel_needs():
    torch.manual_seed(0)
    depthwise = EfficientNet(in_channels=3, num_classes=10).features[4][1].layers[1][0]
    assert depthwise.groups == 480
    assert depthwise.weight.std().item() == pytest.approx((2 / prod(depthwise.kernel_size)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("image", [Images(1, 8, 8), Images(1, 28, 28), Images(3, 32, 48), Images(3, 96, 80)])
def test_it_reads_images_of_many_shapes(image):
    model = EfficientNet.for_data(image, TEN, width=0.25, depth=0.5)
    assert model(torch.randn(2, image.channels, image.height, image.width)).shape == (2, 10)


@pytest.mark.parametrize("side, form", [(32, "small"), (64, "small"), (65, "imagenet")])
def test_the_form_follows_the_images_size(side, form):
    stem = EfficientNet.for_data(Images(3, side, side), TEN, width=0.25, depth=0.5).features[0][0]
    assert stem.stride == (STRIDES[form][0],) * 2


@pytest.mark.parametrize(
    "config, message",
    [
        ({"variant": "b8"}, "variant=b8 is no choice. There are: b0 b1"),
        ({"scale_by": "all"}, "scale_by=all is no choice. There are: compound depth width resolution"),
        ({"scale_by": "width"}, "scale_by=width counts FLOPs, so it needs .* resolution=32"),
        ({"resolution": 4}, "at least 8x8 pixels, not 4x4: resolution=8"),
        ({"width": 0}, "width=0 must be above 0"),
        ({"depth": -1.0}, "depth=-1.0 must be above 0"),
        ({"stochastic_depth": 1.0}, "stochastic_depth=1.0 must be a number of at least 0 and below 1"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_right_ones(config, message):
    with pytest.raises(ValueError, match=message):
        laptop(**config)


@pytest.mark.parametrize(
    "image, config, message",
    [
        (Images(3, 7, 32), {}, "small form halves the image 3 times, .* 8x8 pixels, not 7x32: dataset.image_size=32"),
        (Images(3, 28, 28), {"input": "imagenet"}, "halves the image 5 times, .* 32x32 pixels, not 28x28: dataset"),
    ],
)
def test_an_image_too_small_for_the_strides_is_refused(image, config, message):
    with pytest.raises(ValueError, match=message):
        EfficientNet.for_data(image, TEN, **config)


def test_a_small_image_can_be_enlarged_by_the_network():
    model = EfficientNet.for_data(Images(1, 4, 4), TEN, width=0.25, depth=0.5, resolution=8)
    assert model(torch.randn(2, 1, 4, 4)).shape == (2, 10)
