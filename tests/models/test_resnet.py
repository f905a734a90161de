import pytest
import torch
import torchvision
from torch import nn

from epochal.core.specs import Classes, Images
from epochal.models import ResNet
from epochal.models.resnet import IMAGENET, PUBLISHED
from helpers.parity import check_parity

TEN = Classes(tuple("0123456789"))


@pytest.mark.parametrize("family, classes", [("cifar", 10), ("imagenet", 1000)])
def test_they_have_the_published_number_of_parameters(family, classes):
    for depth, millions in PUBLISHED[family].items():
        with torch.device("meta"):
            model = ResNet(in_channels=3, num_classes=classes, depth=depth)
        rel = {"cifar": 0.03, "imagenet": 0.003}[family]
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=rel)


@pytest.mark.parametrize("depth", [20, 50])
def test_depth_counts_the_layers_with_weights(depth):
    model = ResNet(in_channels=3, num_classes=10, depth=depth, shortcut="A")
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == depth


@pytest.mark.parametrize("depth", [18, 50, pytest.param(152, marks=pytest.mark.slow)])
def test_it_computes_what_torchvisions_does(depth):
    ours = ResNet(in_channels=3, num_classes=10, depth=depth)
    assert ours.torchvision_name == f"resnet{depth}"
    check_parity(ours, getattr(torchvision.models, ours.torchvision_name)(num_classes=10), (3, 32, 32))


@pytest.mark.parametrize("config", [{"input": "small"}, {"residual": False}, {"shortcut": "A"}, {"family": "cifar"}])
def test_a_network_that_torchvision_has_not_got_says_so(config):
    with torch.device("meta"):
        assert ResNet(in_channels=3, num_classes=10, depth=50, **config).torchvision_name is None


@pytest.mark.parametrize("depth", [20, *IMAGENET])
def test_plain_and_residual_networks_have_the_same_parameters(depth):
    with torch.device("meta"):
        plain, residual = (
            ResNet(in_channels=3, num_classes=10, depth=depth, residual=flag, shortcut="A").state_dict()
            for flag in (False, True)
        )
    assert {k: v.shape for k, v in plain.items()} == {k: v.shape for k, v in residual.items()}


def test_checkpoints_of_the_cifar_family_keep_their_names():
    names = ResNet(in_channels=3, num_classes=10, depth=8, shortcut="B").state_dict()
    weights = {name for name in names if name.endswith("weight")}
    projected = {f"blocks.{i}.projection.{layer}.weight" for i in (1, 2) for layer in (0, 1)}
    layers = {f"blocks.{i}.{layer}.weight" for i in range(3) for layer in ("conv1", "norm1", "conv2", "norm2")}
    assert weights == layers | projected | {"stem.0.weight", "stem.1.weight", "head.weight"}


@pytest.mark.parametrize("depth", [50, 152])
def test_a_depth_of_both_families_is_imagenets_unless_asked(depth):
    with torch.device("meta"):
        auto, cifar = (ResNet(in_channels=3, num_classes=10, depth=depth, family=f) for f in ("auto", "cifar"))
    assert auto.head.in_features == 2048
    assert cifar.head.in_features == 64


@pytest.mark.parametrize("depth, shortcut", [(20, "A"), (18, "A"), (50, "B")])
def test_width_scales_every_channel(depth, shortcut):
    model = ResNet(in_channels=3, num_classes=10, depth=depth, shortcut=shortcut, input="auto", width=0.25)
    full = ResNet(in_channels=3, num_classes=10, depth=depth, shortcut=shortcut)
    norms = [(a.num_features, b.num_features) for a, b in zip(model.modules(), full.modules()) if hasattr(b, "eps")]
    assert norms and all(4 * narrow == wide for narrow, wide in norms)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert model.torchvision_name is None
    with pytest.raises(ValueError, match="width"):
        ResNet(in_channels=3, num_classes=10, width=0.0)


def test_a_residual_block_that_learnt_nothing_passes_its_input_on():
    model = ResNet(in_channels=1, num_classes=2, depth=8)
    block, x = model.blocks[0], torch.rand(2, 16, 8, 8)
    nn.init.zeros_(block.norm2.weight)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize("depth, channels", [(18, 64), (50, 256)])
def test_zero_init_residual_begins_with_blocks_that_learnt_nothing(depth, channels):
    model = ResNet(in_channels=1, num_classes=2, depth=depth, zero_init_residual=True)
    x = torch.rand(2, channels, 8, 8)
    torch.testing.assert_close(model.blocks[1](x), x)


def test_shortcut_a_strides_and_pads_with_zero_channels():
    x = torch.rand(2, 16, 8, 8)
    shortcut = ResNet(in_channels=1, num_classes=2, depth=8).blocks[1].shortcut(x)
    assert torch.equal(shortcut[:, :16], x[:, :, ::2, ::2])
    assert shortcut.shape == (2, 32, 4, 4) and not shortcut[:, 16:].any()


def test_shortcut_b_projects_only_where_the_shape_changes():
    model = ResNet(in_channels=3, num_classes=10, depth=14, shortcut="B")
    assert [block.projection is not None for block in model.blocks] == [False, False, True, False, True, False]
    assert model(torch.randn(2, 3, 9, 12)).shape == (2, 10)


@pytest.mark.parametrize("depth, projections", [(18, [2, 4, 6]), (50, [0, 3, 7, 13]), (20, [])])
def test_shortcut_auto_is_what_the_family_was_published_with(depth, projections):
    with torch.device("meta"):
        blocks = ResNet(in_channels=3, num_classes=10, depth=depth).blocks
    assert [i for i, block in enumerate(blocks) if block.projection is not None] == projections


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("depth", [18, 50])
def test_every_parameter_of_the_imagenet_family_learns(depth, shortcut):
    model = ResNet(in_channels=3, num_classes=10, depth=depth, shortcut=shortcut, input="small")
    model(torch.randn(2, 3, 16, 16)).square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("image", [Images(1, 4, 4), Images(1, 8, 8), Images(1, 28, 28), Images(3, 32, 32)])
def test_it_reads_images_from_4_pixels_on(image):
    model = ResNet.for_data(image, TEN, depth=8)
    assert model(torch.randn(2, image.channels, image.height, image.width)).shape == (2, 10)


@pytest.mark.parametrize(
    "config, side, sides",
    [
        ({"depth": 8}, 32, [32, 32, 16, 8]),
        ({"depth": 8}, 96, [96, 96, 48, 24]),  # the cifar family stays what it is
        ({"depth": 18}, 64, [64, 64, 32, 16, 8]),
        ({"depth": 18}, 96, [24, 24, 12, 6, 3]),
        ({"depth": 18, "input": "imagenet"}, 32, [8, 8, 4, 2, 1]),
        ({"depth": 18, "input": "small"}, 96, [96, 96, 48, 24, 12]),
    ],
)
def test_each_stage_has_maps_of_the_size_that_the_input_form_gives(config, side, sides):
    with torch.device("meta"):
        model = ResNet.for_data(Images(1, side, side), TEN, **config)
    assert list(model.stages()) == ["stem", *(f"stage {i}" for i in range(1, len(sides)))]
    seen = []
    for stage in model.stages().values():
        stage.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-1]))
    model(torch.zeros(2, 1, side, side, device="meta"))
    assert seen == sides


@pytest.mark.parametrize("depth", [8, 18])
def test_channels_last_images_stay_channels_last(depth):
    model = ResNet(in_channels=3, num_classes=10, depth=depth).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    x = model.stem(images)
    for block in model.blocks:
        x = block(x)
        assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "config, message",
    [
        (
            {"depth": 21},
            "depth=21 is not 6n [+] 2. The nearest are 20 and 26 .family=cifar. and 18 .family=imagenet.[.]",
        ),
        ({"depth": 2}, "depth=2 is not 6n [+] 2. The nearest are 8 .family=cifar. and 18 "),
        (
            {"depth": 18, "family": "cifar"},
            "depth=18 is not 6n [+] 2. The nearest are 14 and 20 .* and 18 .family=imag",
        ),
        ({"depth": 20, "family": "imagenet"}, "depth=20 is none of ImageNet.* are 20 .family=cifar. and 18 "),
        ({"depth": 148}, "146 and 152 .family=cifar. and 152 "),
        ({"depth": -4}, "depth=-4"),
        ({"family": "imagenette"}, "family=imagenette is no choice. There are: auto cifar imagenet"),
        ({"shortcut": "C"}, "shortcut=C is no choice. There are: auto A B"),
        ({"input": "large"}, "input=large is no choice. There are: auto imagenet small"),
        ({"depth": 20, "input": "imagenet"}, "input=imagenet needs family=imagenet"),
        ({"residual": False, "zero_init_residual": True}, "zero_init_residual=true needs residual=true"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_right_ones(config, message):
    with pytest.raises(ValueError, match=message):
        ResNet(in_channels=3, num_classes=10, **config)


@pytest.mark.parametrize(
    "image, config, message",
    [
        (Images(1, 3, 8), {}, "2 times, .* at least 4x4 pixels, not 3x8: dataset.image_size=32"),
        (Images(1, 7, 8), {"depth": 18}, "3 times, .* at least 8x8 pixels, not 7x8: dataset.image_size=32"),
        (
            Images(1, 28, 28),
            {"depth": 18, "input": "imagenet"},
            "5 times, .* 32x32 pixels, not 28x28: dataset.image_size",
        ),
    ],
)
def test_an_image_too_small_to_halve_is_refused(image, config, message):
    with pytest.raises(ValueError, match=message):
        ResNet.for_data(image, TEN, **config)
