import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from rich.console import Console
from torch import nn
from torchvision import models as torchvision_models

from epochal.config.compose import compose
from epochal.core.errors import ConfigError
from epochal.inference.evaluate import evaluate
from epochal.models import MLP, VGG, AlexNet, EfficientNet, GoogLeNet, ResNet, ViT
from epochal.models.pretrained.torchvision import load_pretrained, normalisation, translate
from helpers.parity import check_parity
from helpers.training import train


class Small(nn.Module):
    """Has the layers of torchvision's SqueezeNet's beginning, by other names."""

    torchvision_keys = ((r"^features\.0\.", "stem."), (r"^classifier\.1\.", "head."))

    def __init__(self, momentum: float = 0.5) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.head, self.power = nn.Linear(8, 4), momentum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.stem(x)).abs().pow(self.power).mean((2, 3)))


class Theirs(Small):
    """The same with torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.classifier = nn.Sequential(self.stem), nn.Sequential(nn.Identity(), self.head)
        del self.stem, self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.norm(self.features(x)).abs().pow(self.power).mean((2, 3)))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder where torch.hub keeps weights; nothing can be downloaded."""

    def unreachable(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def put(hub: Path, name: str) -> dict[str, torch.Tensor]:
    """Weights of no training in the place of torchvision's."""
    torch.manual_seed(5)
    kwargs = {"init_weights": False} if name == "googlenet" else {}
    state = getattr(torchvision_models, name)(weights=None, **kwargs).state_dict()
    file = torchvision_models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    torch.save(state, hub / file)
    return state


def test_rules_apply_one_after_the_other_and_reshaping_comes_last():
    class Model:
        torchvision_keys = ((r"^a\.", "b."), (r"^b\.(\d)", r"c.\1"))

        def reshape_torchvision(self, state):
            return {name: tensor.flatten() for name, tensor in state.items()}

    state = {"a.1.weight": torch.ones(2, 3), "other": torch.ones(1)}
    translated = translate(state, Model())
    assert {name: tuple(tensor.shape) for name, tensor in translated.items()} == {"c.1.weight": (6,), "other": (1,)}
    assert state["a.1.weight"].shape == (2, 3)


def test_parity_holds_for_the_same_network_by_other_names():
    check_parity(Small(), Theirs(), (3, 8, 8))


def test_parity_fails_for_another_function():
    with pytest.raises(AssertionError, match="outputs differ"):
        check_parity(Small(momentum=0.6), Theirs(), (3, 8, 8))


def test_parity_fails_for_another_gradient_alone():
    class Detached(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bias = self.stem.bias
            out = nn.functional.conv2d(x, self.stem.weight) + (0.5 * bias + 0.5 * bias.detach())[:, None, None]
            return self.head(self.norm(out).abs().pow(self.power).mean((2, 3)))

    with pytest.raises(AssertionError, match="gradients by stem.bias differ"):
        check_parity(Detached(), Theirs(), (3, 8, 8))


def test_parity_fails_if_a_parameter_has_no_part():
    class Unused(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.head.bias.requires_grad_(False)
            return super().forward(x)

    with pytest.raises(AssertionError, match="head.bias has a part in the output of only one"):
        check_parity(Unused(), Theirs(), (3, 8, 8))


@pytest.mark.parametrize(
    "model, arguments",
    [
        (AlexNet, {}),
        *((VGG, {"depth": depth, "batch_norm": norm}) for depth, norm in ((11, False), (19, True))),
        (GoogLeNet, {}),
        *((ResNet, {"depth": depth}) for depth in (18, 50)),
        *((EfficientNet, {"variant": f"b{number}"}) for number in (0, 5)),
        *((ViT, {"variant": variant, "patch_size": size}) for variant, size in (("B", 16), ("L", 32))),
    ],
)
def test_published_variants_have_a_place_for_each_of_torchvisions_weights(model, arguments):
    shape = {"image_shape": (3, 224, 224)} if model is ViT else {"in_channels": 3}
    with torch.device("meta"):
        ours = model(**shape, num_classes=1000, **arguments)
        rest = {"init_weights": False} if model is GoogLeNet else {}
        theirs = getattr(torchvision_models, ours.torchvision_name)(weights=None, **rest)
    assert normalisation(ours)["mean"]
    state = translate(theirs.state_dict(), ours)
    assert {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in ours.state_dict().items()}


@pytest.fixture
def resnet() -> ResNet:
    return ResNet(in_channels=3, num_classes=2, depth=18)


def test_all_but_the_output_is_torchvisions(hub: Path, resnet: ResNet):
    theirs = put(hub, "resnet18")
    head = resnet.head.weight.clone()
    told = load_pretrained(resnet)
    ours = resnet.state_dict()
    for name, tensor in translate(theirs, resnet).items():
        assert name.startswith("head.") or torch.equal(ours[name], tensor), name
    assert torch.equal(resnet.head.weight, head)
    assert told == "Weights: torchvision's ResNet18_Weights.IMAGENET1K_V1; head begins afresh, for other classes."


def test_with_as_many_classes_the_output_is_torchvisions_too(hub: Path):
    theirs = put(hub, "resnet18")
    model = ResNet(in_channels=3, num_classes=1000, depth=18)
    assert load_pretrained(model) == "Weights: torchvision's ResNet18_Weights.IMAGENET1K_V1."
    assert torch.equal(model.head.weight, theirs["fc.weight"])


def test_auxiliary_heads_begin_afresh_or_are_left_out(hub: Path):
    theirs = put(hub, "googlenet")
    for auxiliary in (True, False):
        model = GoogLeNet(in_channels=3, num_classes=1000, auxiliary=auxiliary)
        before = [parameter.clone() for parameter in model.auxiliary.parameters()]
        load_pretrained(model)
        assert torch.equal(model.head.weight, theirs["fc.weight"])
        assert all(map(torch.equal, before, model.auxiliary.parameters()))


def test_older_files_that_count_no_batches_are_read(hub: Path, resnet: ResNet):
    state = put(hub, "resnet18")
    file = next(hub.iterdir())
    torch.save({name: tensor for name, tensor in state.items() if "num_batches" not in name}, file)
    assert "ResNet18" in load_pretrained(resnet)


def test_a_file_of_other_weights_is_refused_and_nothing_is_loaded(hub: Path, resnet: ResNet):
    before = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    state = put(hub, "resnet18")
    torch.save({**state, "layer1.0.conv1.weight": torch.ones(3, 3)}, next(hub.iterdir()))
    with pytest.raises(ConfigError, match=r"resnet18-\w+.pth does not hold the weights of torchvision's resnet18"):
        load_pretrained(resnet)
    assert all(torch.equal(before[name], tensor) for name, tensor in resnet.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"<html>sign in</html>"])
def test_a_damaged_file_is_named(hub: Path, resnet: ResNet, content: bytes):
    put(hub, "resnet18")
    next(hub.iterdir()).write_bytes(content)
    with pytest.raises(ConfigError, match=r"resnet18-\w+.pth is damaged. Delete it"):
        load_pretrained(resnet)


def test_without_network_the_sentence_says_where_a_copy_goes(
    hub: Path, resnet: ResNet, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(ConfigError) as raised:
        load_pretrained(resnet)
    message = str(raised.value)
    assert "resnet18-f37072fd.pth cannot be downloaded (Name or service not known)" in message
    assert f"Put a copy of it into {hub} (TORCH_HOME" in message and "model.pretrained=false" in message
    assert capsys.readouterr() == ("", "")
    assert not list(hub.iterdir())


@pytest.mark.parametrize(
    "model, message",
    [
        (AlexNet(in_channels=1, num_classes=2, width=0.01), "with model.input=imagenet for alexnet; choose one"),
        (
            EfficientNet(in_channels=3, num_classes=2, width=0.1),
            "for efficientnet_b0 efficientnet_b1 .* efficientnet_b7;",
        ),
        (
            ResNet(in_channels=1, num_classes=2, depth=18),
            "weights of resnet18 read colour images, and the data has 1 ch",
        ),
        (MLP(in_features=4, num_classes=2), "torchvision has no weights for this network; choose one that has"),
    ],
)
def test_networks_without_weights_are_refused_before_anything_is_downloaded(hub: Path, model: nn.Module, message: str):
    for function in (load_pretrained, normalisation):
        with pytest.raises(ConfigError, match=message):
            function(model)


def test_pixels_are_scaled_as_the_weights_saw_them(resnet: ResNet):
    assert normalisation(resnet) == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_googlenets_pixels_are_scaled_as_torchvisions_network_itself_scales_them():
    with torch.device("meta"):
        scale = normalisation(GoogLeNet(in_channels=3, num_classes=2))
        usual = normalisation(ResNet(in_channels=3, num_classes=2, depth=18))
    images = torch.rand(1, 3, 4, 4)
    own = SimpleNamespace(transform_input=True)
    theirs = torchvision_models.GoogLeNet._transform_input(own, scaled(images, usual))  # type: ignore[arg-type]
    torch.testing.assert_close(scaled(images, scale), theirs)


def scaled(images: torch.Tensor, scale: dict[str, list[float]]) -> torch.Tensor:
    mean, std = (torch.tensor(scale[name]).view(-1, 1, 1) for name in ("mean", "std"))
    return (images - mean) / std


PHOTOS = ("dataset=images", "dataset.batch_size=4", "dataset.image_size=32", "logger=none")
PRETRAINED = ("model=efficientnet", "model.input=imagenet", "model.pretrained=true")


def test_a_run_begins_with_them_on_pixels_scaled_for_them_and_needs_them_no_more(hub: Path, photos: Path, home: Path):
    theirs = put(hub, "efficientnet_b0")["features.0.0.weight"]
    path = f"dataset.path={photos}"
    job = train(*PRETRAINED, *PHOTOS, path, "duration=1steps", "optimizer.lr=1e-12", "optimizer.weight_decay=0")
    ours = job.task.model.features[0][0].weight.detach().contiguous()
    torch.testing.assert_close(ours, theirs)
    scale = normalisation(job.task.model)
    assert all(job.data.state()[name] == pytest.approx(numbers) for name, numbers in scale.items())

    next(hub.iterdir()).unlink()
    config = compose([f"run={job.run.folder}"], "evaluate")
    assert evaluate(config, Console(quiet=True))["test/loss"] == pytest.approx(job.task.measured["test/loss"])
    file = job.run.folder / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "status": "stopped"}))
    assert train(f"resume={job.run.folder}").data.state() == job.data.state()


def test_without_network_no_run_folder_is_made(hub: Path, photos: Path, refuse: Callable[..., str]):
    says = ("efficientnet_b0_rwightman-7f5810bc.pth cannot be downloaded", "TORCH_HOME", "model.pretrained=false")
    refuse("train", *PRETRAINED, *PHOTOS, f"dataset.path={photos}", says=says)


def test_small_forms_have_no_weights_and_two_beginnings_are_one_too_many(photos: Path, refuse: Callable[..., str]):
    data = (*PHOTOS, f"dataset.path={photos}")
    refuse("train", "model=vgg", "model.pretrained=true", *data, says=("with model.input=imagenet for vgg11 vgg11_bn",))
    refuse("train", *PRETRAINED, *data, "init_from=run", says=("init_from and model.pretrained both choose",))
