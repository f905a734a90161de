import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.core.specs import Classes, Images
from epochal.models import Timm
from helpers.training import train

timm = pytest.importorskip("timm")
TEN = Classes(tuple("0123456789"))


def test_it_is_timms_network_with_an_output_for_our_classes() -> None:
    model = Timm.for_data(Images(1, 32, 32), TEN, network="test_resnet").eval()
    theirs = timm.create_model("test_resnet", num_classes=10, in_chans=1).eval()
    theirs.load_state_dict(model.network.state_dict())
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(model(images), theirs(images))


@pytest.mark.parametrize("network", ["test_vit", "test_efficientnet", "test_convnext", "test_nfnet"])
def test_each_kind_reads_images_of_the_datas_size(network: str) -> None:
    model = Timm.for_data(Images(3, 64, 64), TEN, network=network)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 10)


def test_its_stages_are_feature_maps() -> None:
    model = Timm.for_data(Images(3, 64, 64), TEN, network="test_resnet")
    shapes = []
    for module in model.stages().values():
        module.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[2:]))
    model(torch.rand(2, 3, 64, 64))
    assert list(model.stages()) == ["act1", "layer1", "layer2", "layer3", "layer4"]
    assert shapes == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]


def test_of_a_transformer_there_are_no_feature_maps() -> None:
    assert Timm.for_data(Images(3, 32, 32), TEN, network="test_vit").stages() == {}


def test_heads_are_the_layers_that_depend_on_the_classes() -> None:
    two, ten = (
        Timm(image_shape=(3, 32, 32), num_classes=count, network="test_resnet").state_dict() for count in (2, 10)
    )
    unlike = {name for name in two if two[name].shape != ten[name].shape}
    heads = Timm(image_shape=(3, 32, 32), num_classes=2, network="test_resnet").head_parameters
    assert unlike == {name for name in two if name.startswith(heads)}


@pytest.mark.parametrize(
    "network, side, message",
    [
        ("convnext_ato", 32, "network=convnext_ato is no network of timm. Did you mean convnext_atto?"),
        ("hf-hub:somebody/something", 32, "is no network of timm"),
        ("test_vit.x", 32, "network=test_vit.x are no weights that timm has. There are: test_vit test_vit.r160_in1k"),
        ("test_vit", 8, "cannot read images of 3x8x8. It was made for 160x160: dataset.image_size=32"),
    ],
)
def test_what_it_cannot_be_is_refused_with_what_would_be_right(network: str, side: int, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        Timm.for_data(Images(3, side, side), TEN, network=network)
    assert message in str(raised.value)


def test_where_no_usual_size_is_read_the_published_one_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epochal.models.timm.USUAL", (8,))
    with pytest.raises(ValueError, match="It was made for 160x160: dataset.image_size=160"):
        Timm.for_data(Images(3, 8, 8), TEN, network="test_vit")


def test_without_timm_the_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm is not installed: pip install 'epochal\[timm\]'"):
        Timm.for_data(Images(3, 32, 32), TEN, network="test_vit")


def test_without_network_pretrained_weights_end_in_a_sentence() -> None:
    model = Timm.for_data(Images(3, 32, 32), TEN, network="test_vit")
    with pytest.raises(ConfigError, match="timm/test_vit.r160_in1k are not on this machine and cannot be downloaded"):
        model.load_pretrained()


def test_a_network_without_pretrained_weights_says_so() -> None:
    name = next(n for n in timm.list_models("resnet*") if not timm.get_pretrained_cfg(n).has_weights)
    with pytest.raises(ConfigError, match=f"timm has no weights for network={name}"):
        Timm.for_data(Images(3, 32, 32), TEN, network=name).load_pretrained()


def test_pretrained_weights_are_timms_but_for_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = timm.create_model("test_resnet", num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    model = Timm.for_data(Images(3, 32, 32), TEN, network="test_resnet")
    create = timm.create_model
    file = {"file": str(tmp_path / "weights.pth")}
    monkeypatch.setattr(
        timm, "create_model", lambda *names, **rest: create(*names, pretrained_cfg_overlay=file, **rest)
    )
    assert model.load_pretrained() == "Weights: timm's test_resnet.r160_in1k."
    state = theirs.state_dict()
    for name, tensor in model.state_dict().items():
        alike = (
            torch.equal(tensor, state[name.removeprefix("network.")])
            if not name.startswith(model.head_parameters)
            else True
        )
        assert alike, name
    assert model.network.get_classifier().weight.shape[0] == 10


def test_pixels_are_scaled_as_the_weights_saw_them_grey_ones_by_the_mean_of_the_colours() -> None:
    colour, grey = (
        Timm.for_data(Images(channels, 32, 32), TEN, network="resnet18").normalisation() for channels in (3, 1)
    )
    assert colour["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert grey["mean"] == pytest.approx([0.449], abs=1e-3) and len(grey["std"]) == 1


def test_a_run_trains_one(photos: Path) -> None:
    data = ("dataset=images", f"dataset.path={photos}", "dataset.image_size=32", "dataset.batch_size=4")
    job = train("model=timm", "model.network=test_resnet", *data, "duration=2steps", "logger=none")
    assert "test/accuracy" in job.run.summary()["metrics"]


def test_an_unknown_network_ends_the_command_in_a_sentence(refuse: Callable[..., str]) -> None:
    says = ("model=timm: network=resnet81 is no network of timm. Did you mean resnet18?",)
    refuse("train", "model=timm", "model.network=resnet81", "dataset=digits", says=says)
